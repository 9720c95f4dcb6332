"""Jobs of an app that is told to end: they pause, and go on later."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.jobs import runner
from studio.jobs.store import PAUSED, Job, JobStore
from tests.patience import PATIENCE_S

Until = Callable[..., Job]


def underway(job: Job) -> bool:
    return job.status == "running" and job.done > 0


@pytest.mark.parametrize("mood", ["good", "stubborn", "swallows"])
def test_a_paused_job_waits_and_goes_on_in_the_next_app(
    store: JobStore, until: Until, partials: Callable[[], list[Path]], mood: str
) -> None:
    store.owner = f"app of the {mood} job"
    job = runner.start(store, "pretend", {"name": "one", "seconds": 3.0, "mood": mood})
    process = until(store, job.id, underway).process
    assert process is not None
    (paused,) = runner.pause_own(store, 0.5)
    assert (paused.status, paused.message, paused.pid) == ("queued", PAUSED, None)
    assert process.wait(PATIENCE_S) and not partials() and not (store.workspace.artifacts / "one").exists()
    assert runner.refresh(store)[0].status == "queued"  # not in the app that ends
    following = JobStore(store.workspace)
    assert until(following, job.id, lambda job: job.is_finished).status == "done"


def test_the_jobs_of_another_app_go_on(store: JobStore, until: Until) -> None:
    store.owner, store.slots = "app 1", 2
    other = JobStore(store.workspace, slots=2)
    other.owner = "other app"
    ours = runner.start(store, "pretend", {"name": "ours", "seconds": 30.0})
    theirs = runner.start(other, "pretend", {"name": "theirs", "seconds": 3.0})
    until(store, theirs.id, underway)
    assert [job.id for job in runner.pause_own(store, 0.5)] == [ours.id]
    running = store.get(theirs.id)
    assert running.status == "running" and running.process is not None and running.process.is_alive()
    assert until(store, theirs.id, lambda job: job.is_finished).status == "done"


def test_a_job_that_ends_meanwhile_is_followed_by_none(store: JobStore, until: Until) -> None:
    store.owner = "app 2"
    first = runner.start(store, "pretend", {"name": "first", "seconds": 0.3})
    second = runner.start(store, "pretend", {"name": "second", "seconds": 30.0})
    until(store, first.id, underway)
    time.sleep(0.2)
    runner.pause_own(store, 2.0)
    assert store.get(second.id).status == "queued"
    assert not any(job.status == "running" for job in store.list())


def test_a_machine_that_stops_pauses_jobs_and_a_person_cancels_them(
    store: JobStore, until: Until, gone: Callable[[int], bool]
) -> None:
    """A service manager sends SIGTERM to every process, not only to the app."""
    job = until(store, runner.start(store, "pretend", {"name": "one", "seconds": 30.0}).id, underway)
    store.closing = True
    assert job.pid is not None
    os.kill(job.pid, signal.SIGTERM)
    assert until(store, job.id, lambda job: job.status != "running").status == "queued"
    store.closing = False
    again = until(store, job.id, underway)
    assert runner.cancel(store, again.id).status == "cancelled"
