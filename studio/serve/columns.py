"""Models side by side: the same question to each, their answers merged into one stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import EspalierError
from studio.machine import threads_for
from studio.serve.client import Delta
from studio.serve.loading import Loading
from studio.serve.memory import Fit
from studio.serve.pool import ServerPool
from studio.serve.served import AnswerStream, Request, Served

MOST_COLUMNS = 4


@dataclass(frozen=True)
class Status:
    """What a column is doing before its first token."""

    text: str


Event = Delta | Status | EspalierError
"""What happens in a column: a piece of its answer, what it waits for, or why it failed (then it is over)."""


class Columns:
    """Models that are asked the same, served from a pool that others share; the keys are the ids of the columns.

    They answer at the same time where they fit in memory together, else in turn, unless `loading` decides about that.
    """

    def __init__(self, pool: ServerPool, models: Mapping[str, Served], loading: Loading | None = None) -> None:
        self.pool = pool
        self.models = dict(models)
        self.loading = loading or pool.loading

    @property
    def different(self) -> list[Served]:
        """The models, each once."""
        return list({model.key: model for model in self.models.values()}.values())

    def fit(self) -> Fit:
        """Whether all can answer at the same time, before anything is started. Raises as `ServerPool.lease` does."""
        return self.pool.fit(self.different, self.loading) if self.models else Fit(True, "")

    @property
    def together(self) -> bool:
        """Whether all are asked at once. Where not all fit although that was decided, the pool has some wait."""
        if self.loading.order is not None:
            return self.loading.order == "together"
        try:
            return len(self.different) < 2 or self.fit().together
        except EspalierError:
            return True  # a column whose file is damaged says so itself, and must not silence the others

    def stream(self, requests: Mapping[str, Request]) -> ColumnsStream:
        """Ask every column that has a model and a request here; failures arrive as events of their column."""
        asked = {column: request for column, request in requests.items() if column in self.models}
        return ColumnsStream(self, asked, together=self.together)

    def restart(self, column: str) -> None:
        """End the server of a column; the next question starts it anew."""
        if column in self.models:
            self.pool.stop(self.models[column])


class ColumnsStream(Iterator[tuple[str, Event]]):
    """Answers in the making: iterate for (column, event), or `collect` what came in a while.

    Each column ends with a `Delta` that is done, or with an error. `stop` ends one or all, from any thread.
    """

    def __init__(self, columns: Columns, requests: Mapping[str, Request], *, together: bool) -> None:
        self.together = together
        self._columns = columns
        self._requests = requests
        self._events: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self._unfinished = set(requests)
        self._guard = threading.Lock()
        self._stopped: set[str] = set()
        self._open: dict[str, AnswerStream] = {}
        models = columns.models
        # Columns with the same model take turns where answers that one server computes together differ in the last
        # bits, which is enough to part. Where not all models fit, all take turns, and one that is in memory goes first,
        # so that a question costs one load per model.
        keys = [models[one].key for one in requests]
        order = sorted(requests, key=lambda one: (not columns.pool.loaded(models[one]), keys.index(models[one].key)))
        turns: dict[Path | str | None, list[str]] = {}
        for one in order:
            own = one if models[one].interleaves else models[one].key
            turns.setdefault(own if together else None, []).append(one)
        self._threads = threads_for(len({models[one].key for one in requests}) if together else 1)
        for turn in turns.values():
            for one in turn[1:]:
                self._events.put((one, Status("Waiting for another column …")))
            threading.Thread(target=self._answer, args=(turn,), name="chat-column", daemon=True).start()

    def __next__(self) -> tuple[str, Event]:
        if not self._unfinished:
            raise StopIteration
        return self._seen(self._events.get())

    @property
    def finished(self) -> bool:
        """Whether every column's last event was handed out."""
        return not self._unfinished

    def collect(self, seconds: float) -> list[tuple[str, Event]]:
        """Everything that happens in the next `seconds`, or up to the end of the last answer."""
        until = time.monotonic() + seconds
        events = []
        while self._unfinished:
            try:
                events.append(self._seen(self._events.get(timeout=max(0.0, until - time.monotonic()))))
            except queue.Empty:
                break
        return events

    def stop(self, column: str | None = None) -> None:
        """End the answer of `column`, or all; what came so far stays, and each still gives its last event."""
        with self._guard:
            ending = {one for one in self._unfinished if column in (None, one)}
            self._stopped |= ending
            streams = [self._open[one] for one in ending if one in self._open]
        for stream in streams:
            stream.stop()
        # One that is still loading is not waited for: its model will be in the pool for the next question.
        for one in ending:
            self._events.put((one, Delta(done=True, finish="stopped")))

    def _seen(self, item: tuple[str, Event]) -> tuple[str, Event]:
        column, event = item
        if isinstance(event, EspalierError) or (isinstance(event, Delta) and event.done):
            with self._guard:
                self._unfinished.discard(column)
        return item

    def _answer(self, turn: Sequence[str]) -> None:
        """One thread's work: the columns of `turn`, one after the other."""
        for column in turn:
            if column in self._stopped:
                continue
            try:
                self._answer_column(column)
            except EspalierError as error:
                self._events.put((column, error))
            except BaseException as error:  # a thread that dies silently would leave the page waiting
                self._events.put((column, EspalierError(f"{type(error).__name__}: {error}")))
                raise

    def _answer_column(self, column: str) -> None:
        model = self._columns.models[column]
        if not self._columns.pool.loaded(model):
            self._events.put((column, Status("Loading the model …")))
        with self._columns.pool.lease(model, self._threads, self._columns.loading) as server:
            stream = model.ask(server, self._requests[column])
            with self._guard:
                if column in self._stopped:
                    return
                self._open[column] = stream
            for delta in stream:
                self._events.put((column, Status(delta.waiting) if delta.waiting else delta))
