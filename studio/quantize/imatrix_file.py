"""Importance matrices on disk: GGUF, which is read and written, and the older `.dat`, which is read.

Both as llama.cpp has them (common/imatrix-loader.cpp and tools/imatrix/imatrix.cpp). Nothing that a file claims is
believed before it is checked against its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.gguf_header import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    GgufHeader,
    GgufTensor,
    aligned,
    header_bytes,
    laid_out,
    read_header,
)
from studio.checkpoints.gguf_values import Typed, Values, ValueType
from studio.errors import FormatError, InputError
from studio.quantize.header import GGUF_VERSION
from studio.quantize.imatrix import Entry, Floats, Imatrix, merge
from studio.staging import staged

SUMS, COUNTS = ".in_sum2", ".counts"
"""What the names of the two tensors of an entry end in."""
DATASETS, CHUNK_COUNT, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"

_INT32 = struct.Struct("<i")
_MOST = 1 << 31
_LARGEST_COUNT = float(1 << 53)


def read_imatrix(path: Path) -> Imatrix:
    """Read the importance matrix at `path`, GGUF or legacy.

    Raises `InputError` when there is no such file, `FormatError` naming the place where it is damaged or lies (also for
    a GGUF file that is a model), and what `read_header` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file.", "Name an importance matrix (.gguf or .dat).")
    with path.open("rb") as file:
        return _read_gguf(path) if file.read(len(MAGIC)) == MAGIC else _read_legacy(_Legacy(path, file))


def write_imatrix(imatrix: Imatrix, path: Path, overwrite: bool = False) -> Path:
    """Write `imatrix` to `path` as llama-imatrix writes it, byte for byte; gives the path.

    A legacy one is converted first (see `merge`). Raises `OutputExistsError` and `ResourceError`.
    """
    if imatrix.legacy:
        imatrix = merge([imatrix])
    arrays = dict(_arrays(imatrix))
    tensors = laid_out(((name, _trimmed(array), Type.F32) for name, array in arrays.items()), DEFAULT_ALIGNMENT)
    values: dict[str, Any] = {
        "general.type": "imatrix",
        DATASETS: Typed(ValueType.ARRAY, imatrix.datasets, ValueType.STRING),
        CHUNK_COUNT: imatrix.chunk_count,
        CHUNK_SIZE: imatrix.chunk_size,
    }
    empty = GgufHeader(path, GGUF_VERSION, Values(b"", {}), (), DEFAULT_ALIGNMENT, ())
    start = header_bytes(empty, replace=values, tensors=tensors)
    needed = len(start) + sum(aligned(tensor.size, DEFAULT_ALIGNMENT) for tensor in tensors)
    with staged(path, overwrite=overwrite, needed_bytes=needed) as partial, partial.open("wb") as file:
        file.write(start)
        for tensor in tensors:
            file.write(np.ascontiguousarray(arrays[tensor.name]).data)
            file.write(bytes(aligned(tensor.size, DEFAULT_ALIGNMENT) - tensor.size))
    return path


def _arrays(imatrix: Imatrix) -> Iterator[tuple[str, Floats]]:
    """The tensors of the file, in its order: as many matrices of sums as there are counts."""
    for name, entry in sorted(imatrix.entries.items()):
        counts = entry.counts.astype("<f4").reshape(-1, 1)
        yield name + SUMS, entry.sums.astype("<f4", copy=False).reshape(len(counts), -1)
        yield name + COUNTS, counts


def _trimmed(array: Floats) -> tuple[int, ...]:
    """The shape of a two-dimensional `array` in ne order, as ggml counts dimensions."""
    rows, columns = array.shape
    return (columns, rows) if rows > 1 else (columns,)


# --- GGUF


def _read_gguf(path: Path) -> Imatrix:
    header = read_header(path)
    datasets, chunk_count, chunk_size = (_value(header, key) for key in (DATASETS, CHUNK_COUNT, CHUNK_SIZE))
    if not isinstance(datasets, list) or not all(isinstance(dataset, str) for dataset in datasets):
        raise FormatError(path, DATASETS, "it is not a list of texts")
    for key, number in ((CHUNK_COUNT, chunk_count), (CHUNK_SIZE, chunk_size)):
        if not isinstance(number, int) or not 0 <= number < _MOST:
            raise FormatError(path, key, f"{number!r} is not a number that makes sense")
    entries = dict(_entries(header))
    if not entries:
        raise FormatError(path, "", "the importance matrix is empty")
    return Imatrix(entries, tuple(datasets), chunk_count, chunk_size)


def _value(header: GgufHeader, key: str) -> Any:
    if key not in header.values:
        raise FormatError(
            header.path, key, "the key is missing: this GGUF file is no importance matrix", "Name another file."
        )
    return header.values[key]


def _entries(header: GgufHeader) -> Iterator[tuple[str, Entry]]:
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = {name.removesuffix(suffix) for name in tensors for suffix in (SUMS, COUNTS) if name.endswith(suffix)}
    for name in sorted(names):
        sums, counts = (_numbers(header, tensors.get(name + suffix), name + suffix) for suffix in (SUMS, COUNTS))
        place = f"tensor {name + COUNTS!r}"
        if not (np.isfinite(counts).all() and counts.min() >= 0 and counts.max() <= _LARGEST_COUNT):
            raise FormatError(header.path, place, "these are not counts of tokens")
        if sums.size % counts.size:
            raise FormatError(header.path, place, f"{counts.size} counts do not fit {sums.size} sums")
        rounded = np.floor(counts.astype(np.float64) + 0.5).astype(np.int64)  # as lround does
        yield name, _checked(header.path, name, Entry(sums.reshape(counts.size, -1), rounded))


def _numbers(header: GgufHeader, tensor: GgufTensor | None, name: str) -> Floats:
    """The float32 values of `tensor`, flat."""
    place = f"tensor {name!r}"
    if tensor is None:
        raise FormatError(header.path, place, "it is missing, and its counterpart is there")
    if tensor.type is not Type.F32:
        raise FormatError(header.path, place, f"it is {tensor.type.name}, and has to be F32")
    path = header.parts[tensor.part].path
    with path.open("rb") as file:
        file.seek(header.start_of(tensor))
        data = file.read(tensor.size)
    if len(data) < tensor.size:
        raise FormatError(path, place, "the file ended while it was read", "Did something replace it?")
    return np.frombuffer(data, dtype="<f4")


def _checked(path: Path, name: str, entry: Entry) -> Entry:
    if entry.fault:
        raise FormatError(path, f"entry {name!r}", entry.fault)
    return entry


# --- the legacy format


class _Legacy:
    """A legacy file, read front to back."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._left = path.stat().st_size
        file.seek(0)

    @property
    def at_end(self) -> bool:
        return self._left == 0

    def take(self, count: int, place: str) -> bytes:
        """The next `count` bytes; `FormatError` where there are fewer, or where `count` is none."""
        data = self._file.read(count) if 0 <= count <= self._left else b""
        if len(data) != count:
            raise FormatError(
                self.path,
                place,
                f"it wants {count} bytes, and {self._left} are left: "
                "the file is damaged, or is no importance matrix at all",
            )
        self._left -= count
        return data

    def number(self, place: str, least: int = 0) -> int:
        """The next number; `FormatError` where it is less than `least`."""
        (number,) = _INT32.unpack(self.take(_INT32.size, place))
        if number < least:
            raise FormatError(self.path, place, f"{number} makes no sense here")
        return int(number)


def _read_legacy(file: _Legacy) -> Imatrix:
    entries: dict[str, Entry] = {}
    for number in range(file.number("number of entries", 1)):
        place = f"entry {number + 1}"
        name = file.take(file.number(f"{place}, length of its name", 1), place).decode("utf-8", "surrogateescape")
        if name in entries:
            raise FormatError(file.path, place, f"the name {name!r} occurs twice")
        chunks = file.number(f"{place}, chunks")
        size = file.number(f"{place}, number of values", 1)
        sums = np.frombuffer(file.take(size * 4, f"{place}, values of {name!r}"), dtype="<f4").reshape(1, -1)
        entries[name] = _checked(file.path, name, Entry(sums, np.array([chunks], dtype=np.int64)))
    # What follows came later to the format, and is not always there.
    chunk_count = 0 if file.at_end else file.number("number of chunks")
    length = 0 if file.at_end else file.number("length of the dataset's name")
    dataset = file.take(length, "name of the dataset").decode("utf-8", "surrogateescape")
    return Imatrix(entries, (dataset,) if dataset else (), chunk_count, 0, legacy=True)
