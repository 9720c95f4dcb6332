"""The typed values of a GGUF header: where each one ends, what it says, and how it is written.

Layout of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Everything is little-endian here.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np


class ValueType(IntEnum):
    """Type codes of header values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_SCALARS: dict[ValueType, tuple[struct.Struct, str]] = {  # how struct and numpy call them
    ValueType.UINT8: (struct.Struct("<B"), "<u1"),
    ValueType.INT8: (struct.Struct("<b"), "<i1"),
    ValueType.UINT16: (struct.Struct("<H"), "<u2"),
    ValueType.INT16: (struct.Struct("<h"), "<i2"),
    ValueType.UINT32: (struct.Struct("<I"), "<u4"),
    ValueType.INT32: (struct.Struct("<i"), "<i4"),
    ValueType.FLOAT32: (struct.Struct("<f"), "<f4"),
    ValueType.BOOL: (struct.Struct("<?"), "?"),
    ValueType.UINT64: (struct.Struct("<Q"), "<u8"),
    ValueType.INT64: (struct.Struct("<q"), "<i8"),
    ValueType.FLOAT64: (struct.Struct("<d"), "<f8"),
}
U32 = _SCALARS[ValueType.UINT32][0]
U64 = _SCALARS[ValueType.UINT64][0]


class Malformed(Exception):
    """The bytes at hand are no GGUF value; the reader of the file turns this into a `FormatError`."""


@dataclass(frozen=True)
class Span:
    """Where one key–value pair lies in the header's bytes: [start, end), its value from `value` on."""

    type: ValueType
    start: int
    value: int
    end: int


@dataclass(frozen=True)
class Typed:
    """A value to be written with a given type, where the type cannot be told from the value."""

    type: ValueType
    value: Any
    item: ValueType | None = None
    """Type of the items of an array."""


def value_type(code: int) -> ValueType:
    try:
        return ValueType(code)
    except ValueError:
        raise Malformed(f"value type {code} does not exist") from None


def value_end(buffer: Any, position: int, kind: ValueType) -> int:
    """Where the value of type `kind` at `position` ends, without decoding it."""
    if kind in _SCALARS:
        return position + _SCALARS[kind][0].size
    if kind is ValueType.STRING:
        return strings_end(buffer, position, 1)
    item = value_type(U32.unpack_from(buffer, position)[0])
    count = U64.unpack_from(buffer, position + 4)[0]
    if item is ValueType.ARRAY:
        raise Malformed("an array of arrays, which no reader of GGUF takes")
    smallest = 8 if item is ValueType.STRING else _SCALARS[item][0].size
    if count * smallest > len(buffer) - position:
        raise Malformed(f"an array claims {count} items, more than the file can hold")
    if item is ValueType.STRING:
        return strings_end(buffer, position + 12, count)
    return int(position + 12 + count * smallest)


def strings_end(buffer: Any, position: int, count: int) -> int:
    """Where `count` length-prefixed strings from `position` on end: the loop that opens a large vocabulary."""
    length_at = U64.unpack_from
    for _ in range(count):
        position += 8 + length_at(buffer, position)[0]
    if position > len(buffer):
        raise Malformed("a string reaches beyond the end of the file, or of any header that makes sense")
    return position


def string_at(buffer: Any, position: int) -> tuple[str, int]:
    """The string at `position` and where it ends; bytes that are not UTF-8 are kept as surrogates."""
    end = strings_end(buffer, position, 1)
    return bytes(buffer[position + 8 : end]).decode("utf-8", "surrogateescape"), end


def decode(buffer: bytes, position: int, kind: ValueType) -> Any:
    """The value at `position`: a Python scalar, a string or a list."""
    if kind in _SCALARS:
        return _SCALARS[kind][0].unpack_from(buffer, position)[0]
    if kind is ValueType.STRING:
        return string_at(buffer, position)[0]
    item = value_type(U32.unpack_from(buffer, position)[0])
    count = U64.unpack_from(buffer, position + 4)[0]
    position += 12
    if item is not ValueType.STRING:
        return np.frombuffer(buffer, _SCALARS[item][1], count, position).tolist()
    strings = []
    for _ in range(count):
        text, position = string_at(buffer, position)
        strings.append(text)
    return strings


def encode_string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return U64.pack(len(data)) + data


def encode(value: Any, kind: ValueType, item: ValueType | None = None) -> bytes:
    """The bytes of a value, without its type code; `Malformed` when it does not fit the type."""
    try:
        if kind in _SCALARS:
            return _SCALARS[kind][0].pack(value)
        if kind is ValueType.STRING:
            return encode_string(value)
        item = item if item is not None else type_of(value[0])
        return U32.pack(item) + U64.pack(len(value)) + b"".join(encode(one, item) for one in value)
    except (struct.error, AttributeError, TypeError, IndexError) as error:
        raise Malformed(f"{value!r} cannot be written as {kind.name}: {error}") from None


def type_of(value: Any) -> ValueType:
    """The type that a new key gets: llama.cpp's usual ones (uint32, or a wider or signed one where it must be)."""
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, int):
        if value < 0:
            return ValueType.INT32 if value >= -(1 << 31) else ValueType.INT64
        return ValueType.UINT32 if value < 1 << 32 else ValueType.UINT64
    if isinstance(value, float):
        return ValueType.FLOAT32
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, Sequence):
        return ValueType.ARRAY
    raise Malformed(f"{value!r} has no GGUF type")


class Values(Mapping[str, Any]):
    """A header's key–value pairs, decoded when asked for: large arrays stay bytes until then."""

    def __init__(self, raw: bytes, spans: Mapping[str, Span]) -> None:
        self._raw = raw
        self.spans = spans

    def __getitem__(self, key: str) -> Any:
        span = self.spans[key]
        return decode(self._raw, span.value, span.type)

    def __iter__(self) -> Iterator[str]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    def without(self, keys: Collection[str]) -> Values:
        """The same pairs less those of `keys`."""
        return Values(self._raw, {key: span for key, span in self.spans.items() if key not in keys})

    def pair_bytes(self, key: str) -> bytes:
        """Key, type and value as they stand in the file."""
        span = self.spans[key]
        return self._raw[span.start : span.end]

    def rewritten(self, key: str, value: Any) -> bytes:
        """The pair with another value, of the type that the key has (or gets, when it is new)."""
        span = self.spans.get(key)
        item: ValueType | None = None
        if isinstance(value, Typed):
            kind, item, value = value.type, value.item, value.value
        elif span is None:
            kind = type_of(value)
        else:
            kind = span.type
            if kind is ValueType.ARRAY:
                item = value_type(U32.unpack_from(self._raw, span.value)[0])
        return encode_string(key) + U32.pack(kind) + encode(value, kind, item)
