"""Copied runs give the bytes that numpy's take gives."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.checkpoints import slicing
from studio.checkpoints.slicing import Piece, coalesced, copy_pieces, expert_pieces, kept_runs
from studio.errors import FormatError

KEPT = st.integers(1, 24).flatmap(
    lambda experts: st.tuples(st.just(experts), st.sets(st.integers(0, experts - 1), min_size=1).map(sorted))
)


@given(case=KEPT)
def test_runs_cover_the_kept_experts_and_no_two_of_them_touch(case: tuple[int, list[int]]) -> None:
    _, kept = case
    runs = list(kept_runs(kept))
    assert [expert for first, count in runs for expert in range(first, first + count)] == kept
    assert all(first + count < following for (first, count), (following, _) in pairwise(runs))


def copied(tmp_path: Path, data: bytes, pieces: list[Piece], size: int) -> bytes:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    with target.open("wb", buffering=0) as file:
        file.truncate(size)
        copy_pieces(source, file.fileno(), pieces)
    return target.read_bytes()


@given(case=KEPT, blocks=st.integers(1, 3), row=st.integers(1, 9), lead=st.integers(0, 5), seed=st.integers(0, 99))
def test_sliced_bytes_equal_numpy_take(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    case: tuple[int, list[int]],
    blocks: int,
    row: int,
    lead: int,
    seed: int,
) -> None:
    experts, kept = case
    array = np.random.default_rng(seed).integers(0, 256, (blocks, experts, row), dtype=np.uint8)
    expected = np.take(array, kept, axis=1).tobytes()
    pieces = list(expert_pieces(lead, 2, array.nbytes, experts, kept, blocks=blocks))
    data = bytes(lead) + array.tobytes()
    assert copied(tmp_path_factory.mktemp("take"), data, pieces, 2 + len(expected))[2:] == expected
    assert sum(piece.length for piece in coalesced(pieces)) == len(expected)


def test_neighbours_become_one_piece_and_others_do_not() -> None:
    pieces = [Piece(0, 10, 4), Piece(4, 14, 0), Piece(4, 14, 4), Piece(8, 20, 4), Piece(13, 24, 4)]
    assert list(coalesced(pieces)) == [Piece(0, 10, 8), Piece(8, 20, 4), Piece(13, 24, 4)]


def test_files_that_the_kernel_does_not_copy_between_are_copied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(slicing, "CHUNK", 1000)
    data = np.random.default_rng(0).bytes(5000)
    assert copied(tmp_path, data, [Piece(100, 0, 4000)], 4000) == data[100:4100]


def test_every_copied_byte_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slicing, "CHUNK", 1000)
    source, heard = tmp_path / "source", list[int]()
    source.write_bytes(bytes(5000))
    with (tmp_path / "target").open("wb") as target:
        copy_pieces(source, target.fileno(), [Piece(0, 0, 2500), Piece(3000, 2500, 10)], heard.append)
    assert sum(heard) == 2510
    assert len(heard) == 3


def test_a_source_that_shrinks_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="ended while it was read"):
        copied(tmp_path, bytes(10), [Piece(5, 0, 6)], 6)
