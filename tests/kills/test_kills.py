"""A handful of `make kills`: nobody can tell from what a job made whether it was killed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.jobs import runner
from tests.kills.run import run


@pytest.mark.parametrize(("only", "kills"), [("prune GGUF", 2), ("sweep", 2), ("upload", 1)])
def test_killed_jobs_leave_nothing_half_and_end_in_the_bytes_of_an_undisturbed_one(
    only: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WORKER", runner.WORKER)  # it is put back
    told = run(tmp_path.resolve(), kills, seed=4, small=True, only=only)
    assert (told["faults"], told["kills"]) == ([], kills)
    assert told["works"][only]["identical"] >= 1
