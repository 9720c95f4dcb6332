"""What can be talked to: a model that a pool can serve, the server that it becomes, and the stream of one answer.

A GGUF file is one such model. Another kind is one more class with the methods of `Served`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from studio.checkpoints.digests import digest_file
from studio.quantize.placement import Offload
from studio.serve import memory
from studio.serve.client import Delta, Message, Sampler
from studio.serve.memory import ModelNeed
from studio.serve.server import ModelServer


@dataclass(frozen=True)
class Request:
    """What a model is asked, and how."""

    messages: Sequence[Message]
    sampler: Sampler
    thinking: bool = False
    probabilities: bool = False
    """Whether each token comes with the likeliest others."""


class AnswerStream(Protocol):
    """One answer in the making."""

    def __iter__(self) -> Iterator[Delta]: ...

    def stop(self) -> None:
        """End the answer, from any thread; the iteration finishes with a last delta."""


class Server(Protocol):
    """A process that holds a model."""

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    def stop(self) -> None:
        """Kill the process; its memory is free when this returns."""


class Served(Protocol):
    """A model that a pool can serve."""

    @property
    def key(self) -> Path:
        """Models with the same key share a server: the file or folder with the weights, resolved."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def interleaves(self) -> bool:
        """Whether answers that one server makes at the same time are the same, to the last bit, as one by one."""

    def signature(self) -> Hashable:
        """Changes when there are other weights behind the same key; raises `InputError` when there are none."""

    def digest(self, cache: Path) -> str:
        """sha256 that stands for the weights, remembered in the folder `cache`."""

    def need(self, context: int, slots: int) -> ModelNeed:
        """What serving it takes; raises as `memory.model_need` does."""

    def start(self, *, log: Path, context: int, slots: int, threads: int, offload: Offload | None) -> Server:
        """Load it, with what `offload` says on the graphics card; returns when it can answer.

        Raises `ProcessError` when it cannot be loaded.
        """

    def ask(self, server: Any, request: Request) -> AnswerStream:
        """Have `server`, which `start` returned, answer; raises nothing before the first iteration."""


@dataclass(frozen=True)
class GgufModel:
    """A GGUF file, served by llama.cpp."""

    path: Path

    @property
    def key(self) -> Path:
        return self.path.resolve()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def interleaves(self) -> bool:
        return False  # llama.cpp computes them together, which rounds otherwise

    def signature(self) -> Hashable:
        return memory.file_signature(self.key)

    def digest(self, cache: Path) -> str:
        return digest_file(self.key, cache)

    def need(self, context: int, slots: int) -> ModelNeed:
        return memory.model_need(self.key, context, slots)

    def start(self, *, log: Path, context: int, slots: int, threads: int, offload: Offload | None) -> ModelServer:
        return ModelServer.start(self.key, log=log, context=context, slots=slots, threads=threads, offload=offload)

    def ask(self, server: ModelServer, request: Request) -> AnswerStream:
        return server.stream(
            request.messages, request.sampler, thinking=request.thinking, probabilities=request.probabilities
        )


def served(model: Served | Path) -> Served:
    """A path stands for the GGUF there."""
    return GgufModel(model) if isinstance(model, Path) else model
