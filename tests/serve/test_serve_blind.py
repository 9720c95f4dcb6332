"""Until a vote, nothing that is shown depends on who sits where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InputError, ProcessError
from studio.evaluate.votes import vote_of
from studio.serve.blind import begun_blind, can_vote, opened, sealed, seated, seen
from studio.serve.client import Delta, Sampler, Timing, Token
from studio.serve.columns import Status
from studio.serve.conversation import Column, Conversation, Origin
from studio.serve.saved import conversation_from_json, conversation_json, conversation_markdown

COLUMNS = (Column("A", "@reference", "Be brief."), Column("B", "pruned"))
ORIGINS = {
    id: Origin(name, f"{name}.gguf", 7, "", False, Sampler(), name * 4) for id, name in (("A", "pear"), ("B", "plum"))
}
TIMINGS = {"A": Timing(0.25, 3, 31.0, 9), "B": Timing(0.5, 4, 77.0, 9)}
DONE = {id: Delta(done=True, timing=TIMINGS[id], finish="stop") for id in "AB"}


def asked(seats: str = "AB") -> Conversation:
    """A question to both, with A and B seated as told."""

    def shuffle(ids: list[str]) -> None:
        ids[:] = list(seats)

    conversation = seated(begun_blind(Conversation(columns=COLUMNS)).asked("Hi", "AB"), shuffle)
    for id in "AB":
        conversation = conversation.told(id, ORIGINS[id])
    return conversation


def said(conversation: Conversation, text: str, columns: str = "AB") -> Conversation:
    for id in columns:
        conversation = conversation.heard(id, Delta(text, timing=TIMINGS[id], tokens=(Token(text, id=ord(id)),)))
    return conversation


def ended(conversation: Conversation, columns: str = "AB") -> Conversation:
    for id in columns:
        conversation = conversation.heard(id, DONE[id])
    return conversation


steps = st.lists(
    st.tuples(
        st.sampled_from("AB"), st.sampled_from([Delta("x"), Delta("yy"), Delta(reasoning="hm"), Status("Loading")])
    )
)


@given(steps, st.booleans())
def test_models_that_say_the_same_look_the_same_at_every_moment(heard: list[tuple[str, Delta]], end: bool) -> None:
    """However unevenly they come: what the slower one has said is all that is seen of either."""
    both = [asked("AB"), asked("BA")]
    texts = {"A": 0, "B": 0}
    script = [Delta(reasoning="abc"), *(Delta(letter) for letter in "defghijklmnopqrstuvwxyz")]
    for id, _ in heard[: len(script)]:
        event = script[texts[id]]
        texts[id] += 1
        both = [one.heard(id, event) for one in both]
        assert seen(both[0]) == seen(both[1])
        assert seen(both[0]).answer("A") == seen(both[0]).answer("B")
    if end and texts["A"] == texts["B"]:
        both = [ended(one) for one in both]
        assert seen(both[0]) == seen(both[1])


@pytest.mark.parametrize("seats", ["AB", "BA"])
def test_no_name_size_speed_or_token_is_seen_before_the_vote(seats: str) -> None:
    conversation = ended(said(asked(seats), "Hello"))
    shown = seen(conversation)
    for text in (conversation_json(shown), conversation_markdown(shown)):
        for secret in ("pear", "plum", "gguf", "31", "77", "0.25", "pruned", "reference", "Be brief", seats[::-1]):
            assert secret not in text, secret
    told = seen(opened(conversation, "better"))
    assert [told.answer(place).origin.model for place in "AB"] == [ORIGINS[seat].model for seat in seats]  # type: ignore[union-attr]
    assert told.answer("A").timing == TIMINGS[seats[0]]  # type: ignore[union-attr]


def test_the_faster_one_waits_and_ends_are_told_together() -> None:
    conversation = ended(said(said(asked(), "Hel"), "lo", "A"), "A")
    assert seen(conversation).answer("A").text == "Hel"  # type: ignore[union-attr]
    assert not seen(conversation).answer("A").over and not can_vote(conversation)  # type: ignore[union-attr]
    longer = said(conversation, "p, I am another one", "B")
    assert seen(longer).answer("A").text == "Hello" and can_vote(ended(longer, "B"))  # type: ignore[union-attr]
    assert seen(ended(longer, "B")).answer("B").status == "ended"  # type: ignore[union-attr]


def test_a_failure_tells_who_it_was_and_there_is_no_vote() -> None:
    conversation = ended(said(asked(), "Hi"), "A").heard("B", ProcessError("plum.gguf died."))
    assert not sealed(conversation) and not can_vote(conversation)
    with pytest.raises(InputError, match="nothing to vote on"):
        vote_of(conversation, "better")


@pytest.mark.parametrize("seats", ["AB", "BA"])
def test_a_vote_says_who_was_on_which_side_and_is_cast_once(seats: str) -> None:
    conversation = ended(said(asked(seats), "Hello"))
    vote = vote_of(conversation, "worse")
    assert [vote.left.name, vote.right.name] == [ORIGINS[seat].model for seat in seats]
    assert vote.left.sha256 == ORIGINS[seats[0]].sha256 and vote.choice == "worse" and vote.prompt == "Hi"
    assert vote.configuration["sampler"]["temperature"] == 1.0
    with pytest.raises(InputError, match="nothing to vote on"):
        vote_of(opened(conversation, "worse"), "better")
    with pytest.raises(InputError, match="is no vote"):
        vote_of(conversation, "best")
    for nothing in (asked(seats), ended(asked(seats)), said(asked(seats), "Hello"), Conversation()):
        assert not can_vote(nothing)


def test_a_kept_conversation_stays_blind() -> None:
    conversation = ended(said(asked("BA"), "Hello"))
    again = conversation_from_json(conversation_json(conversation), "the file")
    assert again == conversation and can_vote(again)


def test_each_question_stands_by_itself_and_all_seats_are_drawn() -> None:
    conversation = begun_blind(Conversation(columns=COLUMNS).asked("Before", "AB"))
    drawn = set()
    for number in range(64):
        conversation = seated(conversation.asked(str(number), "AB"))
        assert [turn.prompt for turn in conversation.turns] == [str(number)]
        assert [message["content"] for message in conversation.messages("A")] == [str(number)]
        drawn.add(conversation.blind.seats if conversation.blind else ())
    assert drawn == {("A", "B"), ("B", "A")}
    plain = Conversation(columns=COLUMNS).asked("Hi", "AB")
    assert seated(plain) is plain and seen(plain) is plain


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (COLUMNS[:1], "between two models"),
        ((*COLUMNS, Column("C", "third")), "between two models"),
        ((Column("A", "x"), Column("B")), "between two models"),
        ((Column("A", "x"), Column("B", "x")), "the same model"),
    ],
)
def test_a_blind_comparison_is_between_two_different_models(columns: tuple[Column, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        begun_blind(Conversation(columns=columns))
