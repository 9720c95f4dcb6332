"""Jobs from start to end, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.workspace import Workspace
from tests.patience import eventually

Until = Callable[..., Job]


def finished(job: Job) -> bool:
    return job.is_finished


def underway(job: Job) -> bool:
    return job.status == "running" and job.total > 0


def test_a_job_runs_to_its_end_and_tells_what_it_made(store: JobStore, until: Until) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "thing"}).id, finished)
    assert job.status == "done" and job.error == ""
    assert job.result == {"folder": "artifacts/thing"}
    assert job.done == job.total == 10 and job.unit == "steps"
    assert (store.workspace.root / "artifacts/thing/9.txt").read_text() == "something"
    assert "writing thing" in job.log_tail
    assert job.started is not None and job.finished is not None and job.created <= job.started <= job.finished


def test_progress_never_falls_and_the_time_left_is_estimated(store: JobStore, until: Until) -> None:
    job_id = runner.start(store, "pretend", {"name": "slow", "seconds": 3.0, "steps": 30}).id
    seen: list[Job] = []
    until(store, job_id, lambda job: bool(seen.append(job)) or job.is_finished)
    running = [job for job in seen if job.status == "running" and job.total]
    assert [job.done for job in running] == sorted(job.done for job in running)
    assert len({job.done for job in running}) > 5
    halfway = [job for job in running if 0.4 < job.fraction < 0.6]
    assert halfway
    for job in halfway:
        assert job.eta_s == pytest.approx(1.5, abs=1.0)


def test_a_cancelled_job_is_gone_within_two_seconds_and_leaves_nothing(
    store: JobStore, until: Until, partials: Callable[[], list[Path]], gone: Callable[[int], bool]
) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "long", "seconds": 60.0}).id, underway)
    assert partials()
    begin = time.monotonic()
    cancelled = runner.cancel(store, job.id)
    assert time.monotonic() - begin < 2.0
    assert cancelled.status == "cancelled" and cancelled.can_retry
    assert eventually(lambda: gone(job.pid), 5) and not partials()
    assert not (store.workspace.artifacts / "long").exists()


@pytest.mark.parametrize("mood", ["stubborn", "swallows", "children"])
def test_a_job_that_does_not_listen_is_gone_within_two_seconds_too(
    mood: str, store: JobStore, until: Until, partials: Callable[[], list[Path]], gone: Callable[[int], bool]
) -> None:
    job = until(
        store, runner.start(store, "pretend", {"name": "long", "seconds": 60.0, "steps": 60, "mood": mood}).id, underway
    )
    begin = time.monotonic()
    assert runner.cancel(store, job.id).status == "cancelled"
    assert time.monotonic() - begin < 2.0
    assert eventually(lambda: gone(job.pid), 5) and not partials()
    assert not (store.workspace.artifacts / "long").exists()
    if mood == "children":
        children = (store.workspace.artifacts / "children.txt").read_text().split()
        assert eventually(lambda: all(gone(int(pid)) for pid in children), 5)


def test_a_killed_job_is_shown_as_failed_with_its_last_lines_and_can_be_tried_again(
    store: JobStore, until: Until, partials: Callable[[], list[Path]]
) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "unlucky", "mood": "killed once"}).id, finished)
    assert job.status == "failed" and "died" in job.error
    assert "about to die" in job.log_tail
    assert not partials() and not (store.workspace.artifacts / "unlucky").exists()
    assert job.can_retry
    again = until(store, runner.retry(store, job.id).id, finished)
    assert again.status == "done" and again.retry_of == job.id and again.parameters == job.parameters
    with pytest.raises(InputError, match="is done"):
        runner.retry(store, again.id)


def test_the_children_of_a_killed_job_die_too(store: JobStore, until: Until, gone: Callable[[int], bool]) -> None:
    parameters = {"name": "parent", "seconds": 60.0, "mood": "children"}
    job = until(store, runner.start(store, "pretend", parameters).id, underway)
    child, loner = map(int, (store.workspace.artifacts / "children.txt").read_text().split())
    os.kill(job.pid, signal.SIGKILL)
    assert until(store, job.id, finished).status == "failed"
    assert eventually(lambda: gone(child), 30)  # it would have stayed for ten minutes
    os.kill(loner, signal.SIGKILL)  # it left the group on purpose, and its parent is no longer there to name it


def test_a_mistake_is_told_in_its_own_words(store: JobStore, until: Until) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "x", "mood": "mistaken"}).id, finished)
    assert job.status == "failed"
    assert job.error == "The expert 7 of layer 3 is missing. Analyze again."
    assert "Traceback" not in job.log_tail


def test_the_log_of_a_failed_child_is_kept(store: JobStore, until: Until) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "x", "mood": "child fails"}).id, finished)
    assert job.error == "The converter failed." and "line two" in job.log_tail


def test_an_unexpected_exception_leaves_its_traceback_in_the_log(store: JobStore, until: Until) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "x", "mood": "broken"}).id, finished)
    assert job.error == "Unexpected ZeroDivisionError: nobody expected this"
    assert "Traceback" in job.log_tail


def test_what_can_be_known_is_refused_before_anything_is_recorded(store: JobStore) -> None:
    with pytest.raises(InputError, match="cannot be made"):
        runner.start(store, "pretend", {"name": "impossible"})
    with pytest.raises(InputError, match="no kind of job called 'magic'"):
        runner.start(store, "magic", {})
    with pytest.raises(InputError, match="steps"):
        runner.start(store, "pretend", {"name": "x", "steps": "many"})
    with pytest.raises(InputError, match="speed"):
        runner.start(store, "pretend", {"name": "x", "speed": 3})
    assert store.list() == []


def test_one_job_runs_at_a_time_and_the_rest_follow_in_order_with_nobody_watching(
    store: JobStore, workspace: Workspace
) -> None:
    jobs = [runner.start(store, "pretend", {"name": name, "seconds": 0.5}) for name in ("a", "b", "c")]
    assert [job.status for job in jobs] == ["running", "queued", "queued"]
    order = workspace.artifacts / "order.txt"
    seen = set()

    def through() -> bool:
        seen.add(sum(job.status == "running" for job in store.list()))
        return order.exists() and len(order.read_text().split()) == 3

    assert eventually(through), [(job.title, job.status) for job in store.list()]
    assert seen <= {0, 1}
    assert order.read_text().split() == ["a", "b", "c"]


def test_a_queued_job_is_cancelled_without_ever_running(store: JobStore, until: Until) -> None:
    first = runner.start(store, "pretend", {"name": "first", "seconds": 60.0})
    second = runner.start(store, "pretend", {"name": "second"})
    assert runner.cancel(store, second.id).status == "cancelled"
    third = runner.start(store, "pretend", {"name": "third"})
    runner.cancel(store, first.id)
    assert until(store, third.id, finished).status == "done"
    assert store.get(second.id).started is None


def test_more_slots_run_more_jobs_at_once(store: JobStore) -> None:
    store.slots = 2
    jobs = [runner.start(store, "pretend", {"name": name, "seconds": 60.0}) for name in ("a", "b", "c")]
    assert [job.status for job in jobs] == ["running", "running", "queued"]


def test_cancelling_a_finished_job_changes_nothing(store: JobStore, until: Until) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "quick"}).id, finished)
    assert runner.cancel(store, job.id) == job


def test_the_app_goes_and_the_job_goes_on(store: JobStore, until: Until) -> None:
    """An app in another process starts a job and is killed; a new one finds the job running, and then done."""
    script = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1])\n"
        "import jobs_worker; from studio.jobs import runner; from studio.jobs.store import JobStore\n"
        "from studio.workspace import Workspace\n"
        "runner.WORKER = jobs_worker.WORKER\n"
        "job = runner.start(JobStore(Workspace.open()), 'pretend', {'name': 'survivor', 'seconds': 4.0})\n"
        "print(job.id, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    app = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    job_id = app.stdout.strip()
    assert job_id, app.stderr
    reopened = JobStore(store.workspace)
    assert until(reopened, job_id, underway).status == "running"
    assert until(reopened, job_id, finished).status == "done"


def test_two_apps_on_one_workspace_run_every_job_once(store: JobStore, workspace: Workspace) -> None:
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import jobs_worker; from studio.jobs import runner; from studio.jobs.store import JobStore\n"
        "from studio.workspace import Workspace\n"
        "runner.WORKER = jobs_worker.WORKER\n"
        "store = JobStore(Workspace.open())\n"
        "names = [f'{sys.argv[2]}{number}' for number in range(3)]\n"
        "for name in names: runner.start(store, 'pretend', {'name': name, 'steps': 1})\n"
        "while not all(job.is_finished for job in runner.refresh(store)): time.sleep(0.01)\n"
    )
    here = str(Path(__file__).parent)
    apps = [subprocess.Popen([sys.executable, "-c", script, here, name]) for name in ("left", "right")]
    assert [app.wait(timeout=120) for app in apps] == [0, 0]
    assert sorted((workspace.artifacts / "order.txt").read_text().split()) == sorted(
        f"{side}{number}" for side in ("left", "right") for number in range(3)
    )
    assert {job.status for job in store.list()} == {"done"}
