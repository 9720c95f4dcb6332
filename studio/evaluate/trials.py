"""Maps that are tried before anything is built: one child process with the reference, and every result kept at hand.

A trial belongs to what is measured and not to who asked: two people who try the same map wait for the same trial, and
whoever comes back to a map finds its result. The child is started when it is first needed and ended when it was idle.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from studio.checkpoints.reference import Reference
from studio.contributions.sources import is_path
from studio.errors import Cancelled, EspalierError, InputError, ProcessError, ResourceError
from studio.evaluate.virtual import Measurement
from studio.evaluate.virtual_server import Prompts, VirtualServer
from studio.quantize.card import free_card_bytes
from studio.recipes.dropmap import DropMap
from studio.serve.memory import free_bytes
from studio.units import size_text

IDLE_S = 300.0
"""After so many seconds without a question the child gives its memory back."""
KEPT = 200
"""Results that are kept at hand; each has a few kilobytes."""


@dataclass(frozen=True, eq=False)
class Question:
    """A map of a model, and the prompts to measure it on; paths are absolute."""

    model_dir: Path
    drop: DropMap
    prompts: Prompts

    @property
    def key(self) -> str:
        """The same for the same question, as long as no file that it names has changed."""
        files = [self.model_dir, *(Path(source) for source in self.prompts.sources if is_path(source))]
        asked = [self.drop.content_hash, [_stamp(path) for path in files], asdict(self.prompts)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Trial:
    """How far one question is."""

    message: str = "waiting"
    done: int = 0
    total: int = 0
    unit: str = ""
    result: Measurement | None = None
    error: EspalierError | None = None

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.error is not None


@dataclass(eq=False)
class _Run:
    """A question that is worked on, and for whom."""

    question: Question
    due: float
    owners: set[str]
    trial: Trial = field(default_factory=Trial)
    stopped: threading.Event = field(default_factory=threading.Event)


class Trials:
    """The trials of one app; safe to use from many threads.

    `logs` is the folder for the child's log, `cache` the one for the reference's logits.
    """

    def __init__(self, logs: Path, cache: Path, *, idle_s: float = IDLE_S, threads: int | None = None) -> None:
        self._logs, self._cache, self._idle_s, self._threads = logs, cache, idle_s, threads
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._waiting: queue.SimpleQueue[_Run] = queue.SimpleQueue()
        self._server: VirtualServer | None = None
        self._stamp: object = None
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()

    def ask(self, owner: str, question: Question, after_s: float = 0.0) -> str:
        """Measure, `after_s` seconds from now; the key to look with. What `owner` asked before is no longer wanted."""
        key = question.key
        with self._lock:
            self._release(owner, but=key)
            run = self._runs.get(key)
            if run is None or run.trial.error is not None:
                run = _Run(question, time.monotonic() + after_s, set())
                self._runs[key] = run
                self._waiting.put(run)
            if not run.trial.is_over:
                run.owners.add(owner)
            self._runs.move_to_end(key)
            while len(self._runs) > KEPT and next(iter(self._runs.values())).trial.is_over:
                self._runs.popitem(last=False)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True, name="trials")
                self._worker.start()
        return key

    def look(self, key: str) -> Trial | None:
        """How far the trial is; None for one that nobody asked for."""
        run = self._runs.get(key)
        return None if run is None else run.trial

    def leave(self, owner: str) -> None:
        """`owner` no longer wants what they asked for; what nobody wants is cancelled."""
        with self._lock:
            self._release(owner)

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        server = self._server
        return server.pid if server and server.alive else None

    def _release(self, owner: str, but: str = "") -> None:
        for key, run in self._runs.items():
            if owner in run.owners and key != but:
                run.owners.discard(owner)
                if not run.owners:
                    run.stopped.set()
                    run.trial = Trial(error=Cancelled())

    def _work(self) -> None:
        """Work on one question after the other, for ever."""
        while True:
            try:
                run = self._waiting.get(timeout=self._idle_s if self._server else None)
            except queue.Empty:
                self._stop_server()
                continue
            if not run.stopped.wait(max(0.0, run.due - time.monotonic())):
                self._run(run)

    def _run(self, run: _Run) -> None:
        def progress(done: int, total: int, unit: str = "", message: str = "") -> None:
            if run.stopped.is_set():
                raise Cancelled()
            self._tell(run, Trial(message, done, total, unit))

        try:
            progress(0, 0, message="loading the reference" if self.pid is None else "measuring")
            server = self._server_of(run.question.model_dir)
            found = server.measure(run.question.drop, run.question.prompts, progress)
            self._tell(run, replace(run.trial, result=found))
        except ProcessError as error:
            self._stop_server()
            self._tell(run, Trial(error=ProcessError(error.what, "Measure again: it is started anew.", error.log_tail)))
        except EspalierError as error:
            self._tell(run, Trial(error=error))
        except Exception as error:  # this thread serves everybody, and must not end
            self._tell(run, Trial(error=ProcessError(f"Unexpected {type(error).__name__}: {error}.", "Measure again.")))

    def _tell(self, run: _Run, trial: Trial) -> None:
        with self._lock:
            if not run.stopped.is_set():
                run.trial = trial
                if trial.is_over:
                    run.owners.clear()

    def _server_of(self, model_dir: Path) -> VirtualServer:
        """The child that holds the model in `model_dir`, started unless it is there."""
        stamp = _stamp(model_dir)
        if self._server is None or not self._server.alive or self._stamp != stamp:
            self._stop_server()
            self._server = VirtualServer.start(
                model_dir, log=self._logs / "virtual.log", cache=self._cache, threads=self._threads
            )
            self._stamp = stamp
        return self._server

    def _stop_server(self) -> None:
        if self._server:
            self._server.stop()
            self._server = None


def require_virtual(reference: Reference) -> None:
    """Raise unless `reference` can be loaded in torch, as far as its header tells: `InputError` for a GGUF,
    `ResourceError` for one whose weights are more than all the memory there is.

    What is closer is known when it is loaded.
    """
    if reference.kind != "safetensors":
        raise InputError(
            f"{reference.name} is a GGUF file, and a map can be tried only on the safetensors checkpoint.",
            "Open the checkpoint in the first station.",
        )
    free = free_bytes() + (free_card_bytes() or 0)
    if reference.bytes > free:
        raise ResourceError(
            f"{reference.name} takes {size_text(reference.bytes)} of memory, and {size_text(free)} is free.",
            "Use a machine with more memory, or build a small tier and measure that.",
        )


def _stamp(path: Path) -> list[object]:
    """What changes when there is another model, or another file, at `path`."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [(file.name, file.stat()) for file in files if file.is_file()]
    return [str(path), [[name, status.st_mtime_ns, status.st_size] for name, status in found]]
