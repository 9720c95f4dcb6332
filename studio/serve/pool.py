"""The model servers of this process: started when asked for, shared, and ended when memory or the limit says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from studio.errors import Cancelled, ResourceError
from studio.locks import lives, process_name
from studio.quantize.card import free_card_bytes
from studio.quantize.placement import Offload, Placement, placed, placement
from studio.serve import memory
from studio.serve.loading import Loading
from studio.serve.memory import Fit, ModelNeed
from studio.serve.served import Served, Server, served
from studio.serve.server import CONTEXT, SLOTS
from studio.staging import ELSEWHERE_S

KEEP = 4
"""Servers kept when nobody is asking: one for each column of the page."""
IDLE_S = 900.0
"""After this many seconds without a question a server gives its memory back."""


@dataclass
class _Place:
    """One model, its server, and who is using it."""

    model: Served
    signature: Hashable
    threads: int
    need: ModelNeed
    wanted: Offload | None
    """What was decided about the graphics card; None: it was chosen."""
    placement: Placement
    users: int = 0
    used_at: float = 0.0
    starting: threading.Lock = field(default_factory=threading.Lock)
    server: Server | None = None

    def serves(self, signature: Hashable, threads: int, need: ModelNeed, offload: Offload | None) -> bool:
        """Whether what is loaded is what is asked for; while others use it, whether it will do."""
        if self.signature != signature or self.wanted != offload:
            return False
        if self.users:
            return self.need.context >= need.context
        return self.threads == threads and self.need.context == need.context

    def stop(self) -> None:
        if self.server:
            self.server.stop()
            self.server = None


class ServerPool:
    """One server per model, shared by everyone who asks; safe to use from many threads.

    `logs` is the folder for the servers' logs. `context`, the longest conversation in tokens, and `offload`, what of
    every model goes to the graphics card, are what counts where whoever asks decides nothing else; by default the
    latter is chosen for each, by the memory that is free.
    """

    def __init__(
        self,
        logs: Path,
        *,
        context: int = CONTEXT,
        slots: int = SLOTS,
        keep: int = KEEP,
        idle_s: float = IDLE_S,
        offload: Offload | None = None,
    ) -> None:
        self.logs = logs
        self.loading = Loading(context, offload)
        self.slots = slots
        self.keep = keep
        self.idle_s = idle_s
        self._places: dict[Path, _Place] = {}
        self._free_card: int | None = None
        self._closed = False
        self._reaper: threading.Timer | None = None
        self._changed = threading.Condition()
        _sweep_logs(logs)

    @contextmanager
    def lease(self, model: Served | Path, threads: int, loading: Loading | None = None) -> Iterator[Any]:
        """The server of `model` (of a path to a GGUF a `ModelServer`), started if need be, while the block lasts.

        Waits while other models that are answering fill the memory, and while this one answers others and is loaded
        otherwise than `loading` says. A server that is in use keeps the number of threads it was started with, and a
        context that is longer than asked for. Raises `FormatError` or `UnsupportedError` for a file that holds no
        model, `ResourceError` for one that does not fit in memory by itself, `ProcessError` for one that cannot be
        loaded.
        """
        with self._changed:
            place = self._admit(served(model), threads, loading or self.loading)
            place.users += 1
        try:
            yield self._started(place)
        finally:
            with self._changed:
                place.users -= 1
                place.used_at = time.monotonic()
                self._watch_idleness()
                self._changed.notify_all()

    def fit(self, models: Sequence[Served | Path], loading: Loading | None = None) -> Fit:
        """Whether `models` can answer at the same time, and where each would run."""
        loading = loading or self.loading
        needs = [served(model).need(loading.context, self.slots).need for model in models]
        with self._changed:
            held, card = self._held(), self._card()
        return memory.fit_of(needs, held, card, loading.offload)

    @property
    def room(self) -> tuple[int, int]:
        """Bytes for all models together: (of the graphics card, 0 where llama.cpp computes on none; of main memory)."""
        with self._changed:
            return self._card(), memory.free_bytes(self._held())

    def loaded(self, model: Served | Path) -> bool:
        """Whether `model` can answer at once."""
        place = self._places.get(served(model).key)
        server = place.server if place else None
        return server is not None and server.alive

    def stop(self, model: Served | Path) -> None:
        """End the server of `model`, whoever is using it; the next lease starts it anew."""
        with self._changed:
            place = self._places.get(served(model).key)
            if place:
                place.stop()
            self._changed.notify_all()

    def close(self) -> None:
        """End all servers, those that are still loading as soon as they have loaded."""
        with self._changed:
            self._closed = True
            if self._reaper:
                self._reaper.cancel()
            for place in self._places.values():
                place.stop()
            self._places.clear()

    def _admit(self, model: Served, threads: int, loading: Loading) -> _Place:
        """The place of `model`, made when there is room for it. Called, and returns, with the lock held."""
        signature = model.signature()
        need, offload = model.need(loading.context, self.slots), loading.offload
        while True:
            place = self._places.get(model.key)
            if place and place.serves(signature, threads, need, offload):
                return place
            if place and place.users:  # the file was built again, or is to be loaded otherwise, while it answers
                self._changed.wait()
                continue
            if place:
                self._evict(place)
            free, card = memory.free_bytes(self._held()), self._card()
            alone = _placement(need, offload, card, free)
            used = sum(other.placement.ram for other in self._places.values())
            left = card - sum(other.placement.card for other in self._places.values())
            found = _placement(need, offload, left, free - used)
            idle = [other for other in self._places.values() if not other.users]
            # Where others only keep their models warm, none has to do with less of the card than it could have.
            crowded = found.kind == "no" or (bool(idle) and found.kind != alone.kind)
            if not crowded and (len(self._places) < self.keep or not idle):
                self._places[model.key] = _Place(model, signature, threads, need, offload, found)
                return self._places[model.key]
            if idle:
                self._evict(min(idle, key=lambda other: other.used_at))
            elif self._places:
                self._changed.wait()
            else:
                raise ResourceError(
                    alone.reason.replace("It", model.name, 1),
                    f"Choose a smaller tier, or set {memory.MEMORY_VARIABLE} to the bytes that models may use.",
                )

    def _decided(self, place: _Place) -> Offload | None:
        """What llama.cpp is told; nothing where no card says what it has free, so that it looks itself."""
        unknown = place.wanted is None and self._free_card is None
        return None if unknown else place.placement.offload

    def _started(self, place: _Place) -> Server:
        with place.starting:  # whoever comes second waits for the first one's start
            if place.server is None or not place.server.alive:
                place.stop()
                server = place.model.start(
                    log=self._log(place.model.key),
                    context=place.need.context,
                    slots=self.slots,
                    threads=place.threads,
                    offload=self._decided(place),
                )
                with self._changed:
                    if self._closed:
                        server.stop()
                        raise Cancelled("The app is closing.")
                    place.server = server
            return place.server

    def _log(self, path: Path) -> Path:
        """Two models may have one name; two apps may have one folder of logs."""
        return self.logs / f"{path.stem}-{sha256(str(path).encode()).hexdigest()[:8]}-{process_name()}.log"

    def _watch_idleness(self) -> None:
        """Have an alarm set while there are servers. Called with the lock held."""
        if self._reaper is None and self._places:
            self._reaper = threading.Timer(self.idle_s, self._end_idle)
            self._reaper.daemon = True
            self._reaper.start()

    def _end_idle(self) -> None:
        with self._changed:
            self._reaper = None
            for place in list(self._places.values()):
                if not place.users and time.monotonic() - place.used_at >= self.idle_s:
                    self._evict(place)
            self._watch_idleness()

    def _evict(self, place: _Place) -> None:
        place.stop()
        del self._places[place.model.key]

    def _card(self) -> int:
        """Memory of the graphics card for all models together: what was free when none of them was loaded."""
        if not self._places:  # asking takes a moment, too long for every question
            self._free_card = free_card_bytes()
        return self._free_card or 0

    def _held(self) -> int:
        """Main memory that comes back when all servers end."""
        return sum(memory.private_bytes(place.server.pid) for place in self._places.values() if place.server)


def _placement(need: ModelNeed, offload: Offload | None, card: int, ram: int) -> Placement:
    """Where a model goes that has this much room: as was decided, or as the room decides."""
    if offload is None:
        return placement(need.need, card, ram)
    return placed(need.need, offload, card, ram)


def _sweep_logs(logs: Path) -> None:
    """Remove the logs of processes that are gone; those of other containers stay as long as they are written to."""
    for log in logs.glob("*.*.log"):
        alive = lives(log.stem.rpartition("-")[2])
        if alive is False or (alive is None and time.time() - log.stat().st_mtime > ELSEWHERE_S):
            log.unlink(missing_ok=True)
