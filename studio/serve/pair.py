"""Two models side by side: the same question to both, their answers merged into one stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.errors import EspalierError
from studio.machine import threads_for
from studio.serve.client import ChatStream, Delta, Message, Sampler
from studio.serve.memory import Fit
from studio.serve.pool import ServerPool

Side = Literal["reference", "candidate"]
SIDES: tuple[Side, Side] = ("reference", "candidate")


@dataclass(frozen=True)
class Status:
    """What a side is doing before its first token."""

    text: str


Event = Delta | Status | EspalierError
"""What happens on a side: a piece of its answer, what it waits for, or why it failed (then it is over)."""


class Pair:
    """A reference and a candidate (either may be missing), served from a pool that others share.

    Both answer at the same time where they fit in memory together, else in turn.
    """

    def __init__(self, pool: ServerPool, reference: Path | None, candidate: Path | None) -> None:
        chosen: dict[Side, Path | None] = {"reference": reference, "candidate": candidate}
        self.pool = pool
        self.paths: dict[Side, Path] = {side: path for side, path in chosen.items() if path is not None}

    def fit(self) -> Fit:
        """Whether both can answer at the same time, before anything is started. Raises as `ServerPool.lease` does."""
        different = sorted({path.resolve() for path in self.paths.values()})
        return self.pool.fit(different) if len(different) > 1 else Fit(True, "")

    def stream(
        self, conversations: Mapping[Side, Sequence[Message]], sampler: Sampler, *, thinking: bool = False
    ) -> PairStream:
        """Ask every side that has a model and a conversation here; failures arrive as events of their side."""
        sides = [side for side in SIDES if side in self.paths and side in conversations]
        try:
            together = self.fit().together
        except EspalierError:
            together = True  # a side whose file is damaged says so itself, and must not silence the other
        return PairStream(
            self, sides=sides, conversations=conversations, sampler=sampler, thinking=thinking, together=together
        )

    def restart(self, side: Side) -> None:
        """End the server of a side; the next question starts it anew."""
        if side in self.paths:
            self.pool.stop(self.paths[side])


class PairStream(Iterator[tuple[Side, Event]]):
    """Answers in the making: iterate for (side, event), or `collect` what came in a while.

    Each side ends with a `Delta` that is done, or with an error. `stop` ends both, from any thread.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        sides: Sequence[Side],
        conversations: Mapping[Side, Sequence[Message]],
        sampler: Sampler,
        thinking: bool,
        together: bool,
    ) -> None:
        self.together = together
        self._pair = pair
        self._conversations = conversations
        self._sampler = sampler
        self._thinking = thinking
        self._events: queue.SimpleQueue[tuple[Side, Event]] = queue.SimpleQueue()
        self._unfinished = set(sides)
        self._guard = threading.Lock()
        self._stopped = False
        self._open: set[ChatStream] = set()
        # A model that is in memory goes first, so that taking turns costs one load per question and not two.
        order = sorted(sides, key=lambda side: not pair.pool.loaded(pair.paths[side]))
        files = {pair.paths[side].resolve() for side in sides}
        self._threads = threads_for(len(files) if together else 1)
        for turn in [[side] for side in sides] if together else [order]:
            threading.Thread(target=self._answer, args=(turn,), name="chat-side", daemon=True).start()

    def __next__(self) -> tuple[Side, Event]:
        if not self._unfinished:
            raise StopIteration
        return self._seen(self._events.get())

    @property
    def finished(self) -> bool:
        """Whether every side's last event was handed out."""
        return not self._unfinished

    def collect(self, seconds: float) -> list[tuple[Side, Event]]:
        """Everything that happens in the next `seconds`, or up to the end of the last answer."""
        until = time.monotonic() + seconds
        events = []
        while self._unfinished:
            try:
                events.append(self._seen(self._events.get(timeout=max(0.0, until - time.monotonic()))))
            except queue.Empty:
                break
        return events

    def stop(self) -> None:
        """End both answers; what came so far stays, and each side still gives its last event."""
        with self._guard:
            self._stopped = True
            streams, unfinished = list(self._open), list(self._unfinished)
        for stream in streams:
            stream.stop()
        # A side that is still loading is not waited for: its model will be in the pool for the next question.
        for side in unfinished:
            self._events.put((side, Delta(done=True, finish="stopped")))

    def _seen(self, item: tuple[Side, Event]) -> tuple[Side, Event]:
        side, event = item
        if isinstance(event, EspalierError) or (isinstance(event, Delta) and event.done):
            with self._guard:
                self._unfinished.discard(side)
        return item

    def _answer(self, turn: Sequence[Side]) -> None:
        """One thread's work: the sides of `turn`, one after the other."""
        for side in turn:
            if self._stopped:
                return
            if side != turn[0]:
                self._events.put((side, Status("Its turn: loading the model …")))
            try:
                self._answer_side(side)
            except EspalierError as error:
                self._events.put((side, error))
            except BaseException as error:  # a thread that dies silently would leave the page waiting
                self._events.put((side, EspalierError(f"{type(error).__name__}: {error}")))
                raise

    def _answer_side(self, side: Side) -> None:
        path = self._pair.paths[side]
        if not self._pair.pool.loaded(path):
            self._events.put((side, Status("Loading the model …")))
        with self._pair.pool.lease(path, self._threads) as server:
            stream = server.stream(self._conversations[side], self._sampler, thinking=self._thinking)
            with self._guard:
                if self._stopped:
                    return
                self._open.add(stream)
            for delta in stream:
                self._events.put((side, delta))
