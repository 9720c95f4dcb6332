"""The job that searches: it can be cancelled, goes on when it is started again, and its name is taken once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.errors import InputError, MismatchError, OutputExistsError
from studio.evaluate.search_points import JOURNAL, read_journal
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.jobs.tasks import check
from studio.recipes.recipe import Recipe
from studio.workspace import Workspace

CONTRIBUTIONS = Path(__file__).parents[2] / "assets" / "demo-contributions.safetensors"
ASKED: dict[str, Any] = {
    "reference": "demo",
    "contributions": str(CONTRIBUTIONS),
    "name": "mine",
    "drops": [16],
    "per_class": 4,
    "budget": 600,
}


def test_a_cancelled_search_goes_on_when_it_is_started_again(
    store: JobStore, workspace: Workspace, until: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = workspace.searches / "mine"
    job = runner.start(store, "search", ASKED)
    until(store, job.id, lambda job: (folder / JOURNAL).exists() and len(read_journal(folder).points) >= 3)
    assert runner.cancel(store, job.id).status == "cancelled"
    kept = read_journal(folder).points
    spent = sum(point.seconds for point in kept)
    again = store.add("search", "again", {**ASKED, "budget": spent + 3}, retry_of=job.id)
    runner.start_waiting(store)
    done = until(store, again.id, lambda job: job.is_finished)
    assert done.status == "done", done.error
    points = read_journal(folder).points
    assert points[: len(kept)] == kept and len(points) > len(kept)
    assert done.result is not None and done.result["recipes"] == len(points)
    assert Recipe.from_json((workspace.root / str(done.result["best"]["16"])).read_bytes()).drop == 16
    with pytest.raises(OutputExistsError):
        check("search", ASKED, workspace)
    check("search", {**ASKED, "budget": spent + 4, "extend": True}, workspace)


def test_what_cannot_be_searched_is_refused_before_the_job(workspace: Workspace) -> None:
    for wrong, words in (
        ({"drops": []}, "drops"),
        ({"drops": [30]}, "at most 28"),
        ({"drops": [8, 8]}, "twice"),
        ({"name": "../x"}, "cannot be a name"),
        ({"contributions": "/etc/passwd"}, "workspace"),
        ({"prompts": ["/etc/passwd"]}, "workspace"),
        ({"per_class": 1}, "per_class"),
    ):
        with pytest.raises(InputError, match=words):
            check("search", {**ASKED, **wrong}, workspace)


def test_the_name_of_another_search_is_refused(workspace: Workspace) -> None:
    from studio.evaluate.search_points import Journal

    Journal(workspace.searches / "mine", {"seed": 1})
    with pytest.raises(MismatchError, match="holds another search"):
        check("search", ASKED, workspace)
