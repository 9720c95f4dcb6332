"""How long work reports on itself: a callback that does nothing by default."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work advances.

    `done` and `total` share one unit (bytes, questions, layers), named by `unit`; `message` says what is in work.
    """

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None: ...


def silent(done: int, total: int, unit: str = "", message: str = "") -> None:
    """The default: nobody is watching."""
