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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from pydantic import JsonValue

from studio.errors import InputError, OutputExistsError, ResourceError
from studio.jobs import tokens
from studio.jobs.processes import spawn
from studio.jobs.store import LOGIN_LOST, OWNER_VARIABLE, QUEUED, SLOTS_VARIABLE, Job, JobStore
from studio.jobs.tasks import check
from studio.limits import JOBS
from studio.locks import locked
from studio.publish.hub import acting_with
from studio.staging import remove, used_bytes

WORKER: Sequence[str] = (sys.executable, "-m", "studio.jobs.worker")
"""The command that runs one job; the workspace and the job's id follow."""

CANCEL_PATIENCE_S = 1.3
"""How long a cancelled job may clear up after itself; a person sees it gone within two seconds."""

PAUSE_PATIENCE_S = 5.0
"""How long a job may save what it has when its app ends: containers kill everything after ten seconds."""

# Progress bars of libraries are noise in a log file. (Not TQDM_DISABLE: the converter's own bar is its progress.)
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1"}

_SEE_TO_S = 1.0

_ENDED: set[str] = set()
"""Apps of this process, all but always one, that start no job any more."""

logger = logging.getLogger(__name__)


def start(
    store: JobStore,
    kind: str,
    parameters: Mapping[str, JsonValue],
    title: str | None = None,
    *,
    token: str | None = None,
) -> Job:
    """Queue a job, and run it when a slot is free.

    What can be known before the work is refused here, with the errors of the task's own check: unknown kinds and
    parameters, maps that do not fit, names that exist, too little disk or memory, and what this page does not do.
    With a `token`, the job asks the Hub with that, in the name of whoever gave it.
    """
    _require_access(store, kind, parameters)
    with acting_with(token):
        task = check(kind, parameters, store.workspace)
    _require_a_place(store)
    return _added(store, kind, title or task.title(), dict(parameters), token=token)


def _added(
    store: JobStore,
    kind: str,
    title: str,
    parameters: dict[str, JsonValue],
    *,
    token: str | None,
    retry_of: str | None = None,
) -> Job:
    """A new job, as it is when it has been started or waits."""
    with store.transaction():  # nobody sees a job that needs a token before somebody holds that
        job = store.add(kind, title, parameters, retry_of, login=token is not None)
        if token is not None:
            tokens.hold(store, job, token)
    start_waiting(store)
    if tokens.is_held(job):
        threading.Thread(target=_see_to, args=(store, job.id), daemon=True, name=f"start {job.id}").start()
    return store.get(job.id)


def _see_to(store: JobStore, job_id: str) -> None:
    """Start a job that only this process can start, once there is a free slot: no page may be open by then."""
    while True:
        try:
            if store.get(job_id).status != "queued":
                break
            refresh(store)
        except ResourceError as error:
            logger.warning("%s", error)
        except InputError:  # it is forgotten
            break
        time.sleep(_SEE_TO_S)
    tokens.release(job_id)


def _require_a_place(store: JobStore) -> None:
    """Raise `ResourceError` when as many jobs wait and run as may."""
    most, under_way = JOBS.value, sum(not job.is_finished for job in store.list())
    if most is not None and under_way >= most:
        raise ResourceError(
            f"{under_way} jobs wait or run, and no more are taken.",
            f"Wait until one has ended, cancel one, or set {JOBS.variable}.",
        )


def retry(store: JobStore, job_id: str, *, token: str | None = None) -> Job:
    """Do the work of a failed or cancelled job again, as a new job with the same parameters.

    A result that it had given its name before it died makes way, and is made again. One that worked with somebody's
    login takes a `token` again.
    """
    old = store.get(job_id)
    if not old.can_retry:
        raise InputError(f"Job {job_id} is {old.status}.", "Only a failed or cancelled job can be started again.")
    if old.login and not token:
        raise InputError(
            f"{old.title} works with the login at the Hub of whoever starts it, and there is none now.",
            "Log in at the Hub, and go on with it on the page.",
        )
    _require_access(store, old.kind, old.parameters)
    with acting_with(token):
        _check_again(store, old)
    _require_a_place(store)
    return _added(store, old.kind, old.title, old.parameters, token=token, retry_of=old.id)


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

    Its process is asked first (SIGINT), and killed with all its children after `CANCEL_PATIENCE_S`. One in another
    container sees by itself that it is not wanted any more, and clears up after itself.
    """
    job = store.finish(job_id, "cancelled", when=QUEUED)
    if job.status == "running":
        if job.process is not None and (job.process.is_here or not store.is_alive(job)):
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
    dead = [job for job in jobs if job.status == "running" and not _lives(store, job)]
    lost = [job for job in jobs if job.login and (own := store.of_job(job)) and tokens.is_lost(own, job)]
    if not dead and not lost and not _startable(jobs, store.slots):
        return [job for job in jobs if job.part == store.workspace.part]
    try:
        for job in dead:
            if own := _own(store, job):
                _bury(own, job)
        for job in lost:
            if own := _own(store, job):
                own.finish(job.id, "failed", when=QUEUED, error=LOGIN_LOST)
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


def _lives(store: JobStore, job: Job) -> bool:
    own = store.of_job(job)
    return own is not None and own.is_alive(job)


def _own(store: JobStore, job: Job) -> JobStore | None:
    """The store of the part that `job` works in; where that part is gone, the job is forgotten."""
    own = store.of_job(job)
    if own is None:
        store.forget(job)
    return own


def _startable(jobs: Sequence[Job], slots: int) -> list[Job]:
    free = slots - sum(job.status == "running" for job in jobs)
    ours = (job for job in jobs if job.status == "queued" and (not job.login or tokens.is_held(job)))
    waiting = sorted(ours, key=lambda job: job.created)
    return waiting[: max(0, free)]


def _launch(store: JobStore, job: Job) -> None:
    """Give `job` a process. Others see the record when the transaction ends, and the worker waits for that.

    The process gets the job's lock before anybody can look for it. Where the one before still holds it, on its way
    out, the job waits for the next time.
    """
    command = [*WORKER, str(store.workspace.root), job.id]
    environment = {**_QUIET, SLOTS_VARIABLE: str(store.slots), OWNER_VARIABLE: store.owner}
    try:
        with tokens.handed(job) if job.login else _lock_of(store, job) as (lock, token):
            process = spawn(command, job.id, store.log_path(job.id), environment, lock=lock, secret=token)
    except BlockingIOError:
        return
    except OSError as error:
        store.finish(job.id, "failed", when=QUEUED, error=f"The job's process could not be started: {error}.")
        return
    store.update(
        job.id,
        status="running",
        started=time.time(),
        pid=process.pid,
        process_birth=process.birth,
        place=process.place,
        owner=store.owner,
        message="",
    )


@contextmanager
def _lock_of(store: JobStore, job: Job) -> Iterator[tuple[int | None, str]]:
    """As `tokens.handed`, of a job that needs no token."""
    with locked(store.lock_path(job.id)) as lock:
        yield lock, ""


def _bury(store: JobStore, job: Job) -> None:
    """The process of a running job is gone, and had no time to say why: it was killed, or the machine went down."""
    logger.warning("job %s: process %s died", job.id, job.pid)
    if job.process is not None:
        job.process.kill_orphans()
        job.process.sweep(store.workspace.whole or store.workspace.root, resumables=False)
    unknown = "The job's process died without a word: it was killed, ran out of memory, or the machine was restarted."
    store.finish(job.id, "failed", error=job.too_long if job.is_overdue else unknown)
