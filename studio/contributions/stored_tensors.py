"""The tensors of a safetensors checkpoint, read one by one into memory that is there already.

A mapped file would count as this process's memory, and the readers of the safetensors library hold a tensor twice while
they copy it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.modeling_utils import str_to_torch_dtype

from studio.errors import FormatError, InputError, UnsupportedError

_PIECE_BYTES = 8 << 20
"""Read at a time where the type changes: large enough for the disk, small beside a layer."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: at the byte `start` of `file`."""

    file: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read_into(self, memory: torch.Tensor) -> None:
        """Fill `memory` (contiguous, of this shape and of any type) with the tensor's values."""
        flat = memory.view(-1)
        piece = flat.numel() if flat.dtype == self.dtype else _PIECE_BYTES // self.dtype.itemsize
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            for begin in range(0, flat.numel(), max(1, piece)):
                values = flat[begin : begin + piece]
                read = values if flat.dtype == self.dtype else torch.empty(len(values), dtype=self.dtype)
                self._fill(file, read)
                if read is not values:
                    values.copy_(read)

    def _fill(self, file: Any, memory: torch.Tensor) -> None:
        view: memoryview = memory.view(torch.uint8).numpy().data
        done = 0
        while done < len(view):  # one call reads at most 2 GiB
            count = file.readinto(view[done:])
            if not count:
                raise FormatError(self.file, f"byte {self.start}", "the file ends within a tensor")
            done += count


class _Source:
    """What transformers' loader takes for a tensor of a checkpoint: indexing reads it."""

    def __init__(self, stored: StoredTensor, memory: torch.Tensor) -> None:
        self._stored = stored
        self._memory: torch.Tensor | None = memory

    def __getitem__(self, _: object) -> torch.Tensor:
        # The loader holds on to this object until the end, and must not hold on to the memory.
        memory, self._memory = self._memory, None
        assert memory is not None, "every tensor is read once"
        self._stored.read_into(memory)
        return memory


def readable(tensors: Mapping[str, StoredTensor], dtype: torch.dtype) -> dict[str, _Source]:
    """The tensors that one is made of, to be read as `dtype` into one block of memory.

    Experts that have a tensor each would otherwise leave the heap full of holes, as large as the layer itself.
    """
    sizes = [math.prod(stored.shape) for stored in tensors.values()]
    parts = torch.split(torch.empty(sum(sizes), dtype=dtype), sizes)
    return {
        name: _Source(stored, part.view(stored.shape))
        for (name, stored), part in zip(tensors.items(), parts, strict=True)
    }


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name → place of every tensor of the model in `folder`.

    Raises `InputError` when its weights are not there, `FormatError` for a damaged file, `UnsupportedError` for a type
    that torch does not have.
    """
    found: dict[str, StoredTensor] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt"):  # which checks the header and that the tensors fill the file
                header, start = _header(file)
        except (OSError, SafetensorError) as error:
            raise FormatError(file, "header", f"{error}", "Is the download complete?") from error
        for name, entry in header.items():
            dtype = str_to_torch_dtype.get(entry["dtype"])
            if dtype is None:
                raise UnsupportedError(f"{file}, tensor {name!r} has the type {entry['dtype']!r}, which torch lacks.")
            found[name] = StoredTensor(file, start + entry["data_offsets"][0], tuple(entry["shape"]), dtype)
    return found


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The entries of a header that is known to be whole, and the byte where the tensors begin."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads the model in `folder` from; others may lie beside them."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    try:
        return sorted({folder / Path(name).name for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{folder} has neither {single.name} nor a readable {index.name}.", "Is the download complete?"
        ) from error
