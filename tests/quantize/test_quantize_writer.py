"""One pass makes all files, pruned on the way, or none."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.checkpoints.prune_gguf import prune_gguf
from studio.errors import (
    Cancelled,
    InputError,
    MismatchError,
    OutputExistsError,
    ResourceError,
    UnsupportedError,
)
from studio.quantize import chunks
from studio.quantize.chunks import Journey
from studio.quantize.forecast import predict_bytes
from studio.quantize.tiers import TIERS
from studio.quantize.writer import quantize
from studio.recipes.dropmap import DropMap
from tests.quantize.quantize_source import EXPERTS, LAYERS, TOP_K

QUICK = ["Q8_0", "Q4_0", "BF16", "Q4_K_M"]


@st.composite
def drop_maps(draw: st.DrawFn) -> DropMap:
    count = draw(st.integers(0, EXPERTS - TOP_K))
    ids = st.permutations(range(EXPERTS))
    layers = tuple(tuple(sorted(draw(ids)[:count])) for _ in range(LAYERS))
    return DropMap("gemma4", EXPERTS, layers, tuple(range(LAYERS)))


def a_map(*dropped: int) -> DropMap:
    return DropMap("gemma4", EXPERTS, (dropped,) * LAYERS, tuple(range(LAYERS)))


def tensors(path: Path) -> dict[str, tuple[Type, tuple[int, ...], bytes]]:
    """Name → type, shape, bytes."""
    header, data = read_header(path), path.read_bytes()
    start = header.data_start
    return {
        one.name: (one.type, one.shape, data[start + one.offset : start + one.offset + one.size])
        for one in header.tensors
    }


def poisoned(source: Path, target: Path, tensor: str, bits: int) -> Path:
    """A copy of `source` with one value of `tensor` (BF16) replaced."""
    header, data = read_header(source), bytearray(source.read_bytes())
    one = header.tensor(tensor)
    struct.pack_into("<H", data, header.data_start + one.offset + one.size // 2, bits)
    target.write_bytes(data)
    return target


# --- pruning on the way


@settings(max_examples=12)
@given(drop=drop_maps(), tier=st.sampled_from(QUICK))
def test_pruned_then_quantized_is_quantized_then_pruned_is_both_at_once(
    drop: DropMap, tier: str, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pruned")
    (at_once,) = quantize(source, [tier], folder, drop=drop)
    (pruned_first,) = quantize(prune_gguf(source, drop, folder / "a.gguf"), [tier], folder)
    (whole,) = quantize(source, [tier], folder, name="whole")
    pruned_last = prune_gguf(whole, drop, folder / "b.gguf")
    assert tensors(at_once) == tensors(pruned_first) == tensors(pruned_last)
    assert read_header(at_once).values["gemma4.expert_count"] == drop.kept_count


def test_a_forecast_is_the_size_of_the_file(source: Path, tmp_path: Path) -> None:
    header = read_header(source)
    for drop in (None, a_map(0, 3, 4)):
        paths = quantize(source, QUICK, tmp_path, drop=drop, overwrite=True)
        sizes = [predict_bytes(header, TIERS[tier], drop and drop.kept_count) for tier in QUICK]
        assert [path.stat().st_size for path in paths] == sizes


def test_a_map_of_another_model_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="8 experts"):
        quantize(source, ["Q8_0"], tmp_path, drop=DropMap("gemma4", 8, ((1,),) * LAYERS, tuple(range(LAYERS))))
    with pytest.raises(InputError, match="the router uses 2"):
        quantize(source, ["Q8_0"], tmp_path, drop=a_map(0, 1, 2, 3, 4))
    assert not list(tmp_path.iterdir())


@given(
    columns=st.integers(1, 2000),
    runs=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 3000)), min_size=1, max_size=4),
)
def test_chunks_cover_the_kept_rows_once_and_in_order(columns: int, runs: list[tuple[int, int]]) -> None:
    journey = Journey("x", Type.F32, columns, 0, tuple(runs), {})
    rows = [row for chunk in journey.chunks() for row in range(chunk.row, chunk.row + chunk.rows)]
    assert rows == [row for first, count in runs for row in range(first, first + count)]
    targets = [row for chunk in journey.chunks() for row in range(chunk.target, chunk.target + chunk.rows)]
    assert targets == list(range(len(rows)))
    assert all(chunk.rows * columns <= max(columns, chunks.CHUNK_VALUES) for chunk in journey.chunks())
    assert sum(chunk.source_bytes for chunk in journey.chunks()) == journey.source_bytes


# --- the same bytes every time


def test_neither_threads_nor_company_change_the_bytes(source: Path, tmp_path: Path) -> None:
    together = quantize(source, QUICK, tmp_path / "together", threads=5, drop=a_map(2))
    for tier, path in zip(QUICK, together, strict=True):
        (alone,) = quantize(source, [tier], tmp_path / "alone", threads=1, drop=a_map(2))
        assert alone.read_bytes() == path.read_bytes()


def test_provenance_is_added_under_a_prefix_and_changes_no_tensor(source: Path, tmp_path: Path) -> None:
    story = {"map": "abc", "kept": 4, "recipe": {"drop": 2, "criterion": "é"}}
    (plain,) = quantize(source, ["Q8_0"], tmp_path, name="plain")
    (told,) = quantize(source, ["Q8_0"], tmp_path, name="told", provenance=story)
    values = read_header(told).values
    assert [values["espalier.map"], values["espalier.kept"]] == ["abc", 4]
    assert values["espalier.recipe"] == '{"criterion":"é","drop":2}'
    assert tensors(told) == tensors(plain)
    assert not [key for key in read_header(plain).values if key.startswith("espalier.")]


# --- what is refused


@pytest.mark.parametrize("bits", [0x7FC0, 0xFFC1, 0x7F80, 0xFF80], ids=["nan", "-nan", "inf", "-inf"])
@pytest.mark.parametrize("tier", ["BF16", "Q4_K_M"])
def test_nan_and_infinity_are_refused_by_the_name_of_the_tensor(
    bits: int, tier: str, source: Path, tmp_path: Path
) -> None:
    broken = poisoned(source, tmp_path / "broken.gguf", "blk.3.ffn_up.weight", bits)
    with pytest.raises(InputError, match=r"blk\.3\.ffn_up\.weight holds NaN or infinity"):
        quantize(broken, [tier, "Q8_0"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_weight_that_a_type_cannot_hold_is_refused_by_the_name_of_the_tensor(source: Path, tmp_path: Path) -> None:
    huge = poisoned(source, tmp_path / "huge.gguf", "blk.3.ffn_up.weight", 0x7149)  # 1e30
    quantize(huge, ["BF16"], tmp_path / "out")
    with pytest.raises(InputError, match=r"blk\.3\.ffn_up\.weight has weights too large for F16"):
        quantize(huge, ["F16"], tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"tiers": []}, "No tier"),
        ({"tiers": ["Q8_0", "q8_0"]}, "twice"),
        ({"tiers": ["Q9_0"]}, "no tier 'Q9_0'"),
        ({"name": "../escape"}, "not a file name"),
        ({"imatrix": Path("x.gguf")}, "mportance"),
    ],
)
def test_senseless_requests_are_refused(
    arguments: dict[str, object], complaint: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=complaint):
        quantize(source, **{"tiers": ["Q8_0"], "out_dir": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_quantized_source_is_refused(source: Path, tmp_path: Path) -> None:
    (small,) = quantize(source, ["Q8_0"], tmp_path)
    with pytest.raises(UnsupportedError, match="Q8_0, and Q4_K_M wants"):
        quantize(small, ["Q4_K_M"], tmp_path)


def test_a_result_that_exists_is_kept_unless_told(source: Path, tmp_path: Path) -> None:
    there = tmp_path / "tiny-Q8_0.gguf"
    there.write_text("precious")
    with pytest.raises(OutputExistsError, match="tiny-Q8_0"):
        quantize(source, ["Q4_0", "Q8_0"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there.name] and there.read_text() == "precious"
    quantize(source, ["Q4_0", "Q8_0"], tmp_path, overwrite=True)
    assert read_header(there).tensors


def test_the_source_itself_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model-BF16.gguf"
    copy.write_bytes(source.read_bytes())
    with pytest.raises(InputError, match="the source itself"):
        quantize(copy, ["BF16"], tmp_path, name="model", overwrite=True)
    assert copy.read_bytes() == source.read_bytes()


def test_one_part_of_a_split_model_is_refused(source: Path, tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "gemma4")
    writer.add_uint16("split.count", 2)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((2, 256), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="split"):
        quantize(tmp_path / "part.gguf", ["Q8_0"], tmp_path)


# --- interruptions


def test_a_disk_too_small_for_the_sum_is_known_before_anything_is_written(source: Path, small_disk: Path) -> None:
    with pytest.raises(ResourceError, match="this needs"):
        quantize(source, ["BF16", "F16"], small_disk)
    assert not list(small_disk.iterdir())


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing(source: Path, small_disk: Path) -> None:
    def fill(done: int, total: int, unit: str = "", message: str = "") -> None:
        if not (small_disk / "filler").exists():
            free = os.statvfs(small_disk)
            (small_disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 200_000)))

    with pytest.raises(ResourceError, match="filled up"):
        quantize(source, ["BF16"], small_disk, threads=1, progress=fill)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_cancelled_job_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def cancel(done: int, total: int, unit: str = "", message: str = "") -> None:
        if done > total // 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        quantize(source, ["Q8_0", "Q4_0"], tmp_path, progress=cancel)
    assert not list(tmp_path.iterdir())


def test_progress_counts_the_bytes_of_the_source_s_tensors(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str, str]] = []

    def watch(done: int, total: int, unit: str = "", message: str = "") -> None:
        seen.append((done, total, unit, message))

    quantize(source, ["Q8_0"], tmp_path, progress=watch)
    header: GgufHeader = read_header(source)
    total = sum(tensor.size for tensor in header.tensors)
    assert [row[0] for row in seen] == sorted(row[0] for row in seen)
    assert seen[-1][:3] == (total, total, "bytes")
    assert {row[3] for row in seen} == {tensor.name for tensor in header.tensors}


def test_a_killed_job_leaves_nothing_under_a_final_name_and_the_next_one_cleans_up(
    source: Path, tmp_path: Path
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from studio.quantize.writer import quantize\n"
        "def slow(done, total, unit='', message=''):\n"
        "    print(done, flush=True); time.sleep(0.05)\n"
        "quantize(Path(sys.argv[1]), ['Q8_0', 'Q4_0'], Path(sys.argv[2]), progress=slow)\n"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    left = list((tmp_path / "out").iterdir())
    assert left and all(path.name.startswith(".") for path in left)
    time.sleep(0.1)
    paths = quantize(source, ["Q8_0", "Q4_0"], tmp_path / "out")
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)
