"""Whether models fit in memory, known from their headers before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from studio.checkpoints.gguf_header import read_header
from studio.errors import InputError
from studio.machine import free_ram
from studio.quantize.fit import Need, context_length, free_gpu_bytes, need_of
from studio.quantize.ggml import computes_on_gpu
from studio.quantize.placement import placements

MEMORY_VARIABLE = "ESPALIER_MODEL_MEMORY"
"""Environment variable: bytes that chat may use for models, instead of what the system has free."""
CARD_VARIABLE = "ESPALIER_CARD_MEMORY"
"""Environment variable: bytes of the graphics card that chat may use for models; 0 leaves it alone."""


@dataclass(frozen=True)
class ModelNeed:
    """What serving one file takes."""

    context: int
    """Tokens of one conversation: the model's own context, or less where less was asked for."""
    need: Need
    """Bytes, for all conversations together."""

    @property
    def memory(self) -> int:
        """Bytes of main memory when all of it is there."""
        return self.need.in_ram


@dataclass(frozen=True)
class Fit:
    """Whether models can be in memory at the same time, and a sentence that says so."""

    together: bool
    reason: str


def file_signature(path: Path) -> tuple[int, int]:
    """(modification time in ns, bytes) of a model file: one that was built again is another model.

    Raises `InputError` when it cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Build it, or choose another model.") from None
    return status.st_mtime_ns, status.st_size


def model_need(path: Path, context: int, slots: int) -> ModelNeed:
    """What serving the GGUF at `path` takes, for `slots` conversations of at most `context` tokens each.

    An estimate from above. Raises `FormatError` for a damaged file, `UnsupportedError` for one that holds no language
    model.
    """
    return _model_need(path, file_signature(path), context, slots)


@lru_cache(maxsize=256)  # asked for at every question, and the header of a large vocabulary takes a third of a second
def _model_need(path: Path, _signature: tuple[int, int], context: int, slots: int) -> ModelNeed:
    header = read_header(path)
    context = min(context, context_length(header) or context)
    return ModelNeed(context, need_of(header, context, slots))


def can_run_together(paths: Iterable[Path], context: int, slots: int, held: int = 0, held_on_card: int = 0) -> Fit:
    """Whether the models of `paths` can be in memory at the same time.

    `held` is main memory, `held_on_card` that of the graphics card, which model servers of this process have now and
    would give back. Raises as `model_need` does.
    """
    needs = [model_need(path, context, slots).need for path in paths]
    found = placements(needs, free_card_bytes(held_on_card) or 0, free_bytes(held))
    return Fit(found.together, found.reason)


def free_card_bytes(held: int = 0) -> int | None:
    """Memory of the graphics card for models: what `CARD_VARIABLE` allows, else what is free, plus `held`.

    None where there is no card that llama.cpp computes on here, or none that tells: then llama.cpp decides itself.
    """
    allowed = _allowed(CARD_VARIABLE)
    if allowed is not None or not computes_on_gpu():
        return allowed
    free = free_gpu_bytes()
    return None if free is None else free + held


def free_bytes(held: int = 0) -> int:
    """Memory for models: what `MEMORY_VARIABLE` allows, else what system and container have free, plus `held`."""
    allowed = _allowed(MEMORY_VARIABLE)
    return free_ram() + held if allowed is None else allowed


def _allowed(variable: str) -> int | None:
    """The bytes that an environment variable says, None where it is not set."""
    said = os.environ.get(variable)
    if said and not said.isdigit():
        raise InputError(f"{variable} is {said!r}, and has to be a number of bytes.")
    return int(said) if said else None


def private_bytes(pid: int) -> int:
    """Memory that comes back when process `pid` ends: without the pages of mapped files, which count as free anyway."""
    try:
        memory = psutil.Process(pid).memory_info()
        return int(memory.rss) - int(getattr(memory, "shared", 0))
    except psutil.Error:
        return 0
