"""The load test itself: short, and without browsers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path

from tests.load.plan import actions
from tests.load.run import flags, measured


def test_a_seed_says_what_each_person_does() -> None:
    first, again, other = (list(islice(actions(7, person), 50)) for person in (1, 1, 2))
    assert first == again != other
    drops = [action.value for action in first if action.kind == "drop"]
    assert all(left != right for left, right in pairwise(drops)), "every move changes the map"


def test_two_people_wait_for_their_previews_and_nothing_is_lost(tmp_path: Path) -> None:
    asked = flags(
        ["--clients", "http", "--browsers", "2", "--seconds", "4", "--actions", "6", "--apart", "0", "--builds", "0"]
    )
    with ThreadPoolExecutor(1) as thread:  # one without a loop: the browser of other tests has left its own in this one
        result = thread.submit(measured, asked, tmp_path).result()
    assert result["complaints"] == []
    assert result["times"]["preview"]["count"] > 0
    assert result["page"]["end_mib"] > 50
