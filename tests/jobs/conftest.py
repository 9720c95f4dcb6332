"""A store whose jobs are run by the worker in `jobs_worker.py`, and the patience to watch them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.jobs import processes, runner
from studio.jobs.store import Job, JobStore
from studio.jobs.tasks import TASKS
from studio.workspace import Workspace
from tests.patience import is_gone, job_once


@pytest.fixture
def workspace(own_workspace: Path) -> Workspace:
    return Workspace.open(own_workspace)


@pytest.fixture
def store(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStore]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(processes.PROJECT))  # a script sees its own folder, not the project
    pretend = importlib.import_module("jobs_worker")
    monkeypatch.setitem(TASKS, "pretend", pretend.Pretend)
    monkeypatch.setattr(runner, "WORKER", pretend.WORKER)
    store = JobStore(workspace)
    yield store
    for job in store.list():
        if job.status == "running" and job.process is not None:
            job.process.end(0.1)
    store.close()


@pytest.fixture
def partials(workspace: Workspace) -> Callable[[], list[Path]]:
    """Everything half written in the workspace."""
    return lambda: list(workspace.root.rglob(".*.partial-*"))


@pytest.fixture
def until() -> Callable[..., Job]:
    return job_once


@pytest.fixture
def gone() -> Callable[[int], bool]:
    return is_gone
