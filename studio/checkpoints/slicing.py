"""Copying the kept experts' bytes in as few and as long runs as there are, by the kernel where it can."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import FormatError

CHUNK = 32 << 20
"""Bytes copied between two reports: the longest that a cancelled job runs on."""

_NOT_IN_KERNEL = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF}


@dataclass(frozen=True)
class Piece:
    """`length` bytes from `source` of one file to `target` of another."""

    source: int
    target: int
    length: int


def kept_runs(kept: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first expert, number of experts) of each run of neighbours in `kept`, which ascends."""
    first = 0
    for position in range(1, len(kept) + 1):
        if position == len(kept) or kept[position] != kept[position - 1] + 1:
            yield kept[first], position - first
            first = position


def expert_pieces(
    source: int, target: int, size: int, experts: int, kept: Sequence[int], *, blocks: int = 1
) -> Iterator[Piece]:
    """The kept experts of a tensor of `size` bytes at `source`, which land one after the other at `target`.

    `blocks` is the product of the dimensions before the expert axis: 1 where experts come first (torch) or last (ne).
    """
    one = size // blocks // experts
    for block in range(blocks):
        for first, count in kept_runs(kept):
            yield Piece(source + (block * experts + first) * one, target, count * one)
            target += count * one


def coalesced(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same bytes in fewer pieces: neighbours on both sides become one."""
    current: Piece | None = None
    for piece in pieces:
        if not piece.length:
            continue
        if current is None:
            current = piece
        elif (current.source + current.length, current.target + current.length) == (piece.source, piece.target):
            current = Piece(current.source, current.target, current.length + piece.length)
        else:
            yield current
            current = piece
    if current is not None:
        yield current


def copy_pieces(
    source: Path, target_descriptor: int, pieces: Iterable[Piece], copied: Callable[[int], None] = lambda count: None
) -> None:
    """Copy `pieces` of the file `source` into an open file; `copied` hears how many bytes came since its last call.

    Raises `FormatError` when `source` ends too early, `OSError` when the disk fills up.
    """
    silent_bytes = 0
    with source.open("rb", buffering=0) as file:
        for piece in coalesced(pieces):
            done = 0
            while done < piece.length:
                wanted = min(CHUNK, piece.length - done)
                count = _copy(file.fileno(), target_descriptor, piece.source + done, piece.target + done, wanted)
                if not count:
                    raise FormatError(source, f"byte {piece.source + done}", "the file ended while it was read")
                done += count
                silent_bytes += count
                if silent_bytes >= CHUNK:
                    copied(silent_bytes)
                    silent_bytes = 0
    copied(silent_bytes)


def _copy(source: int, target: int, source_offset: int, target_offset: int, count: int) -> int:
    """Copy up to `count` bytes, inside the kernel where it can; gives how many."""
    if hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, count, source_offset, target_offset)
            if copied:
                return copied
        except OSError as error:
            if error.errno not in _NOT_IN_KERNEL:
                raise
    data = os.pread(source, min(count, 8 << 20), source_offset)
    return os.pwrite(target, data, target_offset)
