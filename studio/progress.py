"""How long work reports on itself: a callback that does nothing by default."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work advances.

    `done` and `total` share one unit (bytes, questions, layers), named by `unit`; `message` says what is in work.
    """

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None: ...


class Tally:
    """Several pieces of work, counted in one unit, as one progress."""

    def __init__(self, progress: Progress, total: int, unit: str = "bytes") -> None:
        self._progress = progress
        self._total = total
        self._unit = unit
        self._done = 0

    def advance(self, count: int, message: str) -> None:
        """`count` more are done."""
        self._done += count
        self._progress(self._done, self._total, self._unit, message)


def silent(done: int, total: int, unit: str = "", message: str = "") -> None:
    """The default: nobody is watching."""
