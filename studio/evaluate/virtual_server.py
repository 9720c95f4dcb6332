"""The virtual model in a child process: chat with it and measure it, with any map, without building anything."""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from studio import child, errors
from studio.errors import EspalierError, ProcessError
from studio.evaluate.held_out import PER_CLASS, own_prompts
from studio.evaluate.routing import Routing
from studio.evaluate.virtual import Measurement
from studio.evaluate.virtual_answer import VirtualDelta
from studio.machine import usable_cores
from studio.progress import Progress, silent
from studio.recipes.dropmap import DropMap
from studio.serve.client import Likely, Message, Sampler, Timing, Token
from studio.serve.server import CONTEXT, LOAD_TIMEOUT_S, SLOTS

_GONE = object()


@dataclass(frozen=True)
class Prompts:
    """What is measured on: sources as `prompts_of` takes them, and how they are read. A path from the page has to be
    checked before it gets here."""

    sources: tuple[str, ...]
    reading: Mapping[str, Any]
    """Other arguments of `prompts_of`."""
    options: Mapping[str, Any]
    """Arguments of `held_out`."""


class VirtualServer(child.Held):
    """A reference in torch in a child process, which answers as any model that could be pruned from it.

    Make one with `VirtualServer.start`. As many answers as it has slots are worked on in turns, others wait and say so;
    a measurement makes all wait. When the process dies, so does only what is at hand, with a `ProcessError`.
    """

    def __init__(self, path: Path, process: subprocess.Popen[str], log: Path, dtype: str, device: str) -> None:
        self.path = path
        self.log = log
        self.dtype = dtype
        """As torch writes it: what the model was loaded in."""
        self.device = device
        self._process = process
        self._numbers = count()
        self._heard: dict[int, queue.SimpleQueue[Any]] = {}
        self._guard = threading.Lock()
        self._over = False
        threading.Thread(target=self._listen, daemon=True, name="virtual-model").start()
        _LIVING.add(self)

    @classmethod
    def start(
        cls,
        model_dir: Path,
        *,
        log: Path,
        cache: Path | None = None,
        dtype: str = "auto",
        context: int = CONTEXT,
        slots: int = SLOTS,
        threads: int | None = None,
        timeout_s: float = LOAD_TIMEOUT_S,
    ) -> VirtualServer:
        """Load the safetensors model in `model_dir` for `slots` conversations of `context` tokens; returns when it can
        answer.

        `cache` is the folder for the reference's logits, `dtype` as `VirtualModel.load` has it. The child's output goes
        to `log`, which is written anew. Raises what `VirtualModel.load` raises, and `ProcessError` with the log's last
        lines when the child dies, or is not ready within `timeout_s` seconds.
        """
        settings = {
            "model": str(Path(model_dir).resolve()),
            "cache": None if cache is None else str(cache.resolve()),
            "dtype": dtype,
            "context": context,
            "slots": slots,
            "threads": threads or usable_cores(),
        }
        process, answer = child.start(
            "studio.evaluate.virtual_worker", settings, name=str(model_dir), log=log, timeout_s=timeout_s
        )
        if problem := answer.get("error"):
            child.kill(process)
            raise _error(problem)
        return cls(Path(model_dir), process, log, answer["dtype"], answer["device"])

    def stream(
        self,
        messages: Sequence[Message],
        sampler: Sampler,
        *,
        thinking: bool = False,
        drop: DropMap | None = None,
        probabilities: bool = False,
    ) -> VirtualStream:
        """Ask the model that `drop` leaves, or the reference for None; the answer comes as `VirtualDelta`s.

        Iterating raises `InputError` for a conversation that does not fit and for a map that is not of this model,
        `ProcessError` with the log's last lines when the child dies.
        """
        asked = {
            "verb": "answer",
            "messages": [dict(message) for message in messages],
            "sampler": sampler.model_dump(),
            "thinking": thinking,
            "drop": _written(drop),
            "probabilities": probabilities,
        }
        return VirtualStream(self, asked)

    def measure(self, drop: DropMap | None, prompts: Prompts | None = None, progress: Progress = silent) -> Measurement:
        """How far the model that `drop` leaves is from the reference on `prompts`, by default `own_prompts`.

        The reference's pass is made once for each set of prompts. When `progress` raises, the child stops, too. Raises
        as `Ruler.measure` and reading the prompts do.
        """
        chosen = prompts or Prompts((own_prompts(self.path),), {"per_class": PER_CLASS}, {})
        asked = {
            "verb": "measure",
            "drop": _written(drop),
            "sources": list(chosen.sources),
            "reading": dict(chosen.reading),
            "options": dict(chosen.options),
        }
        number = self.ask(asked)
        try:
            for line in self.hear(number):
                if "result" in line:
                    return Measurement.from_json(line["result"])
                if "progress" in line:
                    progress(*line["progress"])
                else:
                    progress(0, 0, message=_waiting(line["waiting"]))
        except BaseException:
            self.tell_to_stop(number)
            raise
        raise self._lost()

    def ask(self, request: Mapping[str, Any]) -> int:
        """Send a request; its number."""
        with self._guard:
            number = next(self._numbers)
            self._heard[number] = queue.SimpleQueue()
            if self._over:
                self._heard[number].put(_GONE)
            else:
                self._send({"id": number, **request})
        return number

    def tell_to_stop(self, number: int) -> None:
        """Let the child end a request within a token; one that is over already stays as it is."""
        with self._guard:
            if not self._over:
                self._send({"id": number, "verb": "stop"})

    def hear(self, number: int) -> Iterator[dict[str, Any]]:
        """What the child says to a request, up to its `result`; raises the error that it ended with."""
        heard = self._heard[number]
        try:
            while True:
                line = heard.get()
                if line is _GONE:
                    raise self._lost()
                if "error" in line:
                    raise _error(line["error"])
                yield line
                if "result" in line:
                    return
        finally:
            self._heard.pop(number, None)

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with suppress(OSError, ValueError):  # it is gone, which the listener finds out too
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout
        with suppress(OSError, ValueError):  # closed by `stop`
            for text in self._process.stdout:
                line = json.loads(text)
                if (heard := self._heard.get(line["id"])) is not None:
                    heard.put(line)
        with self._guard:
            self._over = True
            for heard in self._heard.values():
                heard.put(_GONE)

    def _lost(self) -> ProcessError:
        how = "it does not answer"
        with suppress(subprocess.TimeoutExpired):
            how = child.ending(self._process.wait(timeout=1))
        return ProcessError(
            f"The virtual model of {self.path.name} failed: {how}.", "Restart it.", child.log_tail(self.log)
        )


class VirtualStream(Iterator[VirtualDelta]):
    """One answer in the making. Iterate to receive it; `stop` from any thread ends it here and in the child."""

    def __init__(self, server: VirtualServer, request: Mapping[str, Any]) -> None:
        self._server = server
        self._request = request
        self._number: int | None = None
        self._guard = threading.Lock()
        self._stopped = False
        self._deltas = self._receive()

    def __next__(self) -> VirtualDelta:
        return next(self._deltas)

    def stop(self) -> None:
        """End the answer: the iteration finishes with a last delta, within a token."""
        with self._guard:
            self._stopped = True
            if self._number is not None:
                self._server.tell_to_stop(self._number)

    def _receive(self) -> Iterator[VirtualDelta]:
        with self._guard:
            if not self._stopped:
                self._number = self._server.ask(self._request)
        if self._number is None:
            yield VirtualDelta(done=True, finish="stopped")
            return
        for line in self._server.hear(self._number):
            if "waiting" in line:
                yield VirtualDelta(waiting=_waiting(line["waiting"]))
            else:
                yield _delta(line.get("result") or line["delta"])


def _waiting(before: int) -> str:
    return f"Waiting: {before} other answers come first." if before > 1 else "Waiting: another answer comes first."


def _written(drop: DropMap | None) -> str | None:
    return None if drop is None else drop.to_json()


def _delta(content: Mapping[str, Any]) -> VirtualDelta:
    timing, routing = content["timing"], content["routing"]
    return VirtualDelta(
        content["text"],
        content["reasoning"],
        content["done"],
        None if timing is None else Timing(**timing),
        content["finish"],
        None if routing is None else Routing.from_json(routing),
        tokens=tuple(map(_token, content["tokens"])),
    )


def _token(content: Mapping[str, Any]) -> Token:
    return Token(content["text"], content["thought"], content["id"], tuple(Likely(*one) for one in content["top"]))


def _error(content: Mapping[str, str]) -> EspalierError:
    """An error of the child as the parent raises it."""
    kind = getattr(errors, content["kind"], ProcessError)
    if kind is errors.Cancelled:
        return errors.Cancelled()
    if kind in (errors.FormatError, errors.OutputExistsError):  # they are made of other parts
        kind = errors.InputError
    made: EspalierError = kind(content["what"], content["remedy"])
    return made


_LIVING: weakref.WeakSet[VirtualServer] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_LIVING):
        server.stop()
