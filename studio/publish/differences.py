"""Where two files that should be the same differ first: in which key, which tensor, at which byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.checkpoints import gguf_header, safetensors_header
from studio.errors import EspalierError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Difference:
    """The first difference of two files, `before` and `after`."""

    file: str
    place: str
    """Where it lies: a metadata key, a tensor, the header, a line of text."""
    offset: int
    """Byte of `before` from which on they differ."""
    tensor: str = ""
    """The first tensor with other contents, where the difference lies before the weights; and at which of its bytes."""

    def __str__(self) -> str:
        also = f"; the first tensor that differs is {self.tensor}" if self.tensor else ""
        return f"{self.file} differs from byte {self.offset:,} on, in {self.place}{also}."


@dataclass(frozen=True)
class _Extent:
    """A stretch of a file that has a name."""

    name: str
    start: int
    end: int
    kind: str = ""


def first_difference(name: str, before: Path, after: Path) -> Difference | None:
    """Where the files differ first; None where they are the same. `name` is what the difference calls them.

    In GGUF and safetensors files the place is a key or tensor, in anything else a line.
    """
    offset = _differing_byte(before, after)
    if offset is None:
        return None
    try:
        if name.endswith(".gguf"):
            return _in_weights(name, offset, before, after, _gguf_extents)
        if name.endswith(".safetensors"):
            return _in_weights(name, offset, before, after, _safetensors_extents)
    except EspalierError:  # one of them is damaged; the byte can be named all the same
        return Difference(name, "a file that cannot be read as a model", offset)
    return Difference(name, f"line {_line_of(before, offset)}", offset)


def _in_weights(
    name: str, offset: int, before: Path, after: Path, extents: Callable[[Path], list[_Extent]]
) -> Difference:
    mine, theirs = extents(before), extents(after)
    found = next((one for one in mine if one.start <= offset < one.end), None)
    place = "the header" if found is None else f"{found.kind} {found.name!r}"
    if found is not None and found.kind == "tensor":
        return Difference(name, f"{place}, at its byte {offset - found.start:,}", offset)
    return Difference(name, place, offset, _differing_tensor(before, after, mine, theirs))


def _differing_tensor(before: Path, after: Path, mine: Sequence[_Extent], theirs: Sequence[_Extent]) -> str:
    others = {one.name: one for one in theirs if one.kind == "tensor"}
    for one in (one for one in mine if one.kind == "tensor"):
        other = others.get(one.name)
        if other is None:
            return f"{one.name!r}, which is missing"
        if other.end - other.start != one.end - one.start:
            return f"{one.name!r}, of {other.end - other.start:,} bytes instead of {one.end - one.start:,}"
        at = _differing_byte(before, after, one.start, other.start, one.end - one.start)
        if at is not None:
            return f"{one.name!r}, at its byte {at:,}"
    return ""


def _gguf_extents(path: Path) -> list[_Extent]:
    header = gguf_header.read_part(path)
    keys = [_Extent(key, span.start, span.end, "metadata key") for key, span in header.values.spans.items()]
    starts = {tensor.name: header.start_of(tensor) for tensor in header.tensors}
    return keys + [_Extent(one.name, starts[one.name], starts[one.name] + one.size, "tensor") for one in header.tensors]


def _safetensors_extents(path: Path) -> list[_Extent]:
    header = safetensors_header.read_header(path)
    start = header.data_start
    return [_Extent(one.name, start + one.start, start + one.end, "tensor") for one in header.tensors]


def _differing_byte(
    before: Path, after: Path, first: int = 0, second: int = 0, length: int | None = None
) -> int | None:
    """The first byte in which they differ, counted from where the comparison begins; None where they do not.

    It begins at byte `first` of one and `second` of the other, and takes `length` bytes, by default all.
    """
    done = 0
    with before.open("rb") as one, after.open("rb") as other:
        one.seek(first)
        other.seek(second)
        while length is None or done < length:
            wanted = _CHUNK if length is None else min(_CHUNK, length - done)
            mine, theirs = one.read(wanted), other.read(wanted)
            if mine != theirs:
                pairs = enumerate(zip(mine, theirs, strict=False))
                return done + next((at for at, (a, b) in pairs if a != b), min(len(mine), len(theirs)))
            if not mine:
                return None
            done += len(mine)
    return None


def _line_of(path: Path, offset: int) -> int:
    """Number of the line, from 1, that byte `offset` lies in."""
    line = 1
    with path.open("rb") as file:
        while offset > 0 and (chunk := file.read(min(_CHUNK, offset))):
            line += chunk.count(b"\n")
            offset -= len(chunk)
    return line


def differing_layers(before: str, after: str) -> Iterator[str]:
    """A sentence for each layer in which two drop maps (JSON) drop other experts, ascending."""
    mine, theirs = json.loads(before), json.loads(after)
    for layer in mine:
        gone, others = set(mine[layer]), set(theirs.get(layer, ()))
        if gone != others:
            yield f"layer {layer} drops {sorted(others - gone)} instead of {sorted(gone - others)}"
