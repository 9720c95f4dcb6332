"""Importance matrices: read as llama.cpp reads them, written as it writes them, cut with the experts."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from studio.checkpoints.gguf_header import read_header
from studio.errors import EspalierError, FormatError, InputError, MismatchError, OutputExistsError
from studio.quantize.imatrix import Entry, Floats, Imatrix, header_values, merge
from studio.quantize.imatrix_file import read_imatrix, write_imatrix
from tests.quantize.quantize_headers import recorded
from tests.quantize.quantize_importance import (
    CHUNK_SIZE,
    CHUNKS,
    MISSING,
    SCARCE,
    TEXT,
    UNSEEN,
    build_imatrix,
    build_legacy,
    importance,
)
from tests.quantize.quantize_source import EXPERTS, HIDDEN, LAYERS

DOWN, GATE_UP, ROUTER = (f"blk.2.ffn_{part}.weight" for part in ("down_exps", "gate_up_exps", "gate_inp"))
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def given_file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_imatrix(tmp_path_factory.mktemp("imatrix") / "imatrix.gguf", source)


@pytest.fixture(scope="module")
def legacy_file(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_legacy(tmp_path_factory.mktemp("imatrix") / "imatrix.dat", source)


@pytest.fixture(scope="module")
def shapes(source: Path) -> Shapes:
    return {tensor.name: tensor.shape for tensor in read_header(source).tensors}


def entry(sums: Any, counts: Any) -> Entry:
    return Entry(np.array(sums, dtype=np.float32), np.array(counts, dtype=np.int64))


def imatrix(entries: dict[str, Entry], *, datasets: tuple[str, ...] = ("x",), **values: Any) -> Imatrix:
    return Imatrix(entries, datasets, values.pop("chunk_count", 1), values.pop("chunk_size", 512), **values)


def weights(one: Imatrix, name: str) -> Floats:
    found = one.importance(name)
    assert found is not None
    return found


WHOLE = st.integers(0, 1 << 12).map(float)
"""Sums that float32 adds without rounding, in any order."""


@st.composite
def entries(draw: st.DrawFn, values: st.SearchStrategy[float], single: bool | None = None) -> Entry:
    """Of three matrices with four columns, or the same flat with one count."""
    flat = draw(st.booleans()) if single is None else single
    sums = draw(arrays(np.float32, (1, 12) if flat else (3, 4), elements=values))
    return Entry(sums, draw(arrays(np.int64, len(sums), elements=st.integers(0, 1 << 20))))


def imatrices(values: st.SearchStrategy[float]) -> st.SearchStrategy[Imatrix]:
    names = st.sampled_from(["blk.0.ffn_down_exps.weight", "blk.10.attn_q.weight", "output.weight", "é"])
    return st.builds(
        Imatrix,
        st.dictionaries(names, entries(values), min_size=1),
        st.lists(st.text(st.characters(codec="utf-8")), max_size=3).map(tuple),
        st.integers(0, 1 << 20),
        st.just(512),
    )


# --- as llama.cpp


@pytest.mark.parametrize("kind", ["given_file", "legacy_file"])
def test_the_weights_are_those_that_llama_quantize_uses(kind: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(kind)
    read, expected = read_imatrix(path), importance(path)
    assert set(read.entries) == set(expected)
    for name, flat in expected.items():
        found = weights(read, name)
        assert found.dtype == np.float32
        assert np.array_equal(found.reshape(-1), flat), name
    assert all(read.importance(name) is None for name in MISSING)
    assert (read.datasets, read.chunk_count) == ((TEXT,), CHUNKS)
    assert (read.legacy, read.chunk_size) == ((True, 0) if kind == "legacy_file" else (False, CHUNK_SIZE))


def test_what_is_read_is_written_as_it_was(given_file: Path, tmp_path: Path) -> None:
    written = write_imatrix(read_imatrix(given_file), tmp_path / "again.gguf")
    assert written.read_bytes() == given_file.read_bytes()
    with pytest.raises(OutputExistsError):
        write_imatrix(read_imatrix(given_file), written)


def test_files_are_combined_and_converted_as_by_llama_imatrix(
    source: Path, given_file: Path, legacy_file: Path, tmp_path: Path
) -> None:
    made_by_llama = recorded("imatrix.json")
    second = build_imatrix(tmp_path / "second.gguf", source, seed=12)
    assert hashlib.sha256(legacy_file.read_bytes()).hexdigest() == made_by_llama.pop("legacy")
    together = {"both": [given_file, second], "converted": [legacy_file], "mixed": [legacy_file, second]}
    made = {
        name: write_imatrix(merge([read_imatrix(file) for file in files]), tmp_path / f"{name}.gguf")
        for name, files in together.items()
    }
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in made.items()} == made_by_llama
    assert write_imatrix(read_imatrix(legacy_file), tmp_path / "x").read_bytes() == made["converted"].read_bytes()


def test_matrices_without_tokens_count_all_columns_the_same() -> None:
    one = imatrix({"x": entry([[8, 4], [0, 0], [1, 2]], [4, 0, 1]), "y": entry([[6, 2], [4, 8]], [2])})
    assert weights(one, "x").tolist() == [[2, 1], [1, 1], [1, 2]]
    assert weights(one, "y").tolist() == [[3, 1], [2, 4]]
    never_called = imatrix({"x": entry([[8, 4]], [0])}, legacy=True)
    assert weights(never_called, "x").tolist() == [[8, 4]]


def test_header_keys_are_those_of_llama_quantize() -> None:
    one = imatrix({"x": entry([[1]], [1])}, datasets=("a.txt", "b.txt"), chunk_count=7)
    assert list(header_values(one, "m.gguf").items()) == [
        ("quantize.imatrix.file", "m.gguf"),
        ("quantize.imatrix.dataset", "a.txt"),
        ("quantize.imatrix.entries_count", 1),
        ("quantize.imatrix.chunks_count", 7),
    ]
    silent = imatrix({"x": entry([[1]], [1])}, datasets=(), chunk_count=0)
    assert list(header_values(silent, "m")) == ["quantize.imatrix.file", "quantize.imatrix.entries_count"]


def test_long_names_are_cut_to_127_bytes_even_within_a_letter() -> None:
    value = header_values(imatrix({"x": entry([[1]], [1])}), "é" * 80)["quantize.imatrix.file"]
    assert value.encode("utf-8", "surrogateescape") == ("é" * 80).encode()[:127]


# --- invariants


@settings(max_examples=30)
@given(one=imatrices(st.floats(0, width=32, allow_infinity=False)))
def test_what_is_written_is_read_back(one: Imatrix, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write_imatrix(one, tmp_path_factory.mktemp("imatrix") / "one.gguf")
    assert read_imatrix(path).content_hash == one.content_hash


@settings(max_examples=50)
@given(st.tuples(*[imatrices(WHOLE)] * 3))
def test_it_does_not_matter_in_which_groups_matrices_are_merged(three: tuple[Imatrix, ...]) -> None:
    first, second, third = three
    together = merge(three).content_hash
    assert merge([merge([first, second]), third]).content_hash == together
    assert merge([first, merge([second, third])]).content_hash == together


@given(
    entries(st.floats(0, 1e6, width=32), single=False),
    st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
)
def test_the_weights_of_kept_experts_are_those_they_had(one: Entry, kept: list[int]) -> None:
    whole = imatrix({"x": one, "y": one})
    cut = whole.kept({"x": kept, "unknown": [7]})
    assert np.array_equal(weights(cut, "x"), weights(whole, "x")[kept])
    assert np.array_equal(weights(cut, "y"), weights(whole, "y"))


def test_the_hash_is_of_the_content(given_file: Path, shapes: Shapes) -> None:
    one = read_imatrix(given_file)
    shuffled = Imatrix(dict(reversed(one.entries.items())), one.datasets, one.chunk_count, one.chunk_size)
    assert shuffled.content_hash == one.matched(shapes).content_hash == one.content_hash
    assert one.kept({DOWN: [0, 1]}).content_hash != one.content_hash


# --- with a model


@pytest.mark.parametrize("kind", ["given_file", "legacy_file"])
def test_entries_take_the_shape_of_the_model(kind: str, shapes: Shapes, request: pytest.FixtureRequest) -> None:
    read = read_imatrix(request.getfixturevalue(kind))
    one = read.matched(shapes)
    assert one.entries[GATE_UP].sums.shape == (EXPERTS, HIDDEN)
    assert one.entries[ROUTER].sums.shape == (1, HIDDEN)
    cut = one.kept({GATE_UP: [5, 1], ROUTER: [5, 1]})
    assert np.array_equal(weights(cut, GATE_UP), weights(read, GATE_UP).reshape(EXPERTS, HIDDEN)[[5, 1]])
    assert cut.entries[ROUTER] is one.entries[ROUTER]
    smaller = {name: (*shape[:-1], 2) if len(shape) == 3 else shape for name, shape in shapes.items()}
    assert one.kept({name: [5, 1] for name, shape in shapes.items() if len(shape) == 3}).matched(smaller)


def test_an_importance_matrix_of_another_model_is_refused_by_name(given_file: Path, shapes: Shapes) -> None:
    one = read_imatrix(given_file)
    with pytest.raises(MismatchError, match=r"1536 values and 6 counts for blk\.2\.ffn_gate_up_exps\.weight.*8 × 256"):
        one.matched({GATE_UP: (256, 32, 8)})
    with pytest.raises(MismatchError, match="None of the 82 entries"):
        one.matched({"blk.0.attn_qkv.weight": (256, 256)})
    with pytest.raises(MismatchError, match=r"6 experts for blk\.2\.ffn_gate_up_exps\.weight, and expert 6"):
        one.kept({GATE_UP: [0, 6]})
    with pytest.raises(MismatchError, match="6 experts"):
        one.kept({GATE_UP: [-1]})


def test_embeddings_that_do_not_fit_are_left_out() -> None:
    one = imatrix({name: entry([[1, 2]], [1]) for name in ("token_embd.weight", "output.weight")})
    matched = one.matched({"token_embd.weight": (3, 9), "output.weight": (2, 9)})
    assert set(matched.entries) == {"output.weight"}
    assert header_values(matched, "x") == header_values(one, "x")  # llama.cpp counts what the file holds


def test_coverage_names_the_experts_that_saw_little_or_nothing(given_file: Path, legacy_file: Path) -> None:
    coverage = read_imatrix(given_file).coverage
    assert list(coverage) == list(range(LAYERS))
    assert coverage[2].unseen == (UNSEEN,) and coverage[2].scarce() == (SCARCE,)
    assert not coverage[0].unseen and not coverage[0].scarce() and coverage[0].scarce(2.0)
    assert not read_imatrix(legacy_file).coverage


def test_the_worst_tensor_of_a_layer_decides_about_its_coverage() -> None:
    one = imatrix({DOWN: entry([[1], [1]], [9, 9]), GATE_UP: entry([[1], [1]], [9, 0])})
    assert one.coverage[2].unseen == (1,)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (entry([[1, 2]], [1]), entry([[1]], [1])),
        (entry([[1, 2], [3, 4]], [1, 1]), entry([[1], [2], [3], [4]], [1] * 4)),
    ],
)
def test_matrices_that_disagree_are_not_merged(first: Entry, second: Entry) -> None:
    with pytest.raises(MismatchError, match="disagree about x"):
        merge([imatrix({"x": first}), imatrix({"y": first, "x": second})])


def test_merging_nothing_or_too_much_is_refused() -> None:
    with pytest.raises(InputError, match="no importance matrix"):
        merge([])
    with pytest.raises(InputError, match="tensor x: its sums hold NaN or infinity"):
        merge([imatrix({"x": entry([[3e38]], [1])})] * 2)


def test_a_single_count_is_that_of_every_matrix() -> None:
    several, single = imatrix({"x": entry([[1, 2], [3, 4]], [5, 6])}), imatrix({"x": entry([[10, 20, 30, 40]], [100])})
    for merged in (merge([several, single]), merge([single, several])):
        assert merged.entries["x"].sums.tolist() == [[11, 22], [33, 44]]
        assert merged.entries["x"].counts.tolist() == [105, 106]


# --- damaged files

GOOD: dict[str, Floats] = {
    "x.in_sum2": np.ones((2, 4), dtype=np.float32),
    "x.counts": np.ones((2, 1), dtype=np.float32),
}


def gguf_file(path: Path, tensors: dict[str, Any], without: str = "", **values: Any) -> Path:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    keys = {"datasets": ["a"], "chunk_count": 1, "chunk_size": 512, **values}
    for key, value in keys.items():
        if key != without:
            writer.add_key_value(f"imatrix.{key}", value, *_type(value))
    for name, values_of in tensors.items():
        writer.add_tensor(name, values_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _type(value: Any) -> tuple[gguf.GGUFValueType, ...]:
    if isinstance(value, list):
        return (gguf.GGUFValueType.ARRAY,)
    return (gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.INT32,)


@pytest.mark.parametrize(
    ("tensors", "values", "complaint"),
    [
        ({}, {}, "is empty"),
        ({"x.in_sum2": GOOD["x.in_sum2"]}, {}, r"x\.counts.*missing"),
        ({"x.counts": GOOD["x.counts"]}, {}, r"x\.in_sum2.*missing"),
        ({**GOOD, "x.counts": np.ones((2, 1), dtype=np.float16)}, {}, r"x\.counts.*F16, and has to be F32"),
        ({**GOOD, "x.counts": np.ones((3, 1), dtype=np.float32)}, {}, "3 counts do not fit 8 sums"),
        ({**GOOD, "x.counts": np.full((2, 1), -1, dtype=np.float32)}, {}, r"x\.counts.*not counts"),
        ({**GOOD, "x.counts": np.full((2, 1), np.nan, dtype=np.float32)}, {}, r"x\.counts.*not counts"),
        ({**GOOD, "x.counts": np.full((2, 1), 1e30, dtype=np.float32)}, {}, r"x\.counts.*not counts"),
        ({**GOOD, "x.in_sum2": np.full((2, 4), np.inf, dtype=np.float32)}, {}, "'x'.*NaN or infinity"),
        ({**GOOD, "x.in_sum2": np.full((2, 4), -1, dtype=np.float32)}, {}, "'x'.*negative"),
        (GOOD, {"without": "datasets"}, r"imatrix\.datasets.*no importance matrix"),
        (GOOD, {"without": "chunk_size"}, r"imatrix\.chunk_size.*no importance matrix"),
        (GOOD, {"datasets": [1, 2]}, "not a list of texts"),
        (GOOD, {"datasets": "a"}, "not a list of texts"),
        (GOOD, {"chunk_count": -1}, r"imatrix\.chunk_count: -1"),
        (GOOD, {"chunk_size": "many"}, r"imatrix\.chunk_size: 'many'"),
    ],
)
def test_a_senseless_gguf_is_refused_by_place(
    tensors: dict[str, Any], values: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=complaint):
        read_imatrix(gguf_file(tmp_path / "bad.gguf", tensors, **values))


def test_a_model_is_no_importance_matrix(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no importance matrix"):
        read_imatrix(source)
    with pytest.raises(InputError, match="not a file"):
        read_imatrix(tmp_path)


def legacy(*parts: int | bytes) -> bytes:
    return b"".join(part if isinstance(part, bytes) else struct.pack("<i", part) for part in parts)


ONES = np.ones(2, dtype="<f4").tobytes()
ENTRY = legacy(1, b"x", 3, 2, ONES)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "number of entries: it wants 4 bytes, and 0 are left"),
        (legacy(0), "number of entries: 0 makes no sense"),
        (legacy(-5), "number of entries: -5"),
        (legacy(1, -1), "length of its name: -1"),
        (legacy(1, 0), "length of its name: 0"),
        (legacy(1, 2_000_000_000, b"x"), "entry 1: it wants 2000000000 bytes"),
        (legacy(1, 1, b"x", -3, 2, ONES), "chunks: -3"),
        (legacy(1, 1, b"x", 3, 0), "number of values: 0"),
        (legacy(1, 1, b"x", 3, 2_147_483_647, ONES), "values of 'x': it wants 8589934588 bytes, and 8 are left"),
        (legacy(2, ENTRY), "entry 2, length"),
        (legacy(2, ENTRY, ENTRY), "'x' occurs twice"),
        (legacy(1, 1, b"x", 3, 2, np.array([1, np.nan], dtype="<f4").tobytes()), "'x': its sums hold NaN"),
        (legacy(1, 1, b"x", 3, 2, np.array([1, -1], dtype="<f4").tobytes()), "'x': its sums of squares"),
        (legacy(1, ENTRY, -1), "number of chunks: -1"),
        (legacy(1, ENTRY, 1, -1), "dataset's name: -1"),
        (legacy(1, ENTRY, 1, 9, b"a"), "name of the dataset: it wants 9 bytes"),
        (b"A text that is no importance matrix at all.", "or is no importance matrix"),
    ],
)
def test_a_senseless_legacy_file_is_refused_by_place(data: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.dat"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=complaint):
        read_imatrix(path)


def test_what_came_later_to_the_legacy_format_may_be_missing(tmp_path: Path) -> None:
    for trailer, expected in ((b"", (0, ())), (legacy(7), (7, ())), (legacy(7, 1, b"a"), (7, ("a",)))):
        (tmp_path / "old.dat").write_bytes(legacy(1, ENTRY, trailer))
        read = read_imatrix(tmp_path / "old.dat")
        assert (read.chunk_count, read.datasets) == expected


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_an_error_of_ours_or_still_makes_sense(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    good = imatrix({"blk.0.x": entry([[1, 2], [3, 4]], [1, 2])})
    whole = data.draw(
        st.sampled_from([write_imatrix(good, folder / "x.gguf").read_bytes(), legacy(1, ENTRY, 1, 1, b"a")])
    )
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, len(whole)), max_size=3)):
        damaged[place : place + 1] = data.draw(st.binary(max_size=4))
    (folder / "bad").write_bytes(damaged)
    try:
        read = read_imatrix(folder / "bad")
    except EspalierError:
        return
    for name, known in read.entries.items():
        assert not known.fault and np.isfinite(weights(read, name)).all()
