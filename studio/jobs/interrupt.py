"""Signals as exceptions, so that whatever was half written is removed by the `with` blocks they pass through."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from types import FrameType

from studio.errors import Cancelled, Paused

PERSON: Mapping[int, type[Cancelled]] = {signal.SIGTERM: Cancelled}
"""What a verb makes of signals: whoever sends one wants it to end. (Python itself raises for Ctrl-C.)"""
JOB: Mapping[int, type[Cancelled]] = {signal.SIGINT: Cancelled, signal.SIGTERM: Paused}
"""What a job makes of them: `runner.cancel` sends SIGINT; SIGTERM comes when the app, the container or the machine is
stopped, and what there is has to stay."""


class Interrupt:
    """Raises in the main thread what `meaning` says of a signal: once, so that the clearing up is left in peace."""

    def __init__(self, meaning: Mapping[int, type[Cancelled]] = PERSON) -> None:
        self._meaning = meaning
        self._requested: type[Cancelled] | None = None
        self._closed = False

    def install(self) -> None:
        """Take the signals over; only the main thread of a process can."""
        for number in self._meaning:
            signal.signal(number, self._receive)

    def check(self) -> None:
        """Raise again what was asked for: some code catches every exception, and would go on for ever."""
        if self._requested and not self._closed:
            raise self._requested()

    def close(self) -> None:
        """From here on signals change nothing: the work is over, and is being written down."""
        self._closed = True

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        again, self._requested = self._requested, self._requested or self._meaning[number]
        if not again and not self._closed:
            raise self._requested()
