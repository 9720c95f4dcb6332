"""A job in the foreground: started, watched to its end, and stopped with whoever waits for it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pydantic import JsonValue

from studio.errors import Cancelled, EspalierError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.progress import Progress

LOOK_S = 0.2
"""How often the record is looked at; its process writes it five times a second."""


def run_job(store: JobStore, kind: str, parameters: Mapping[str, JsonValue], progress: Progress) -> Job:
    """Start a job and wait for its end: the finished job. Where the same one waits or runs already, wait for that.

    Ctrl-C cancels the job; SIGTERM pauses it, and it goes on where it was. The death of this process changes nothing.
    Raises as `runner.start`, `Cancelled` where it was cancelled, and `EspalierError` where it failed, with its reason.
    """
    job = _under_way(store, kind, parameters) or runner.start(store, kind, parameters)
    try:
        job = _wait(store, job.id, progress)
    except KeyboardInterrupt:
        runner.cancel(store, job.id)
        raise
    except Cancelled:
        runner.pause(store, job.id)
        raise
    if job.status == "cancelled":
        raise Cancelled
    if job.status == "failed":
        raise EspalierError(job.error or "The job failed.", f"`jobs show {job.id}` has the end of its log.")
    return job


def _under_way(store: JobStore, kind: str, parameters: Mapping[str, JsonValue]) -> Job | None:
    same = (job for job in runner.refresh(store) if job.kind == kind and job.parameters == dict(parameters))
    return next((job for job in same if not job.is_finished), None)


def _wait(store: JobStore, job_id: str, progress: Progress) -> Job:
    while True:
        runner.refresh(store)
        job = store.get(job_id)
        if job.is_finished:
            return job
        if job.status == "queued":
            progress(0, 1, "", job.message or "Waiting for the job before it")
        elif job.total:
            progress(job.done, job.total, job.unit, job.message)
        time.sleep(LOOK_S)
