"""The header of a safetensors file: eight bytes of length, JSON, then the tensors without holes.

The format: https://github.com/huggingface/safetensors#format. Whatever the official reader refuses is refused here too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import FormatError, InputError, UnsupportedError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the official reader."""

METADATA_KEY = "__metadata__"

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


@dataclass(frozen=True)
class SafeTensor:
    """One tensor as the header describes it: shape in torch order, [start, end) in bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class SafetensorsHeader:
    """What stands before the weights of a safetensors file."""

    path: Path
    metadata: Mapping[str, str] | None
    tensors: tuple[SafeTensor, ...] = field(repr=False)
    """In the order of the header."""
    data_start: int
    """Byte of the file at which the weights begin."""


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header of the safetensors file at `path`.

    Raises `InputError` when there is no such file, `FormatError` naming the place where it is damaged or lies, and
    `UnsupportedError` for a data type that is not known here.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file.", "Name a .safetensors file.")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, file_bytes - 8):
            raise FormatError(
                path,
                "byte 0",
                f"a header of {length} bytes does not fit a file of {file_bytes} bytes",
                "The file is truncated, or not a safetensors file.",
            )
        content = _parse(path, file.read(length))
    metadata = _metadata(path, content.pop(METADATA_KEY, None))
    tensors = tuple(_tensor(path, name, entry) for name, entry in content.items())
    _check_extents(path, tensors, file_bytes - 8 - length)
    return SafetensorsHeader(path, metadata, tensors, 8 + length)


def header_bytes(tensors: Iterable[SafeTensor], metadata: Mapping[str, str] | None) -> bytes:
    """The header of a file with these tensors, padded so that the weights begin at a multiple of eight."""
    content: dict[str, Any] = {} if metadata is None else {METADATA_KEY: dict(metadata)}
    for one in tensors:
        content[one.name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [one.start, one.end]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text


def nbytes(dtype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a tensor, None where they are no whole number (types of less than a byte)."""
    bits = DTYPE_BITS[dtype] * math.prod(shape)
    return None if bits % 8 else bits // 8


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise FormatError(path, f"header, {name!r}", "the name occurs twice")
            result[name] = value
        return result

    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            path, "header", f"it is not JSON ({error})", "The file is damaged, or not a safetensors file."
        ) from None
    if not isinstance(content, dict):
        raise FormatError(path, "header", "it is not a JSON object")
    return content


def _metadata(path: Path, value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(path, METADATA_KEY, "it has to map names to strings")
    return value


def _tensor(path: Path, name: str, entry: Any) -> SafeTensor:
    place = f"tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(path, place, "its entry is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise FormatError(path, place, f"shape {shape!r} and data_offsets {offsets!r} make no sense")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise UnsupportedError(f"{path}, {place} has the type {dtype!r}, which Espalier does not know.")
    start, end = offsets
    if nbytes(dtype, shape) != end - start:
        raise FormatError(path, place, f"{dtype} {shape} does not take the {end - start} bytes it claims")
    return SafeTensor(name, dtype, tuple(shape), start, end)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _check_extents(path: Path, tensors: Sequence[SafeTensor], data_bytes: int) -> None:
    """The tensors fill the rest of the file, without holes and overlaps."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda one: (one.start, one.end)):
        if tensor.start != end:
            relation = f"overlaps tensor {before!r}" if tensor.start < end else f"leaves a hole after byte {end}"
            raise FormatError(path, f"tensor {tensor.name!r}", f"it {relation}")
        end, before = tensor.end, tensor.name
    if end != data_bytes:
        raise FormatError(
            path,
            f"tensor {before!r}" if before else "header",
            f"the tensors take {end} bytes and the file holds {data_bytes}",
            "The file is truncated or damaged; download it again.",
        )
