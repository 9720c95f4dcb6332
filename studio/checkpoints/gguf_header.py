"""The header of a GGUF file, read in one scan and written back with the least change.

A header with a large vocabulary is mostly two arrays of strings. They are stepped over, never turned into objects, and
copied as the bytes they are; only what changes is encoded anew. Nothing a header claims is believed before it is
checked against the size of the file, so a lying header costs neither memory nor time.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

SPLIT_NUMBER, SPLIT_COUNT, SPLIT_TENSORS = "split.no", "split.count", "split.tensors.count"
"""Keys that the files of a split model have."""
_PART_NAME = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")

_SMALLEST_PAIR = 8 + 4 + 1
_SMALLEST_TENSOR = 8 + 4 + 4 + 8


@dataclass(frozen=True)
class GgufTensor:
    """One tensor as the header describes it.

    `shape` is in ne order (fastest first, so experts come last); `offset` and `size` are bytes, the offset counted from
    `data_start` of its part.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    size: int
    part: int = 0
    """Which file of a split model it lies in."""

    @property
    def elements(self) -> int:
        return _product(self.shape)


@dataclass(frozen=True)
class GgufPart:
    """A file of a model: the only one, or one of a split model."""

    path: Path
    data_start: int
    """Byte at which its weights begin."""
    file_bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the weights of a GGUF file, or of all files of a split model together."""

    path: Path
    version: int
    values: Values = field(repr=False)
    """Key → value, decoded when asked for."""
    tensors: tuple[GgufTensor, ...] = field(repr=False)
    """In the order of the header."""
    alignment: int
    parts: tuple[GgufPart, ...]
    """The files, in their order."""

    @property
    def file_bytes(self) -> int:
        """Bytes of all files."""
        return sum(part.file_bytes for part in self.parts)

    @property
    def data_start(self) -> int:
        """Byte of the first file at which its weights begin."""
        return self.parts[0].data_start

    def start_of(self, tensor: GgufTensor) -> int:
        """Byte of its file at which `tensor` begins."""
        return self.parts[tensor.part].data_start + tensor.offset

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
    """Read and check the header of the GGUF file at `path`; for a part of a split model, those of all its parts.

    Raises `InputError` when there is no such file or a part is missing, `FormatError` naming the place where one is
    damaged or lies, and `UnsupportedError` for a byte order, version or tensor type that is not known here.
    """
    header = read_part(Path(path))
    count = header.values.get(SPLIT_COUNT, 0)
    return _joined(header, count) if isinstance(count, int) and count > 1 else header


def read_part(path: Path) -> GgufHeader:
    """Read the header of one file, whether or not the model has other parts. Raises as `read_header`."""
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
    part = GgufPart(path, aligned(end, alignment), file_bytes)
    _check_extents(path, tensors, part.data_start, file_bytes)
    return GgufHeader(path, version, values, tensors, alignment, (part,))


def split_path(stem: Path, number: int, count: int) -> Path:
    """The file of part `number` (from 0) of `count`, as llama.cpp calls it."""
    return stem.with_name(f"{stem.name}-{number + 1:05d}-of-{count:05d}.gguf")


def _joined(header: GgufHeader, count: int) -> GgufHeader:
    """The header of the whole model of which `header` is one of `count` parts."""
    given = header.path
    match = _PART_NAME.fullmatch(given.name)
    if match is None or int(match[2]) != count:
        raise InputError(
            f"{given} is one of {count} parts of a split model, but is not called as parts are.",
            f"llama.cpp's names end in {split_path(Path('NAME'), 0, count).name.removeprefix('NAME')}.",
        )
    tensors: list[GgufTensor] = []
    parts: list[GgufPart] = []
    for number in range(count):
        path = split_path(given.with_name(match[1]), number, count)
        if not path.is_file():
            raise InputError(
                f"{path} is missing: {given.name} is one of {count} parts of a model.",
                "Put all parts into one folder, under the names that they had.",
            )
        one = header if path == given else read_part(path)
        if (one.values.get(SPLIT_NUMBER), one.values.get(SPLIT_COUNT)) != (number, count):
            raise FormatError(path, SPLIT_NUMBER, "its name says another part than its header")
        if number == 0:
            first = one
        parts += one.parts
        tensors += [replace(tensor, part=number) for tensor in one.tensors]
    promised = first.values.get(SPLIT_TENSORS, len(tensors))
    names = {tensor.name for tensor in tensors}
    if len(names) < len(tensors) or promised != len(tensors):
        raise FormatError(
            given, "", f"its {count} parts hold {len(names)} different tensors, and say {promised}", "Fetch them again."
        )
    return replace(first, tensors=tuple(tensors), parts=tuple(parts))


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
