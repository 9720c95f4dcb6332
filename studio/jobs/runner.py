"""Starting, watching and ending jobs.

Every job is a process of its own that outlives whoever started it: closing the page stops nothing, and neither does an
app that crashes. An app that is told to end pauses the jobs that were started for it, which go on where they were when
an app is started on this workspace, or at once where another one is running. A job starts when there is a free slot: at
once, when the job before it ends, or at the next `refresh`. Only inside a transaction of the store, which every app on
the workspace shares, does a queued job become a running one; so none runs twice.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydantic import JsonValue

from studio.errors import InputError, OutputExistsError, ResourceError
from studio.jobs.processes import spawn
from studio.jobs.store import OWNER_VARIABLE, QUEUED, SLOTS_VARIABLE, Job, JobStore
from studio.jobs.tasks import check
from studio.limits import JOBS
from studio.staging import remove, used_bytes

WORKER: Sequence[str] = (sys.executable, "-m", "studio.jobs.worker")
"""The command that runs one job; the workspace and the job's id follow."""

CANCEL_PATIENCE_S = 1.3
"""How long a cancelled job may clear up after itself; a person sees it gone within two seconds."""

PAUSE_PATIENCE_S = 5.0
"""How long a job may save what it has when its app ends: containers kill everything after ten seconds."""

# Progress bars of libraries are noise in a log file. (Not TQDM_DISABLE: the converter's own bar is its progress.)
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1"}

_ENDED: set[str] = set()
"""Apps of this process, all but always one, that start no job any more."""

logger = logging.getLogger(__name__)


def start(store: JobStore, kind: str, parameters: Mapping[str, JsonValue], title: str | None = None) -> Job:
    """Queue a job, and run it when a slot is free.

    What can be known before the work is refused here, with the errors of the task's own check: unknown kinds and
    parameters, maps that do not fit, names that exist, too little disk or memory, and what this page does not do.
    """
    _require_access(store, kind, parameters)
    task = check(kind, parameters, store.workspace)
    _require_a_place(store)
    job = store.add(kind, title or task.title(), dict(parameters))
    start_waiting(store)
    return store.get(job.id)


def _require_a_place(store: JobStore) -> None:
    """Raise `ResourceError` when as many jobs wait and run as may."""
    most, under_way = JOBS.value, sum(not job.is_finished for job in store.list())
    if most is not None and under_way >= most:
        raise ResourceError(
            f"{under_way} jobs wait or run, and no more are taken.",
            f"Wait until one has ended, cancel one, or set {JOBS.variable}.",
        )


def retry(store: JobStore, job_id: str) -> Job:
    """Do the work of a failed or cancelled job again, as a new job with the same parameters.

    A result that it had given its name before it died makes way, and is made again.
    """
    old = store.get(job_id)
    if not old.can_retry:
        raise InputError(f"Job {job_id} is {old.status}.", "Only a failed or cancelled job can be started again.")
    _require_access(store, old.kind, old.parameters)
    _check_again(store, old)
    _require_a_place(store)
    job = store.add(old.kind, old.title, old.parameters, retry_of=old.id)
    start_waiting(store)
    return store.get(job.id)


def _require_access(store: JobStore, kind: str, parameters: Mapping[str, JsonValue]) -> None:
    """Raise `RefusedError` for a job that whoever works in this part may not start."""
    access = store.workspace.access
    if not access.is_full:
        unfinished = [job for job in store.list() if not job.is_finished]
        access.require_job(kind, parameters, unfinished, used_bytes(store.workspace.root))


def _check_again(store: JobStore, old: Job) -> None:
    """Check what `old` was asked for, as `start` does; a name that it has taken itself is as good as free."""
    made = store.made(old.id)
    while True:
        try:
            check(old.kind, old.parameters, store.workspace)
            return
        except OutputExistsError as error:
            if not made.holds(error.path):
                raise
            remove(error.path)


def cancel(store: JobStore, job_id: str) -> Job:
    """Stop a job and remove what it had half written; a finished job stays as it is.

    Its process is asked first (SIGINT), and killed with all its children after `CANCEL_PATIENCE_S`.
    """
    job = store.finish(job_id, "cancelled", when=QUEUED)
    if job.status == "running":
        if job.process is not None:
            job.process.end(CANCEL_PATIENCE_S)
            job.process.sweep(store.workspace.whole or store.workspace.root, resumables=True)
        job = store.finish(job_id, "cancelled")
        start_waiting(store)
    return job


def pause_own(store: JobStore, patience_s: float = PAUSE_PATIENCE_S) -> list[Job]:
    """Stop the jobs that run for the app of `store`, which starts no other from here on; those of other apps go on.

    Each is asked first (SIGTERM), and killed with all its children after `patience_s`. What it can go on with stays,
    and it waits for an app to start it again: the jobs as they are then.
    """
    if not store.owner:
        return []
    _ENDED.add(store.owner)
    paused: dict[str, Job] = {}
    deadline = time.monotonic() + patience_s
    while own := _running_for(store):  # one that ended by itself just now has started the next
        with ThreadPoolExecutor(len(own)) as together:
            left = max(0.1, deadline - time.monotonic())
            paused |= {job.id: job for job in together.map(partial(_pause, store, left), own)}
    return list(paused.values())


def pause(store: JobStore, job_id: str, patience_s: float = PAUSE_PATIENCE_S) -> Job:
    """Stop one job as `pause_own` does, whoever it runs for."""
    job = store.get(job_id)
    return _pause(store, patience_s, job) if job.status == "running" else job


def _running_for(store: JobStore) -> list[Job]:
    return [job for job in store.everyones() if job.status == "running" and job.owner == store.owner]


def _pause(store: JobStore, patience_s: float, job: Job) -> Job:
    if job.process is not None:
        job.process.end(patience_s, number=signal.SIGTERM)
        job.process.sweep(store.workspace.whole or store.workspace.root, resumables=False)
    own = _own(store, job)
    return own.requeue(job) if own else job


def refresh(store: JobStore) -> list[Job]:
    """The jobs of this part as they are now, the newest first.

    Jobs whose process died, whoever's, are marked as failed and cleared up after, and waiting ones are started. Cheap:
    the page calls it every second.
    """
    jobs = store.everyones()
    dead = [job for job in jobs if job.status == "running" and not (job.process and job.process.is_alive())]
    if not dead and not _startable(jobs, store.slots):
        return [job for job in jobs if job.part == store.workspace.part]
    try:
        for job in dead:
            if own := _own(store, job):
                _bury(own, job)
        start_waiting(store)
    except ResourceError as error:  # the disk is full: what they are can still be seen, and the next time comes soon
        logger.warning("%s", error)
    return store.list()


def start_waiting(store: JobStore) -> None:
    """Start the jobs that have waited longest, as far as there are free slots."""
    if store.closing or store.owner in _ENDED or not _startable(store.everyones(), store.slots):
        return  # without a transaction: this is asked every second
    with store.transaction():
        for job in _startable(store.everyones(), store.slots):
            if own := _own(store, job):
                _launch(own, job)


def _own(store: JobStore, job: Job) -> JobStore | None:
    """The store of the part that `job` works in; where that part is gone, the job is forgotten."""
    own = store.of_job(job)
    if own is None:
        store.forget(job)
    return own


def _startable(jobs: Sequence[Job], slots: int) -> list[Job]:
    free = slots - sum(job.status == "running" for job in jobs)
    waiting = sorted((job for job in jobs if job.status == "queued"), key=lambda job: job.created)
    return waiting[: max(0, free)]


def _launch(store: JobStore, job: Job) -> None:
    """Give `job` a process. Others see the record when the transaction ends, and the worker waits for that."""
    command = [*WORKER, str(store.workspace.root), job.id]
    try:
        process = spawn(
            command,
            job.id,
            store.log_path(job.id),
            environment={**_QUIET, SLOTS_VARIABLE: str(store.slots), OWNER_VARIABLE: store.owner},
        )
    except OSError as error:
        store.finish(job.id, "failed", when=QUEUED, error=f"The job's process could not be started: {error}.")
        return
    store.update(
        job.id,
        status="running",
        started=time.time(),
        pid=process.pid,
        process_birth=process.birth,
        owner=store.owner,
        message="",
    )


def _bury(store: JobStore, job: Job) -> None:
    """The process of a running job is gone, and had no time to say why: it was killed, or the machine went down."""
    logger.warning("job %s: process %s died", job.id, job.pid)
    if job.process is not None:
        job.process.kill_orphans()
        job.process.sweep(store.workspace.whole or store.workspace.root, resumables=False)
    store.finish(
        job.id,
        "failed",
        error="The job's process died without a word: it was killed, ran out of memory, or the machine was restarted.",
    )
