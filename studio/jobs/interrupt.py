"""SIGTERM as an exception, so that whatever was half written is removed by the `with` blocks it passes through."""

from __future__ import annotations

import signal
from types import FrameType

from studio.errors import Cancelled


class Interrupt:
    """Raises `Cancelled` in the main thread when SIGTERM comes: once, so that the clearing up is left in peace."""

    def __init__(self) -> None:
        self._requested = False
        self._closed = False

    def install(self) -> None:
        """Take SIGTERM over; only the main thread of a process can."""
        signal.signal(signal.SIGTERM, self._receive)

    def check(self) -> None:
        """Raise `Cancelled` where it was asked for: some code catches every exception, and would go on for ever."""
        if self._requested and not self._closed:
            raise Cancelled()

    def close(self) -> None:
        """From here on SIGTERM changes nothing: the work is over, and is being written down."""
        self._closed = True

    def _receive(self, _signal: int, _frame: FrameType | None) -> None:
        again, self._requested = self._requested, True
        if not again and not self._closed:
            raise Cancelled()
