"""The store by itself: text only, shared between processes, and never fooled by a process number."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from studio.access import VISITOR
from studio.errors import FormatError, InputError, RefusedError
from studio.jobs import runner
from studio.jobs.processes import WorkerProcess, birth_of
from studio.jobs.store import JobStore
from studio.workspace import Workspace


def rows(store: JobStore) -> sqlite3.Connection:
    return sqlite3.connect(store.workspace.jobs / "store" / "cache.db")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch exploded",)


def test_a_new_store_on_the_same_workspace_sees_the_same_jobs(store: JobStore) -> None:
    job = store.add("pretend", "A thing", {"name": "thing", "list": [1, None, {"deep": "value"}]})
    assert JobStore(store.workspace).get(job.id) == job
    assert JobStore(store.workspace).list() == [job]


def test_the_newest_job_comes_first(store: JobStore) -> None:
    made = [store.add("pretend", str(number), {}).id for number in range(3)]
    assert [job.id for job in store.list()] == made[::-1]


def test_records_are_plain_json_text(store: JobStore) -> None:
    job = store.add("pretend", "A thing", {"name": "x" * 100_000})
    with rows(store) as database:
        key, raw, mode = database.execute("SELECT key, raw, mode FROM Cache").fetchone()
    assert (key, raw) == (job.id, 1) and mode != 4  # diskcache's MODE_PICKLE
    assert JobStore(store.workspace).get(job.id) == job


@pytest.mark.parametrize("where", ["value", "key"])
def test_a_planted_pickle_is_never_loaded(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = JobStore(Workspace.open(tmp_path))
    job = store.add("pretend", "A thing", {})
    bomb = pickle.dumps(Bomb())
    with rows(store) as database:
        if where == "value":
            database.execute("UPDATE Cache SET mode = 4, value = ?", (bomb,))
        else:
            database.execute("UPDATE Cache SET raw = 0, key = ?", (bomb,))
    reopened = JobStore(store.workspace)
    if where == "value":
        assert reopened.list() == []
        with pytest.raises(FormatError, match="not text"):
            reopened.get(job.id)
    else:
        with pytest.raises(FormatError, match="not text"):
            reopened.list()
    assert not (tmp_path / "exploded").exists()


def test_only_text_goes_in(store: JobStore) -> None:
    with pytest.raises(TypeError, match="text"):
        store._cache.set("key", {"a": "dict"})
    with pytest.raises(TypeError, match="text"):
        store._cache.set(("a", "tuple"), "value")


def test_a_damaged_record_does_not_hide_the_others(store: JobStore) -> None:
    good, bad = (store.add("pretend", name, {}) for name in ("good", "bad"))
    store._cache.set(bad.id, '{"id": "half a rec')
    assert store.list() == [good]
    with pytest.raises(FormatError, match=bad.id):
        store.get(bad.id)


def test_a_damaged_database_is_named(workspace: Workspace) -> None:
    (workspace.jobs / "store").mkdir()
    (workspace.jobs / "store" / "cache.db").write_bytes(b"this is not a database" * 400)
    with pytest.raises(FormatError, match="job store is damaged"):
        JobStore(workspace)


def test_an_unknown_job_is_named(store: JobStore) -> None:
    with pytest.raises(InputError, match="no job 'nonsense'"):
        store.get("nonsense")


def test_the_first_end_of_a_job_stands(store: JobStore) -> None:
    job = store.add("pretend", "A thing", {})
    store.update(job.id, status="running")
    assert store.finish(job.id, "cancelled").status == "cancelled"
    assert store.finish(job.id, "done", result={"too": "late"}).status == "cancelled"
    assert store.get(job.id).result is None


def test_updates_from_many_threads_are_all_kept(store: JobStore) -> None:
    job = store.add("pretend", "A thing", {})

    def count() -> None:
        for _ in range(20):
            with store.transaction():
                store.update(job.id, done=store.get(job.id).done + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(job.id).done == 80


def test_the_log_tail_is_the_last_lines_whatever_the_log_holds(store: JobStore) -> None:
    job = store.add("pretend", "A thing", {})
    assert store.log_tail(job.id) == ""
    lines = [f"line {number}" for number in range(10_000)]
    store.log_path(job.id).write_bytes(b"\xff\xfe\n" + "\n".join(lines).encode() + b"\n 10%\r 20%\r\n")
    assert store.log_tail(job.id, lines=4).splitlines() == ["line 9998", "line 9999", " 10%", " 20%"]


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.5"])
def test_a_senseless_number_of_slots_is_refused(
    text: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPALIER_JOB_SLOTS", text)
    with pytest.raises(InputError, match="ESPALIER_JOB_SLOTS"):
        JobStore(workspace)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's job; it has "60" on its command line."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_recognised_by_number_birth_and_mark_together(bystander: subprocess.Popen[bytes]) -> None:
    birth = birth_of(bystander.pid)
    assert WorkerProcess(bystander.pid, birth, "60").is_alive()
    assert not WorkerProcess(bystander.pid, birth - 1000, "60").is_alive()
    assert not WorkerProcess(bystander.pid, birth, "another-id").is_alive()


@pytest.mark.parametrize("age", [0.0, 1000.0])
def test_another_process_with_the_number_of_a_job_is_left_alone(
    age: float, store: JobStore, bystander: subprocess.Popen[bytes]
) -> None:
    job = store.add("pretend", "A thing", {})
    birth = birth_of(bystander.pid) - age
    store.update(job.id, status="running", pid=bystander.pid, process_birth=birth)
    assert [job.status for job in runner.refresh(store)] == ["failed"]
    store.update(job.id, status="running")
    assert runner.cancel(store, job.id).status == "cancelled"
    assert bystander.poll() is None, "the bystander was killed"


@pytest.mark.parametrize("pid", [1, 0, -1])
def test_a_record_cannot_name_the_first_process_or_a_whole_group(pid: int, store: JobStore) -> None:
    job = store.add("pretend", "A thing", {})
    with pytest.raises(ValidationError):
        store.update(job.id, status="running", pid=pid)


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["sleep", "0.3"])
    process = WorkerProcess(child.pid, birth_of(child.pid), "0.3")
    assert process.is_alive()
    assert process.wait(20.0)  # nobody has waited for the child yet
    child.wait()
    assert not process.is_alive()


def test_sweeping_takes_only_what_the_dead_process_left(
    workspace: Workspace, bystander: subprocess.Popen[bytes]
) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    left = workspace.artifacts / f".model.partial-{child.pid}"
    (left / "deep").mkdir(parents=True)
    living = workspace.artifacts / f".mine.partial-{bystander.pid}"
    others = [workspace.cache / ".file.partial-999999999", living]
    for other in others:
        other.write_text("somebody writes this")
    workplace = workspace.cache / f".model.gguf.partial-work-{child.pid}"
    workplace.mkdir()
    WorkerProcess(child.pid, 0.0, "id").sweep(workspace.root, resumables=False)
    WorkerProcess(bystander.pid, 0.0, "id").sweep(workspace.root, resumables=False)
    assert not left.exists() and not workplace.exists()
    assert all(other.exists() for other in others)


def test_a_worker_started_for_a_job_that_is_not_its_own_does_nothing(store: JobStore, workspace: Workspace) -> None:
    job = store.add("pretend", "A thing", {"name": "thing"})
    command = [*runner.WORKER, str(workspace.root), job.id]
    for _ in range(2):
        outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert outcome.returncode == 1 and "another process" in outcome.stderr
        store.update(job.id, status="running", pid=999_999_999, process_birth=0.0)
    assert not list(workspace.artifacts.iterdir())


def test_people_share_the_slots_and_see_their_own_jobs_only(tmp_path: Path) -> None:
    house = Workspace.open(tmp_path / "studio")
    local, ann, bob = (JobStore(part) for part in (house, house.of("ann"), house.of("bob")))
    job = ann.add("build", "hers", {})
    assert [one.id for one in ann.list()] == [job.id] and bob.list() == local.list() == []
    for store in (bob, local):
        assert [one.id for one in store.everyones()] == [job.id]
        for act in (store.get, store.update, lambda id, store=store: store.finish(id, "done", when=("queued",))):
            with pytest.raises(InputError, match="no job"):
                act(job.id)
    own = bob.of_job(job)
    assert own is not None and own.get(job.id) == job and own.log_path(job.id) == ann.log_path(job.id)
    shutil.rmtree(ann.workspace.root)
    assert bob.of_job(job) is None


def test_a_visitor_has_bounds(tmp_path: Path) -> None:
    store = JobStore(Workspace.open(tmp_path / "studio").of("visitor", VISITOR))
    assert store.add("build", "one", {}).limit_s == VISITOR.job_s
    store.add("build", "two", {})
    with pytest.raises(RefusedError, match="2 unfinished jobs at most"):
        runner.start(store, "build", {"reference": "demo"})
    with pytest.raises(RefusedError, match="MiB at most"):
        VISITOR.require_job("build", {}, [], 1 << 30)
