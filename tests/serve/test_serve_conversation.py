"""What was said, as pure data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InputError, ProcessError
from studio.serve.client import Delta, Timing, Token
from studio.serve.columns import Event, Status
from studio.serve.conversation import Answer, Conversation

SIDES = ("reference", "candidate")
TIMING = Timing(0.1, 3, 30.0, 9)
DONE = Delta(done=True, timing=TIMING, finish="stop")


def answered(conversation: Conversation, prompt: str, *events: Event) -> Conversation:
    conversation = conversation.asked(prompt, SIDES)
    for side in SIDES:
        for event in events:
            conversation = conversation.heard(side, event)
    return conversation


def test_pieces_become_one_answer() -> None:
    conversation = answered(
        Conversation(), "Hi", Status("Loading"), Delta(reasoning="hm"), Delta("Hel", timing=TIMING), Delta("lo"), DONE
    )
    tokens = (Token("hm", thought=True), Token("Hel"), Token("lo"))
    assert conversation.answer("reference") == Answer("Hello", "hm", tokens, timing=TIMING, finish="stop")


def test_a_status_is_shown_until_the_first_piece() -> None:
    waiting = Answer().after(Status("Loading"))
    assert waiting.status == "Loading" and not waiting.over
    assert waiting.after(Delta("x")).status == "" == waiting.after(InputError("wrong")).status


def test_the_model_is_sent_the_system_prompt_and_its_own_answers_without_thoughts() -> None:
    conversation = answered(Conversation(), "One?", Delta("1", "think"), DONE).asked("Two?", SIDES)
    conversation = conversation.heard("candidate", Delta("2"))
    assert conversation.messages("reference", "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    assert [message["role"] for message in Conversation().asked("Hi", SIDES).messages("reference", "  ")] == ["user"]


def test_a_question_that_a_side_did_not_answer_is_not_sent_again() -> None:
    conversation = Conversation().asked("One?", SIDES).heard("reference", Delta("1")).heard("reference", DONE)
    conversation = conversation.heard("candidate", ProcessError("died")).asked("Two?", SIDES)
    assert [message["content"] for message in conversation.messages("candidate")] == ["Two?"]
    assert [message["content"] for message in conversation.messages("reference")] == ["One?", "1", "Two?"]


def test_after_its_end_an_answer_does_not_change() -> None:
    conversation = answered(Conversation(), "Hi", Delta("a"), Delta(done=True, finish="stopped"))
    assert conversation.heard("reference", Delta("late")) == conversation
    assert Conversation().asked("Hi", ["reference"]).heard("candidate", Delta("x")).answer("candidate") is None
    assert Conversation().answer("reference") is None


def test_only_a_failed_server_can_be_restarted_and_its_side_asked_again() -> None:
    conversation = answered(Conversation(), "Hi", ProcessError("died"))
    failed = conversation.answer("candidate")
    assert failed and failed.over and failed.can_restart and not Answer().after(InputError("long")).can_restart
    again = conversation.asked_again(["candidate"])
    assert again.answer("candidate") == Answer() and again.answer("reference") == failed
    assert [message["content"] for message in again.messages("candidate")] == ["Hi"]


pieces = st.builds(Delta, text=st.text(max_size=5), reasoning=st.text(max_size=5))


@given(st.lists(pieces, max_size=8))
def test_no_piece_is_lost_or_doubled(deltas: list[Delta]) -> None:
    answer = Answer()
    for delta in deltas:
        answer = answer.after(delta)
    assert answer.text == "".join(delta.text for delta in deltas)
    assert answer.reasoning == "".join(delta.reasoning for delta in deltas)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=4), st.lists(pieces, max_size=3)), max_size=5))
def test_roles_always_alternate(turns: list[tuple[str, list[Delta]]]) -> None:
    conversation = Conversation()
    for prompt, deltas in turns:
        conversation = answered(conversation, prompt, *deltas, DONE)
    roles = [message["role"] for message in conversation.asked("?", SIDES).messages("reference")]
    assert roles == [("user", "assistant")[index % 2] for index in range(len(roles))] and roles[-1] == "user"


def test_a_changed_question_takes_the_place_of_what_came_after_it() -> None:
    conversation = answered(answered(Conversation(), "One?", Delta("1"), DONE), "Two?", Delta("2"), DONE)
    edited = conversation.edited(1, "Three?", ["candidate"])
    assert [turn.prompt for turn in edited.turns] == ["One?", "Three?"]
    assert edited.answer("reference") is None and edited.answer("candidate") == Answer()
    assert edited.turns[0] == conversation.turns[0]


def test_without_a_column_nothing_of_it_is_left() -> None:
    conversation = answered(Conversation(), "One?", Delta("1"), DONE).asked("Two?", ["candidate"])
    left = conversation.without("candidate")
    assert [turn.prompt for turn in left.turns] == ["One?"] and list(left.turns[0].answers) == ["reference"]
    assert conversation.without("nobody") == conversation


def test_what_is_cut_off_is_over_and_keeps_what_came() -> None:
    conversation = Conversation().asked("Hi", SIDES).heard("reference", Delta("a")).heard("candidate", DONE)
    ended = conversation.cut_off()
    stopped = ended.answer("reference")
    assert stopped and stopped.text == "a" and stopped.finish == "stopped" and ended.cut_off() == ended
    assert ended.answer("candidate") == conversation.answer("candidate") and Conversation().cut_off() == Conversation()


def test_tokens_of_the_thought_are_counted_with_its_marks() -> None:
    heard = [Delta(reasoning="hm", timing=Timing(0.1, 3, 1.0, 9)), Delta("So", timing=Timing(0.1, 5, 1.0, 9)), DONE]
    answer = answered(Conversation(), "Hi", *heard).answer("reference")
    assert answer and answer.thought_tokens == 3
