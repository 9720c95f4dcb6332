"""Reading the tensors of a checkpoint into memory that is there already.

A mapped file would count as this process's memory, and the readers of the safetensors library hold a tensor twice while
they copy it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers.modeling_utils import str_to_torch_dtype

from studio.contributions.stored_tensors import StoredTensor
from studio.errors import FormatError, UnsupportedError

_PIECE_BYTES = 8 << 20
"""Read at a time where the type changes: large enough for the disk, small beside a layer."""


class _Source:
    """What transformers' loader takes for a tensor of a checkpoint: indexing reads it."""

    def __init__(self, stored: StoredTensor, memory: torch.Tensor) -> None:
        self._stored = stored
        self._memory: torch.Tensor | None = memory

    def __getitem__(self, _: object) -> torch.Tensor:
        # The loader holds on to this object until the end, and must not hold on to the memory.
        memory, self._memory = self._memory, None
        assert memory is not None, "every tensor is read once"
        _read(self._stored, memory)
        return memory


def readable(tensors: Mapping[str, StoredTensor], dtype: torch.dtype) -> dict[str, _Source]:
    """The tensors that one is made of, to be read as `dtype` into one block of memory.

    Experts that have a tensor each would otherwise leave the heap full of holes, as large as the layer itself.
    """
    sizes = [stored.elements for stored in tensors.values()]
    parts = torch.split(torch.empty(sum(sizes), dtype=dtype), sizes)
    return {
        name: _Source(stored, part.view(stored.shape))
        for (name, stored), part in zip(tensors.items(), parts, strict=True)
    }


def _read(stored: StoredTensor, memory: torch.Tensor) -> None:
    """Fill `memory` (contiguous, of the same shape and of any type) with the values of `stored`."""
    dtype = str_to_torch_dtype.get(stored.dtype)
    if dtype is None:
        raise UnsupportedError(f"{stored.file} has tensors of the type {stored.dtype}, which torch lacks.")
    flat = memory.view(-1)
    piece = flat.numel() if flat.dtype == dtype else _PIECE_BYTES // dtype.itemsize
    with stored.file.open("rb", buffering=0) as file:
        file.seek(stored.start)
        for begin in range(0, flat.numel(), max(1, piece)):
            values = flat[begin : begin + piece]
            read = values if flat.dtype == dtype else torch.empty(len(values), dtype=dtype)
            _fill(file, read, stored)
            if read is not values:
                values.copy_(read)


def _fill(file: Any, memory: torch.Tensor, stored: StoredTensor) -> None:
    view: memoryview = memory.view(torch.uint8).numpy().data
    done = 0
    while done < len(view):  # one call reads at most 2 GiB
        count = file.readinto(view[done:])
        if not count:
            raise FormatError(stored.file, f"byte {stored.start}", "the file ends within a tensor")
        done += count
