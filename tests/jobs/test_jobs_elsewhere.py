"""Jobs whose process runs in another container on the same volume, where its number means nothing here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.jobs import runner
from studio.jobs.processes import LOCK_VARIABLE, birth_of
from studio.jobs.store import Job, JobStore
from studio.locks import is_held, locked
from tests.patience import PATIENCE_S, eventually

Until = Callable[..., Job]
ELSEWHERE = "0123abcd"

NAMESPACE = ("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc")
"""What makes a container a world of its own, as far as process numbers go."""

FOLLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import jobs_worker
from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.workspace import Workspace
runner.WORKER = jobs_worker.WORKER
store = JobStore(Workspace.open(sys.argv[1]), slots=2)
job = runner.start(store, "pretend", {"name": "theirs", "seconds": 3.0})
print(job.id, flush=True)
while not store.get(job.id).is_finished:
    runner.refresh(store)
    time.sleep(0.05)
print(*{f"{one.title}: {one.status}" for one in store.list()}, sep="\\n")
"""

HOLD = """
import sys, time
from pathlib import Path
from studio.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def underway(job: Job) -> bool:
    return job.status == "running" and job.done > 0


def moved(store: JobStore, job: Job, pid: int = 2**22 - 1, birth: float = 1.0) -> Job:
    """`job` as another container has written it down, which gave its process the number `pid`."""
    return store.update(job.id, pid=pid, process_birth=birth, place=ELSEWHERE)


@pytest.fixture
def theirs(store: JobStore) -> Iterator[tuple[Job, subprocess.Popen[str]]]:
    """A job that runs elsewhere, and the process that holds its lock."""
    job = store.add("pretend", "A thing", {"name": "thing"})
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.lock_path(job.id))], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    yield moved(store, store.update(job.id, status="running", started=time.time())), holder
    holder.kill()
    holder.wait()


def test_a_job_lives_as_long_as_its_lock_is_held_whoever_has_its_number_here(
    store: JobStore, theirs: tuple[Job, subprocess.Popen[str]]
) -> None:
    job, holder = theirs
    nobody, somebody = 2**22 - 1, os.getppid()
    for pid in (nobody, somebody):
        moved(store, job, pid, birth_of(somebody))
        assert [one.status for one in runner.refresh(store)] == ["running"]
    left = store.workspace.artifacts / f".thing.partial-0abcde.0-{ELSEWHERE}.{somebody}"
    own = left.with_name(f".other.partial-0abcde.0-{somebody}")
    for partial in (left, own):
        partial.write_text("half")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert [one.status for one in runner.refresh(store)] == ["failed"]
    assert not left.exists(), "what the dead process left is cleared up"
    assert own.exists(), "the process here with the same number is another one"
    os.kill(somebody, 0)


@pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine lets nobody make namespaces",
)
def test_two_containers_on_one_volume_leave_each_others_jobs_alone(
    store: JobStore, until: Until, partials: Callable[[], list[Path]]
) -> None:
    store.slots = 2
    ours = runner.start(store, "pretend", {"name": "ours", "seconds": 60.0, "steps": 600})
    until(store, ours.id, underway)
    follow = [sys.executable, "-c", FOLLOW, str(store.workspace.root), str(Path(__file__).parent)]
    container = subprocess.Popen([*NAMESPACE, *follow], stdout=subprocess.PIPE, text=True)
    try:
        assert container.stdout is not None
        theirs = container.stdout.readline().strip()
        assert until(store, theirs, underway).place != store.get(ours.id).place
        assert len(partials()) == 2
        assert until(store, theirs, lambda job: job.is_finished).status == "done"
        said, _ = container.communicate(timeout=PATIENCE_S)
        assert sorted(said.split("\n")[:2]) == ["Pretend to make ours: running", "Pretend to make theirs: done"]
        assert store.get(ours.id).status == "running"
        assert runner.cancel(store, ours.id).status == "cancelled"
    finally:
        container.kill()
        container.wait()


def test_a_job_with_a_lock_that_nobody_holds_is_dead_though_its_number_lives(store: JobStore) -> None:
    """A container that starts again gives the numbers out again, and perhaps at the same time after its start."""
    job = store.add("pretend", "A thing", {})
    command = [sys.executable, "-c", "import time; time.sleep(600)", job.id]
    bystander = subprocess.Popen(command, start_new_session=True)
    try:
        store.update(job.id, status="running", pid=bystander.pid, process_birth=birth_of(bystander.pid))
        assert [one.status for one in runner.refresh(store)] == ["running"], "of a version without locks"
        store.lock_path(job.id).touch()
        assert [one.status for one in runner.refresh(store)] == ["failed"]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_lock_is_held_by_the_worker_alone_and_ends_with_it(store: JobStore, until: Until) -> None:
    job = until(
        store,
        runner.start(store, "pretend", {"name": "long", "seconds": 60.0, "mood": "children"}).id,
        underway,
    )
    assert is_held(store.lock_path(job.id))
    assert job.pid is not None
    children = [int(pid) for pid in (store.workspace.artifacts / "children.txt").read_text().split()]
    os.kill(job.pid, signal.SIGKILL)
    assert eventually(lambda: not is_held(store.lock_path(job.id)), 30)  # while its children still run, for ten minutes
    assert until(store, job.id, lambda job: job.is_finished).status == "failed"
    os.kill(children[1], signal.SIGKILL)


def test_a_job_that_is_cancelled_from_another_container_ends_by_itself(
    store: JobStore, until: Until, partials: Callable[[], list[Path]], gone: Callable[[int], bool]
) -> None:
    job = until(store, runner.start(store, "pretend", {"name": "long", "seconds": 60.0, "steps": 60}).id, underway)
    assert job.pid is not None and partials()
    moved(store, job, job.pid, job.process_birth or 0.0)  # its own number and birth: no signal may be sent by them
    assert runner.cancel(store, job.id).status == "cancelled"
    pid = job.pid
    assert eventually(lambda: gone(pid) and not partials(), 30)  # before it would have been done
    assert store.get(job.id).status == "cancelled" and not (store.workspace.artifacts / "long").exists()


def test_a_job_waits_until_its_process_before_has_let_go(store: JobStore, until: Until) -> None:
    store.closing = True
    job = runner.start(store, "pretend", {"name": "again"})
    store.closing = False
    with locked(store.lock_path(job.id)):
        assert runner.refresh(store)[0].status == "queued"
    assert until(store, job.id, lambda job: job.is_finished).status == "done"


def test_a_file_system_without_locks_leaves_jobs_to_their_numbers(
    store: JobStore, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("studio.locks.lock", refuse)
    job = until(store, runner.start(store, "pretend", {"name": "one", "seconds": 1.0}).id, underway)
    assert not store.lock_path(job.id).exists() and LOCK_VARIABLE not in os.environ
    assert until(store, job.id, lambda job: job.is_finished).status == "done"
