"""Waiting in tests: for what happens, never for how long that should take."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from studio.jobs import runner
from studio.jobs.store import Job, JobStore

PATIENCE_S = 240.0
"""For anything at all, on a machine that may have much else to do; no promise about speed."""


def eventually(happened: Callable[[], object], seconds: float = PATIENCE_S, step_s: float = 0.02) -> bool:
    """Whether `happened` within `seconds`, looked at every `step_s`."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(step_s)
    return True


def is_gone(pid: int) -> bool:
    """Whether no process has the number `pid`, or only what nobody has waited for."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def job_once(store: JobStore, job_id: str, wanted: Callable[[Job], bool], seconds: float = PATIENCE_S) -> Job:
    """The job once it is as `wanted`, looked at the way the page does."""
    deadline = time.monotonic() + seconds
    while True:
        runner.refresh(store)
        if wanted(job := store.get(job_id)):
            return job
        if time.monotonic() > deadline:
            told = f"still {job.status}: {job.done}/{job.total} {job.error}"
            raise AssertionError(f"{told}\n{store.log_tail(job_id)}")
        time.sleep(0.05)
