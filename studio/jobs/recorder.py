"""A job's progress, on its way into the store."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from studio.jobs.interrupt import Interrupt
from studio.jobs.store import RUNNING, JobStore

WRITES_PER_S = 5.0
_WINDOW_S = 20.0  # long enough to even out uneven tensors, short enough to notice that another step has another speed
_PATIENCE_S = 0.5  # nothing can be said from less

logger = logging.getLogger(__name__)


class Recorder:
    """The `Progress` of one job, used as a context: what it hears reaches the store at most five times a second.

    A thread of its own writes, so that the last word before a long silence arrives too, and so that no signal can break
    a database transaction off. Within one total, progress never falls. Raises `Cancelled` again where a signal came and
    somebody swallowed it.
    """

    def __init__(self, store: JobStore, job_id: str, interrupt: Interrupt) -> None:
        self._store = store
        self._job_id = job_id
        self._interrupt = interrupt
        self._estimate = Estimate(time.monotonic())
        self.latest: dict[str, Any] = {}
        """The fields of `Job` as last reported, written or not."""
        self._written = self.latest
        self._over = threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True, name="progress")

    def __enter__(self) -> Recorder:
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._writer.join()

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None:
        self._interrupt.check()
        before = self.latest
        total, done = int(total), min(int(done), int(total))
        if (total, unit) == (before.get("total"), before.get("unit")):
            done = max(done, before["done"])
        if message and message != before.get("message"):
            logger.info("%s", message)
        eta = self._estimate.seconds_left(time.monotonic(), done / total if total else 0.0)
        self.latest = {"done": done, "total": total, "unit": unit, "message": message, "eta_s": eta}

    def write(self) -> None:
        """Bring the store up to date."""
        latest = self.latest
        if latest is not self._written:
            self._store.update(self._job_id, when=RUNNING, **latest)
            self._written = latest

    def _write_now_and_then(self) -> None:
        while not self._over.wait(1 / WRITES_PER_S):
            try:
                self.write()
            except Exception:
                logger.exception("progress could not be written")  # the work goes on without


class Estimate:
    """Seconds left, from the speed of the last twenty seconds."""

    def __init__(self, start: float) -> None:
        self._seen: deque[tuple[float, float]] = deque([(start, 0.0)])  # (time, fraction done)

    def seconds_left(self, now: float, fraction: float) -> float | None:
        """None while nothing moves, or too little has been seen."""
        if fraction <= 0.0 or fraction < self._seen[-1][1]:  # loading a model is not yet work on its questions
            self._seen = deque([(now, fraction)])
            return None
        if now - self._seen[-1][0] >= 1 / WRITES_PER_S:
            self._seen.append((now, fraction))
        while len(self._seen) > 1 and now - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()
        then, was = self._seen[0]
        if fraction >= 1.0:
            return 0.0
        if now - then < _PATIENCE_S or fraction <= was:
            return None
        return (1.0 - fraction) * (now - then) / (fraction - was)
