"""Some rows of a tensor on their way from the source into every file that wants them.

A chunk is read once, converted once for each distinct type that is wanted, and written straight to its place, so it
does not matter which thread takes which chunk, or when. Memory is three small buffers per thread, however large the
tensor.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from gguf.constants import GGMLQuantizationType as Type

from studio.errors import InputError
from studio.quantize import ggml

CHUNK_VALUES = 1 << 18
"""Values in a chunk (or one row, where that is longer): 1 MiB as float32 stays in a core's cache, and even the slowest
types are done with it soon enough for a job that is cancelled."""


@dataclass(frozen=True)
class Place:
    """Where a tensor begins in a file."""

    descriptor: int
    offset: int


@dataclass(frozen=True)
class Journey:
    """One tensor, from the source to all new files."""

    name: str
    type: Type
    columns: int
    source: Place
    runs: tuple[tuple[int, int], ...]
    """The rows that are kept: (first, how many), ascending."""
    places: Mapping[Type, tuple[Place, ...]]
    """Type wanted → where it goes as that."""
    weigh: Callable[[], ggml.Floats | None] = lambda: None
    """Gives the weights of the columns [M, C] of each of M kept matrices (experts), from an importance matrix."""

    @property
    def source_bytes(self) -> int:
        """Bytes that are read."""
        return self.rows * ggml.row_bytes(self.type, self.columns)

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return sum(count for _, count in self.runs)

    def chunks(self) -> Iterator[Chunk]:
        """All kept rows, a few at a time."""
        at_once = max(1, CHUNK_VALUES // self.columns)
        importance = self.weigh()
        target = 0
        for first, count in self.runs:
            for row in range(first, first + count, at_once):
                rows = min(at_once, first + count - row)
                yield Chunk(self, row, target, rows, importance)
                target += rows


@dataclass(frozen=True)
class Chunk:
    """`rows` rows of a tensor: from `row` on in the source, from `target` on in the new files."""

    journey: Journey
    row: int
    target: int
    rows: int
    importance: ggml.Floats | None = None
    """Of all matrices of the tensor, see `Journey.weigh`."""

    @property
    def is_last(self) -> bool:
        """Whether the tensor is complete with it."""
        return self.target + self.rows == self.journey.rows

    @property
    def source_bytes(self) -> int:
        """Bytes that are read."""
        return self.rows * ggml.row_bytes(self.journey.type, self.journey.columns)

    def by_matrix(self) -> Iterator[tuple[slice, ggml.Floats | None]]:
        """Rows of the chunk that have the same importance, and that [C]."""
        if self.importance is None:
            yield slice(0, self.rows), None
            return
        height = self.journey.rows // len(self.importance)
        row = self.target
        while row < self.target + self.rows:
            end = min((row // height + 1) * height, self.target + self.rows)
            yield slice(row - self.target, end - self.target), self.importance[row // height]
            row = end


Digests = Mapping[Type, bytes]
"""Type → digest of what was written as that."""


class Converter:
    """Moves chunks; may be called by several threads at once."""

    def __init__(self, *, zero_nonfinite: bool = False) -> None:
        """`zero_nonfinite` makes zeros of NaN and infinity instead of refusing them."""
        self._zero_nonfinite = zero_nonfinite
        self._buffers = threading.local()

    def convert(self, chunk: Chunk) -> Digests:
        """Read, convert and write `chunk`.

        Raises `InputError` where a weight is NaN or infinite, or becomes so.
        """
        journey = chunk.journey
        size = ggml.row_bytes(journey.type, journey.columns)
        raw = self._read(journey.source, chunk.row * size, chunk.rows * size)
        self._check(journey, raw)
        values: ggml.Floats | None = None
        digests: dict[Type, bytes] = {}
        for kind, places in journey.places.items():
            if kind is journey.type:
                data = raw
            else:
                if values is None:
                    values = self._values(chunk, raw)
                data = self._quantized(chunk, values, kind)
            for place in places:
                write(place.descriptor, data.data, place.offset + chunk.target * ggml.row_bytes(kind, journey.columns))
            digests[kind] = digest(data.data)
        return digests

    def written(self, chunk: Chunk, kind: Type, place: Place) -> bytes:
        """The digest of what stands at `place` where `chunk` belongs, as `kind`."""
        size = ggml.row_bytes(kind, chunk.journey.columns)
        return digest(self._read(place, chunk.target * size, chunk.rows * size).data)

    def _read(self, place: Place, start: int, size: int) -> ggml.Raw:
        raw = self._buffer("raw", size)
        fill(raw, place.descriptor, place.offset + start)
        return raw

    def _check(self, journey: Journey, raw: ggml.Raw) -> None:
        if ggml.is_finite(journey.type, raw):
            return
        if not self._zero_nonfinite or journey.type not in ggml.FLOAT_TYPES:
            raise InputError(
                f"Tensor {journey.name} holds NaN or infinity.",
                "The file is damaged, or was saved from a run that diverged: make it again.",
            )
        ggml.zero_nonfinite(journey.type, raw)

    def _values(self, chunk: Chunk, raw: ggml.Raw) -> ggml.Floats:
        columns = chunk.journey.columns
        if chunk.journey.type is Type.F32:
            return raw.view(np.float32).reshape(chunk.rows, columns)
        values = self._buffer("values", chunk.rows * columns * 4).view(np.float32)
        ggml.to_float(chunk.journey.type, raw, values)
        return values.reshape(chunk.rows, columns)

    def _quantized(self, chunk: Chunk, values: ggml.Floats, kind: Type) -> ggml.Raw:
        size = ggml.row_bytes(kind, chunk.journey.columns)
        out = self._buffer("quantized", chunk.rows * size)
        for rows, importance in chunk.by_matrix():
            ggml.quantize_chunk(kind, values[rows], importance=importance, out=out.reshape(chunk.rows, size)[rows])
        if not ggml.is_finite(kind, out):
            raise InputError(
                f"Tensor {chunk.journey.name} has weights too large for {kind.name}.",
                "Choose a tier that keeps it wider, such as BF16.",
            )
        return out

    def _buffer(self, purpose: str, size: int) -> ggml.Raw:
        """`size` bytes that belong to this thread, the same memory every time."""
        buffer: ggml.Raw | None = getattr(self._buffers, purpose, None)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size, dtype=np.uint8)
            setattr(self._buffers, purpose, buffer)
        return buffer[:size]


def all_chunks(journeys: Iterable[Journey]) -> Iterator[Chunk]:
    """The chunks of all tensors, one tensor after the other."""
    for journey in journeys:
        yield from journey.chunks()


def digest(data: bytes | memoryview) -> bytes:
    """What a journal remembers of bytes, to know them again."""
    return hashlib.blake2b(data, digest_size=16).digest()


def write(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def fill(out: ggml.Raw, descriptor: int, offset: int) -> None:
    """Read `out` full, from `offset` on."""
    view = out.data
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise InputError(f"The source ended at byte {offset} while it was read.", "Did something replace it?")
        view, offset = view[count:], offset + count
