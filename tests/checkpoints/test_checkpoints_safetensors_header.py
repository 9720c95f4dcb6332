"""Reading a safetensors header: as the official library does, refusing what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from studio.checkpoints.safetensors_header import MAX_HEADER_BYTES, header_bytes, read_header
from studio.errors import EspalierError, FormatError, InputError, UnsupportedError

Builder = Callable[..., bytes]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("varied") / "varied.safetensors"
    arrays = {
        "ünïcode": np.arange(6, dtype=np.float32).reshape(2, 3),
        "empty": np.zeros((0, 4), dtype=np.float16),
        "scalar": np.array(3, dtype=np.int64),
        "bytes": np.arange(7, dtype=np.uint8),
    }
    save_file(arrays, path, metadata={"format": "pt", "note": "kept"})
    return path


def test_tensors_and_metadata_are_those_that_the_official_library_reads(varied: Path) -> None:
    header = read_header(varied)
    raw = varied.read_bytes()[header.data_start :]
    with safe_open(varied, "np") as oracle:
        assert header.metadata == oracle.metadata() == {"format": "pt", "note": "kept"}
        assert {one.name for one in header.tensors} == set(oracle.keys())
        for one in header.tensors:
            array = oracle.get_tensor(one.name)
            assert one.shape == array.shape
            assert raw[one.start : one.end] == array.tobytes()


def test_a_header_written_back_reads_the_same(varied: Path, tmp_path: Path) -> None:
    header = read_header(varied)
    written = header_bytes(header.tensors, header.metadata)
    assert len(written) % 8 == 0
    again = tmp_path / "again.safetensors"
    again.write_bytes(written + varied.read_bytes()[header.data_start :])
    assert (read_header(again).tensors, read_header(again).metadata) == (header.tensors, header.metadata)
    with safe_open(again, "np") as oracle:
        assert set(oracle.keys()) == {one.name for one in header.tensors}


def test_a_header_that_lies_is_refused_as_the_official_library_refuses_it(
    build_safetensors: Builder, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.safetensors"

    def refused(message: str, data: bytes, error: type[EspalierError] = FormatError) -> None:
        path.write_bytes(data)
        with pytest.raises(error, match=message):
            read_header(path)
        with pytest.raises(SafetensorError), safe_open(path, "np"):
            pass

    def tensor(start: Any = 0, end: Any = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}

    eight = bytes(8)
    refused("does not fit a file of 0 bytes", b"")
    refused("does not fit", eight)
    refused("does not fit", build_safetensors({}, length=1 << 63))
    refused("does not fit", build_safetensors({"a": tensor()}, eight)[:40])
    refused("does not fit", build_safetensors({}, length=MAX_HEADER_BYTES + 1))
    refused("not JSON", build_safetensors(b"{" * 20))
    refused("not JSON", build_safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000))
    refused("not JSON", build_safetensors(b'{"\xff": 1}'))
    refused("not a JSON object", build_safetensors([1, 2]))
    refused("dtype, shape and data_offsets", build_safetensors({"a": {"dtype": "F32"}}, eight))
    refused("make no sense", build_safetensors({"a": tensor(shape=[-2])}, eight))
    refused("make no sense", build_safetensors({"a": tensor(shape=["2"])}, eight))
    refused("make no sense", build_safetensors({"a": tensor(end=8.5)}, eight))
    refused("does not take the 8 bytes", build_safetensors({"a": tensor(shape=[1 << 61])}, eight))
    refused("does not take", build_safetensors({"a": tensor(start=8, end=0)}, eight))
    refused("the tensors take 8 bytes and the file holds 7", build_safetensors({"a": tensor()}, bytes(7)))
    refused("the tensors take 8 bytes and the file holds 9", build_safetensors({"a": tensor()}, bytes(9)))
    refused("leaves a hole", build_safetensors({"a": tensor(), "b": tensor(12, 20)}, bytes(20)))
    refused("'b'.*overlaps tensor 'a'", build_safetensors({"a": tensor(), "b": tensor(4, 12)}, bytes(12)))
    refused("F77", build_safetensors({"a": tensor(dtype="F77")}, eight), UnsupportedError)
    refused("map names to strings", build_safetensors({"__metadata__": {"a": 1}}))


def test_a_name_that_occurs_twice_is_refused(build_safetensors: Builder, tmp_path: Path) -> None:
    path = tmp_path / "twice.safetensors"
    entry = b'"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    path.write_bytes(build_safetensors(b"{" + entry + b"," + entry + b"}", bytes(4)))
    with pytest.raises(FormatError, match="'a': the name occurs twice"):
        read_header(path)
    with pytest.raises(InputError, match="is not a file"):
        read_header(tmp_path)


@given(cut=st.integers(min_value=1, max_value=400))
def test_a_truncated_file_is_always_refused(varied: Path, tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(varied.read_bytes()[:-cut])
    with pytest.raises(FormatError):
        read_header(path)


@given(changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_read_or_refused_but_never_crashes(
    varied: Path, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(varied.read_bytes())
    for position, value in changes:
        data[position] = value
    path = tmp_path_factory.mktemp("damaged") / "damaged.safetensors"
    path.write_bytes(data)
    with suppress(EspalierError):
        read_header(path)
