"""The process of one job: `python -m studio.jobs.worker WORKSPACE ID`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from studio import discretion
from studio.discretion import be_discreet, discreet
from studio.errors import Cancelled, EspalierError, FormatError, InputError, Paused, ProcessError, ResourceError
from studio.jobs.interrupt import JOB, Interrupt
from studio.jobs.needs import quota_left, require_room
from studio.jobs.processes import LOCK_VARIABLE, kill_descendants
from studio.jobs.recorder import Recorder
from studio.jobs.runner import start_waiting
from studio.jobs.store import Job, JobStore, Status
from studio.jobs.task import parse
from studio.jobs.tasks import TASKS
from studio.locks import keep
from studio.publish.hub import acting_with
from studio.staging import allowed, sweep_process, witnessed
from studio.workspace import Workspace

OVERDUE_S = 5.0
"""How long a job may clear up after itself that has run as long as it may."""
LOOK_S = 0.5
"""How often a job looks whether it is still wanted."""

logger = logging.getLogger("studio.jobs")


def main(arguments: Sequence[str]) -> int:
    """Run the job, write down how it ended, and start the next one, unless everything is being stopped."""
    be_discreet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    root, job_id = arguments
    if (descriptor := os.environ.pop(LOCK_VARIABLE, "")).isdigit():
        keep(int(descriptor))
    store = JobStore(Workspace.open(root))
    with store.transaction():  # waits until whoever started this process has written that down
        job = store.get(job_id)
    if job.status != "running" or job.pid != os.getpid():
        logger.warning("job %s belongs to another process", job_id)
        return 1
    token = sys.stdin.readline().strip() if job.login else ""
    discretion.also(lambda: [token])
    interrupt = Interrupt(JOB)
    interrupt.install()
    try:
        made = store.made(job.id)
        watched = _wanted(store, job)
        with Recorder(store, job.id, interrupt) as recorder, _limited(job) as overdue, watched, witnessed(made.add):
            with acting_with(token or None), allowed(partial(quota_left, store.workspace)):
                status, outcome = attempt(job, store.workspace, recorder)
            interrupt.close()
        if status == "cancelled" and overdue.is_set():
            status, outcome = "failed", {"error": job.too_long}
            kill_descendants()  # as `runner.cancel` does
        if status == "cancelled":  # whoever reads that it is finds nothing half written
            sweep_process(store.workspace.whole or store.workspace.root, os.getpid(), resumables=True)
        if status == "queued":  # paused
            store.closing = True
            store.requeue(job)
        else:
            store.finish(job.id, status, **{**recorder.latest, **outcome})
    finally:
        interrupt.close()
        start_waiting(store)
    return 0


@contextmanager
def _limited(job: Job) -> Iterator[threading.Event]:
    """Interrupts this process once `job` has run as long as it may; the event says whether that happened.

    Where that is not heard, as in the middle of a long computation, it is killed a while later, and what it had half
    written is cleared up by whoever looks next.
    """
    overdue, over = threading.Event(), threading.Event()

    def end() -> None:
        overdue.set()
        os.kill(os.getpid(), signal.SIGINT)
        if not over.wait(OVERDUE_S):
            _kill_own_group()

    alarm = threading.Timer(job.limit_s or 0.0, end)
    alarm.daemon = True
    if job.limit_s is not None:
        alarm.start()
    try:
        yield overdue
    finally:
        over.set()
        alarm.cancel()


def _kill_own_group() -> None:
    """End this process and its children, as far as it was started with a group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _wanted(store: JobStore, job: Job) -> Iterator[None]:
    """Interrupts this process once its job is not its own any more: somebody in another container, where no signal
    comes from, has cancelled it."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            try:
                if not _is_own(store, job):
                    os.kill(os.getpid(), signal.SIGINT)
                    return
            except (ResourceError, FormatError) as error:  # the next look may tell
                logger.warning("%s", error)

    watch = threading.Thread(target=look, daemon=True, name="still wanted")
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _is_own(store: JobStore, job: Job) -> bool:
    try:
        now = store.get(job.id)
    except FormatError:
        raise
    except InputError:  # it is forgotten
        return False
    return now.status == "running" and now.process == job.process


def attempt(job: Job, workspace: Workspace, progress: Recorder) -> tuple[Status, dict[str, Any]]:
    """Do the work of `job`: how it ended, and the fields of the record that say so."""
    try:
        task = parse(TASKS, job.kind, job.parameters)
        require_room(workspace, task.adds(workspace))  # it may have waited behind others that took it
        result = task.run(workspace, progress)
    except Paused:
        logger.info("paused")
        return "queued", {}
    except Cancelled:
        logger.info("cancelled")
        return "cancelled", {}
    except EspalierError as error:
        logger.error("%s", error)
        if isinstance(error, ProcessError) and error.log_tail:
            logger.error("%s", error.log_tail)
        return "failed", {"error": discreet(str(error))}
    except BaseException as error:
        logger.exception("unexpected")
        return "failed", {"error": discreet(f"Unexpected {type(error).__name__}: {error}")}
    logger.info("done")
    return "done", {"result": result, "done": progress.latest.get("total", 0)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
