"""The process of one job: `python -m studio.jobs.worker WORKSPACE ID`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from studio.errors import Cancelled, EspalierError, ProcessError
from studio.jobs.interrupt import Interrupt
from studio.jobs.recorder import Recorder
from studio.jobs.runner import start_waiting
from studio.jobs.store import Job, JobStore, Status
from studio.jobs.task import parse
from studio.jobs.tasks import TASKS
from studio.workspace import Workspace

logger = logging.getLogger("studio.jobs")


def main(arguments: Sequence[str]) -> int:
    """Run the job, write down how it ended, and start the next one."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    root, job_id = arguments
    store = JobStore(Workspace.open(root))
    with store.transaction():  # waits until whoever started this process has written that down
        job = store.get(job_id)
    if job.status != "running" or job.pid != os.getpid():
        logger.warning("job %s belongs to another process", job_id)
        return 1
    interrupt = Interrupt()
    interrupt.install()
    try:
        with Recorder(store, job.id, interrupt) as recorder, _limited(job) as overdue:
            status, outcome = attempt(job, store.workspace, recorder)
            interrupt.close()
        if status == "cancelled" and overdue.is_set():
            error = f"It took longer than the {job.limit_s:.0f} s that a job may take here."
            status, outcome = "failed", {"error": error}
        store.finish(job.id, status, **{**recorder.latest, **outcome})
    finally:
        interrupt.close()
        start_waiting(store)
    return 0


@contextmanager
def _limited(job: Job) -> Iterator[threading.Event]:
    """Interrupts this process once `job` has run as long as it may; the event says whether that happened."""
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        os.kill(os.getpid(), signal.SIGTERM)

    alarm = threading.Timer(job.limit_s or 0.0, end)
    alarm.daemon = True
    if job.limit_s is not None:
        alarm.start()
    try:
        yield overdue
    finally:
        alarm.cancel()


def attempt(job: Job, workspace: Workspace, progress: Recorder) -> tuple[Status, dict[str, Any]]:
    """Do the work of `job`: how it ended, and the fields of the record that say so."""
    try:
        result = parse(TASKS, job.kind, job.parameters).run(workspace, progress)
    except Cancelled:
        logger.info("cancelled")
        return "cancelled", {}
    except EspalierError as error:
        logger.error("%s", error)
        if isinstance(error, ProcessError) and error.log_tail:
            logger.error("%s", error.log_tail)
        return "failed", {"error": str(error)}
    except BaseException as error:
        logger.exception("unexpected")
        return "failed", {"error": f"Unexpected {type(error).__name__}: {error}"}
    logger.info("done")
    return "done", {"result": result, "done": progress.latest.get("total", 0)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
