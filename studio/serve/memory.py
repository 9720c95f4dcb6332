"""Whether models fit in memory, known from their headers before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from studio.checkpoints.gguf_header import read_header
from studio.errors import InputError
from studio.limits import MODEL_MEMORY
from studio.machine import free_ram
from studio.quantize.fit import Need, context_length, need_of
from studio.quantize.placement import Offload, Placement, all_placed, placements

MEMORY_VARIABLE = MODEL_MEMORY.variable
"""Environment variable: bytes that chat may use for models, instead of what the system has free."""


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
    models: tuple[Placement, ...] = ()
    """Where each runs; where they take turns, each has the machine to itself."""


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


def can_run_together(paths: Iterable[Path], context: int, slots: int, held: int = 0, card: int = 0) -> Fit:
    """Whether the models of `paths` can be in memory at the same time.

    `held` is memory that model servers of this process have now and would give back, `card` what they may take of the
    graphics card. Raises as `model_need` does.
    """
    return fit_of([model_need(path, context, slots).need for path in paths], held, card)


def fit_of(needs: Sequence[Need], held: int = 0, card: int = 0, offload: Offload | None = None) -> Fit:
    """Whether models that need so much each can be in memory at the same time; `offload` where that is decided."""
    ram = free_bytes(held)
    found = placements(needs, card, ram) if offload is None else all_placed(needs, offload, card, ram)
    return Fit(found.together, found.reason, found.models)


def free_bytes(held: int = 0) -> int:
    """Memory for models: what `MEMORY_VARIABLE` allows, else what system and container have free, plus `held`."""
    return free_ram() + held if MODEL_MEMORY.value is None else free_ram()


def private_bytes(pid: int) -> int:
    """Memory that comes back when process `pid` ends: without the pages of mapped files, which count as free anyway."""
    try:
        memory = psutil.Process(pid).memory_info()
        return int(memory.rss) - int(getattr(memory, "shared", 0))
    except psutil.Error:
        return 0
