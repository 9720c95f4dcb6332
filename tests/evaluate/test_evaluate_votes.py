"""Votes are kept as they were cast, and counted the same whoever stood on which side."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.cli.app import main
from studio.evaluate.statistics import wilson
from studio.evaluate.votes import CHOICES, Choice, Contestant, Vote, VoteStore, in_words, tallies
from studio.workspace import Workspace

MODELS = [Contestant(name=name, file=f"{name}.gguf", bytes=7, sha256=name * 8) for name in ("pear", "apple", "plum")]
PEAR, APPLE, PLUM = MODELS
START = datetime(2026, 1, 1, tzinfo=UTC)
MIRRORED: dict[Choice, Choice] = {"better": "worse", "worse": "better", "same": "same", "both bad": "both bad"}


def vote(choice: Choice, left: Contestant = PEAR, right: Contestant = APPLE, prompt: str = "Hi", at: int = 0) -> Vote:
    configuration = {"sampler": {"temperature": 0.0}, "thinking": False}
    time = START + timedelta(seconds=at)
    return Vote(time=time, prompt=prompt, left=left, right=right, choice=choice, configuration=configuration)


def mirrored(cast: Vote) -> Vote:
    """The same judgement with the sides changed."""
    return cast.model_copy(update={"left": cast.right, "right": cast.left, "choice": MIRRORED[cast.choice]})


pairs = st.permutations(MODELS).map(lambda models: models[:2])
ballots = st.lists(
    st.builds(
        lambda pair, choice, prompt, at: vote(choice, *pair, prompt, at),
        pairs,
        st.sampled_from(CHOICES),
        st.text(max_size=20),
        st.integers(0, 1000),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(ballots, st.data())
def test_sides_and_order_of_the_votes_do_not_matter(votes: list[Vote], data: Any) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(votes), max_size=len(votes)))
    turned = [mirrored(one) if flip else one for one, flip in zip(votes, flips, strict=True)]
    assert tallies(data.draw(st.permutations(turned))) == tallies(votes)


@settings(max_examples=40, deadline=None)
@given(ballots)
def test_every_vote_is_counted_once_and_ties_are_kept_apart(votes: list[Vote]) -> None:
    counted = tallies(votes)
    assert sum(one.votes for one in counted) == len(votes)
    assert sum(one.same for one in counted) == sum(one.choice == "same" for one in votes)
    assert sum(one.both_bad for one in counted) == sum(one.choice == "both bad" for one in votes)
    assert [one.votes for one in counted] == sorted((one.votes for one in counted), reverse=True)
    for one in counted:
        assert one.first.name < one.second.name and one.interval == wilson(one.first_better, one.decided)
        assert one.share is None or one.interval.low <= one.share <= one.interval.high
        assert in_words(one).endswith(".")


@settings(max_examples=40, deadline=None)
@given(ballots)
def test_what_was_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, votes: list[Vote]) -> None:
    store = VoteStore(tmp_path_factory.mktemp("votes"))
    for one in votes[:5]:
        store.add("ann", one)
    assert store.read("ann") == (votes[:5], []) and store.read("bob") == ([], [])


def test_a_tally_is_told_in_a_sentence() -> None:
    votes = [vote("better")] * 9 + [vote("worse")] * 1 + [vote("same")] * 3 + [vote("both bad")] * 2
    assert in_words(tallies(votes)[0]) == (
        "apple was better than pear in 1 of 10 votes that preferred one (10 %, 95 % interval 2 % to 40 %); "
        "3 the same, 2 both bad: pear is preferred."
    )
    assert "no evidence that either is preferred" in in_words(tallies(votes[8:10])[0])
    assert "no vote preferred one of them; 3 the same" in in_words(tallies(votes[10:13])[0])


def test_names_that_are_alike_are_told_apart() -> None:
    other = PEAR.model_copy(update={"sha256": "z" * 64})
    (by_weights,) = tallies([vote("better", PEAR, other)])
    assert "pear (pearpear) was better than pear (zzzzzzzz)" in in_words(by_weights)
    prompted = PEAR.model_copy(update={"system": "Be brief."})
    (by_prompt,) = tallies([vote("better", prompted, PEAR), vote("worse", PEAR, prompted)])
    assert "in 0 of 2" in in_words(by_prompt) and "pear (prompt “Be brief.”) is" not in in_words(by_prompt)
    (renamed,) = tallies([vote("better"), vote("same", PEAR.model_copy(update={"name": "quince"}), at=1)])
    assert renamed.second.name == "quince" and renamed.votes == 2


def test_a_torn_line_costs_itself_only_and_people_vote_at_the_same_time(tmp_path: Path) -> None:
    store = VoteStore(tmp_path)
    store.add("ann", vote("same"))
    with store.path("ann").open("ab") as file:
        file.write(b'{"version": 1, "time"')
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda number: store.add("ann", vote("better", prompt=str(number))), range(40)))
    votes, (damaged,) = store.read("ann")
    assert len(votes) == 41 and "line 2 is no vote" in str(damaged)
    assert {one.prompt for one in votes} == {"Hi", *map(str, range(40))}
    store.add("bob", vote("worse"))
    assert len(store.read()[0]) == 42 and len(list(tmp_path.iterdir())) == 2


def test_the_verb_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ESPALIER_HOME", str(tmp_path))
    assert main(["votes"]) == 0 and "Nobody has voted yet" in capsys.readouterr().out
    store = VoteStore(Workspace.open().votes)
    store.add("ann", vote("better"))
    store.add("bob", vote("same", PLUM, PEAR))
    assert main(["votes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["says"].split()[0] for one in told["tallies"]] == ["apple", "pear"] and len(told["votes"]) == 2
    assert main(["votes", "--user", "ann"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
