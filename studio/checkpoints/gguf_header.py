"""The header of a GGUF file, read in one scan and written back with the least change.

A header with a large vocabulary is mostly two arrays of strings. They are stepped over, never turned into objects, and
copied as the bytes they are; only what changes is encoded anew. Nothing a header claims is believed before it is
checked against the size of the file, so a lying header costs neither memory nor time.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from studio.checkpoints.gguf_values import (
    U32,
    U64,
    Malformed,
    Span,
    Values,
    encode_string,
    string_at,
    value_end,
    value_type,
)
from studio.errors import FormatError, InputError, UnsupportedError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_HEADER_BYTES = 1 << 28
"""Sixteen times the header of Gemma 4: a bound on the memory and time that a lying header can cost."""

_SMALLEST_PAIR = 8 + 4 + 1
_SMALLEST_TENSOR = 8 + 4 + 4 + 8


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as the header describes it.

    `shape` is in ne order (fastest first, so experts come last); `offset` and `size` are bytes, the offset counted from
    the header's `data_start`.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    size: int

    @property
    def elements(self) -> int:
        return _product(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the weights of a GGUF file."""

    path: Path
    version: int
    values: Values = field(repr=False)
    """Key → value, decoded when asked for."""
    tensors: tuple[GgufTensor, ...] = field(repr=False)
    """In the order of the header."""
    alignment: int
    data_start: int
    """Byte of the file at which the weights begin."""
    file_bytes: int

    def tensor(self, name: str) -> GgufTensor:
        """The tensor called `name`; `InputError` when there is none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise InputError(f"{self.path} has no tensor {name}.")

    @property
    def architecture(self) -> str:
        """`general.architecture`; `FormatError` when the file does not say."""
        architecture = self.values.get("general.architecture")
        if not isinstance(architecture, str):
            raise FormatError(self.path, "general.architecture", "the key is missing or not a string")
        return architecture


def tensor_bytes(shape: Sequence[int], kind: GGMLQuantizationType) -> int:
    """Bytes that a tensor of `shape` (ne order) takes in type `kind`; `Malformed` where rows are not whole blocks."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    row = shape[0] if shape else 1
    if row % block:
        raise Malformed(f"rows of {row} values are not whole {kind.name} blocks of {block}")
    return _product(shape) // block * block_bytes


def laid_out(
    tensors: Iterable[tuple[str, Sequence[int], GGMLQuantizationType]], alignment: int
) -> tuple[GgufTensor, ...]:
    """Tensors (name, shape in ne order, type) one after the other, each padded to `alignment`, as llama.cpp wants.

    Raises `Malformed` where rows are not whole blocks of the type.
    """
    placed: list[GgufTensor] = []
    offset = 0
    for name, shape, kind in tensors:
        size = tensor_bytes(shape, kind)
        placed.append(GgufTensor(name, tuple(shape), kind, offset, size))
        offset += aligned(size, alignment)
    return tuple(placed)


def aligned(size: int, alignment: int) -> int:
    """`size` rounded up to a multiple of `alignment`."""
    return -(-size // alignment) * alignment


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of the GGUF file at `path`.

    Raises `InputError` when there is no such file, `FormatError` naming the place where it is damaged or lies, and
    `UnsupportedError` for a byte order, version or tensor type that is not known here, and for a part of a split model.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file.", "Name a .gguf file.")
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(24)
        version, tensor_count, pair_count = _read_start(path, start)
        with mmap.mmap(file.fileno(), min(file_bytes, MAX_HEADER_BYTES), access=mmap.ACCESS_READ) as view:
            _check_count(path, "tensors", tensor_count, _SMALLEST_TENSOR, file_bytes)
            _check_count(path, "metadata keys", pair_count, _SMALLEST_PAIR, file_bytes)
            spans, end = _scan_pairs(path, view, 24, pair_count)
            values = Values(view[:end], spans)
            alignment = _alignment(path, values)
            tensors, end = _scan_tensors(path, view, end, tensor_count, alignment)
    data_start = aligned(end, alignment)
    _refuse_part(path, values)
    _check_extents(path, tensors, data_start, file_bytes)
    return GgufHeader(path, version, values, tensors, alignment, data_start, file_bytes)


def header_bytes(
    header: GgufHeader, *, replace: Mapping[str, Any] | None = None, tensors: Sequence[GgufTensor] | None = None
) -> bytes:
    """The header of a new file, padded to where its weights begin.

    `replace` gives new values: a key keeps its place and type, a new key comes last (wrap its value in `Typed` to
    choose its type), None takes a key away. Every other pair is copied byte by byte. `tensors` are those of the new
    file (see `laid_out`), by default the header's own. Raises `InputError` for a value that does not fit its key.
    """
    changes = dict(replace or {})
    tensors = header.tensors if tensors is None else tensors
    pairs: list[bytes] = []
    try:
        for key in header.values:
            if key not in changes:
                pairs.append(header.values.pair_bytes(key))
            elif (value := changes.pop(key)) is not None:
                pairs.append(header.values.rewritten(key, value))
        pairs += [header.values.rewritten(key, value) for key, value in changes.items() if value is not None]
    except Malformed as error:
        raise InputError(f"The GGUF header of {header.path} cannot be rewritten: {error}.") from None
    parts = [MAGIC, U32.pack(header.version), U64.pack(len(tensors)), U64.pack(len(pairs)), *pairs]
    parts += [_tensor_info(tensor) for tensor in tensors]
    written = b"".join(parts)
    return written.ljust(aligned(len(written), header.alignment), b"\0")


def _tensor_info(tensor: GgufTensor) -> bytes:
    dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return encode_string(tensor.name) + dimensions + struct.pack("<IQ", tensor.type, tensor.offset)


def _read_start(path: Path, start: bytes) -> tuple[int, int, int]:
    """(version, number of tensors, number of pairs) from the first 24 bytes."""
    if start[:4] != MAGIC:
        raise FormatError(path, "byte 0", "this is not a GGUF file", "Name a .gguf file.")
    if len(start) < 24:
        raise FormatError(
            path, f"byte {len(start)}", "the file ends inside its header", "It is truncated; download it again."
        )
    version, tensor_count, pair_count = struct.unpack_from("<IQQ", start, 4)
    if version not in VERSIONS:
        swapped = struct.unpack_from(">I", start, 4)[0]
        problem = "is a big-endian GGUF" if swapped in VERSIONS else f"has GGUF version {version}"
        raise UnsupportedError(f"{path} {problem}; Espalier reads little-endian versions 2 and 3.", "Convert it again.")
    return version, tensor_count, pair_count


def _check_count(path: Path, what: str, count: int, smallest: int, file_bytes: int) -> None:
    if count * smallest > file_bytes:
        raise FormatError(path, "byte 8", f"the header claims {count} {what}, more than {file_bytes} bytes can hold")


def _scan_pairs(path: Path, view: mmap.mmap, position: int, count: int) -> tuple[dict[str, Span], int]:
    """Where each of `count` key–value pairs lies, and where they end."""
    spans: dict[str, Span] = {}
    for number in range(count):
        start = position
        try:
            key, position = string_at(view, position)
            kind = value_type(U32.unpack_from(view, position)[0])
            value = position + 4
            position = value_end(view, value, kind)
        except (struct.error, OverflowError):
            raise _truncated(path, f"metadata key {number}") from None
        except Malformed as problem:
            raise FormatError(path, f"metadata key {number} at byte {start}", str(problem)) from None
        if position > len(view):
            raise _truncated(path, f"metadata key {number}")
        if key in spans:
            raise FormatError(path, f"metadata key {number}", f"the key {key!r} occurs twice")
        spans[key] = Span(kind, start, value, position)
    return spans, position


def _scan_tensors(
    path: Path, view: mmap.mmap, position: int, count: int, alignment: int
) -> tuple[tuple[GgufTensor, ...], int]:
    """The tensor infos from `position` on, and where they end."""
    tensors: dict[str, GgufTensor] = {}
    for number in range(count):
        place = f"tensor {number}"
        try:
            name, position = string_at(view, position)
            place = f"tensor {name!r}"
            dimensions = U32.unpack_from(view, position)[0]
            if dimensions > MAX_DIMENSIONS:
                raise Malformed(f"it has {dimensions} dimensions, and {MAX_DIMENSIONS} are the most")
            shape = struct.unpack_from(f"<{dimensions}Q", view, position + 4)
            position += 4 + 8 * dimensions
            code, offset = struct.unpack_from("<IQ", view, position)
            position += 12
            if not all(0 < size < 1 << 63 for size in shape):
                raise Malformed(f"its shape {shape} makes no sense")
            kind = _tensor_type(path, name, code)
            size = tensor_bytes(shape, kind)
            if offset % alignment:
                raise Malformed(f"its offset {offset} is no multiple of the alignment {alignment}")
        except (struct.error, OverflowError):
            raise _truncated(path, place) from None
        except Malformed as problem:
            raise FormatError(path, place, str(problem)) from None
        if name in tensors:
            raise FormatError(path, place, "the name occurs twice")
        tensors[name] = GgufTensor(name, shape, kind, offset, size)
    return tuple(tensors.values()), position


def _tensor_type(path: Path, name: str, code: int) -> GGMLQuantizationType:
    try:
        return GGMLQuantizationType(code)
    except ValueError:
        raise UnsupportedError(
            f"{path}, tensor {name!r} has type {code}, which Espalier does not know.",
            "A newer Espalier may know it.",
        ) from None


def _alignment(path: Path, values: Values) -> int:
    alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise FormatError(path, "general.alignment", f"{alignment!r} is not a power of two")
    return alignment


def _refuse_part(path: Path, values: Values) -> None:
    parts = values.get("split.count", 0)
    if isinstance(parts, int) and parts > 1:
        raise UnsupportedError(
            f"{path} is one of {parts} parts of a split model, which Espalier does not read yet.",
            "Join them first with llama-gguf-split --merge.",
        )


def _check_extents(path: Path, tensors: Sequence[GgufTensor], data_start: int, file_bytes: int) -> None:
    """Every tensor lies inside the file, and no two share a byte."""
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda one: one.offset):
        if tensor.offset < end:
            raise FormatError(path, f"tensor {tensor.name!r}", f"it overlaps tensor {before!r}")
        end, before = tensor.offset + tensor.size, tensor.name
        if data_start + end > file_bytes:
            raise FormatError(
                path,
                f"tensor {tensor.name!r}",
                f"it ends at byte {data_start + end} and the file at byte {file_bytes}",
                "The file is truncated or damaged; download it again.",
            )


def _truncated(path: Path, place: str) -> FormatError:
    problem = f"the header reaches beyond the end of the file (or beyond {MAX_HEADER_BYTES} bytes)"
    return FormatError(path, place, problem, "The file is truncated or damaged; download it again.")


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
