"""One pass makes all files, pruned on the way, or none."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.checkpoints.prune_gguf import prune_gguf
from studio.errors import (
    Cancelled,
    FormatError,
    InputError,
    MismatchError,
    OutputExistsError,
    ResourceError,
    UnsupportedError,
)
from studio.quantize import chunks, ggml
from studio.quantize.chunks import Journey, Place
from studio.quantize.forecast import predict_bytes
from studio.quantize.tiers import TIERS
from studio.quantize.writer import Options, quantize
from studio.recipes.dropmap import DropMap
from tests.quantize.quantize_headers import sparse_gguf
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
        paths = quantize(source, QUICK, tmp_path, drop=drop, options=Options(overwrite=True))
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
    journey = Journey("x", Type.F32, columns, Place(0, 0), tuple(runs), {})
    rows = [row for chunk in journey.chunks() for row in range(chunk.row, chunk.row + chunk.rows)]
    assert rows == [row for first, count in runs for row in range(first, first + count)]
    targets = [row for chunk in journey.chunks() for row in range(chunk.target, chunk.target + chunk.rows)]
    assert targets == list(range(len(rows)))
    assert all(chunk.rows * columns <= max(columns, chunks.CHUNK_VALUES) for chunk in journey.chunks())
    assert sum(chunk.source_bytes for chunk in journey.chunks()) == journey.source_bytes


# --- the same bytes every time


def test_neither_threads_nor_company_change_the_bytes(source: Path, tmp_path: Path) -> None:
    together = quantize(source, QUICK, tmp_path / "together", drop=a_map(2), options=Options(threads=5))
    for tier, path in zip(QUICK, together, strict=True):
        (alone,) = quantize(source, [tier], tmp_path / "alone", drop=a_map(2), options=Options(threads=1))
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
        ({"options": Options(imatrix=Path("x.gguf"))}, "x.gguf"),
        ({"tiers": ["CD-Q4_K_M"]}, "importance, which is not known"),
        ({"tiers": ["CD-Q4_K_M"], "options": Options(ranking=(0, 8))}, "does not fit a model of 8 layers"),
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
    quantize(source, ["Q4_0", "Q8_0"], tmp_path, options=Options(overwrite=True))
    assert read_header(there).tensors


def test_the_source_itself_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model-BF16.gguf"
    copy.write_bytes(source.read_bytes())
    with pytest.raises(InputError, match="the source itself"):
        quantize(copy, ["BF16"], tmp_path, name="model", options=Options(overwrite=True))
    assert copy.read_bytes() == source.read_bytes()


# --- in several files


@pytest.fixture(scope="module")
def split(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The source in parts of at most 300 kB of weights."""
    folder = tmp_path_factory.mktemp("split")
    return quantize(source, ["BF16"], folder, name="parted", options=Options(split_bytes=300_000))


def test_parts_are_called_as_llama_cpp_calls_them_and_hold_at_most_what_they_may(split: list[Path]) -> None:
    count = len(split)
    assert count > 3
    assert [path.name for path in split] == [f"parted-BF16-{n + 1:05d}-of-{count:05d}.gguf" for n in range(count)]
    whole = read_header(split[0])
    for number, part in enumerate(whole.parts):
        sizes = [tensor.size for tensor in whole.tensors if tensor.part == number]
        assert sum(sizes) <= 300_000 or len(sizes) == 1
        assert part.file_bytes == split[number].stat().st_size


def test_a_split_model_is_the_same_source_by_any_of_its_parts(split: list[Path], source: Path, tmp_path: Path) -> None:
    drop = a_map(1, 4)
    (joined,) = quantize(source, ["BF16"], tmp_path)
    whole = quantize(joined, QUICK, tmp_path / "whole", drop=drop)
    for part in (split[0], split[-1]):
        paths = quantize(part, QUICK, tmp_path / part.name, drop=drop)
        assert paths[0].name == "parted-BF16-Q8_0.gguf"
        assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in whole]
    pruned = prune_gguf(split[1], drop, tmp_path / "pruned.gguf")
    assert tensors(pruned) == tensors(prune_gguf(joined, drop, tmp_path / "whole.gguf"))
    assert "split.count" not in read_header(pruned).values


def test_a_missing_part_is_named(split: list[Path], tmp_path: Path) -> None:
    for path in split[:1] + split[2:]:
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match=f"{split[1].name} is missing"):
        quantize(tmp_path / split[0].name, ["Q8_0"], tmp_path)


def test_a_part_under_a_wrong_name_is_refused(split: list[Path], tmp_path: Path) -> None:
    for path, name in zip(split, [split[0].name, *(other.name for other in split[:0:-1])], strict=True):
        (tmp_path / name).symlink_to(path)
    with pytest.raises(FormatError, match="its name says another part than its header"):
        read_header(tmp_path / split[0].name)
    alone = tmp_path / "model.gguf"
    alone.symlink_to(split[0])
    with pytest.raises(InputError, match="not called as parts are"):
        read_header(alone)


# --- what has to be allowed


def test_requantizing_reads_the_numbers_that_the_first_quantization_left(source: Path, tmp_path: Path) -> None:
    (small,) = quantize(source, ["Q8_0"], tmp_path)
    (twice,) = quantize(small, ["Q4_0"], tmp_path, name="twice", options=Options(requantize=True))
    name = "blk.0.attn_q.weight"
    before, after = tensors(small)[name], tensors(twice)[name]
    rows = gguf.quants.dequantize(np.frombuffer(before[2], np.uint8).reshape(before[1][1], -1), before[0])
    assert after[2] == ggml.quantize_chunk(Type.Q4_0, np.ascontiguousarray(rows)).tobytes()
    assert tensors(twice)["blk.0.ffn_down_exps.weight"][0] is Type.Q4_0


def test_nan_and_infinity_become_zeros_where_that_is_wanted(source: Path, tmp_path: Path) -> None:
    name = "blk.3.ffn_up.weight"
    options = Options(zero_nonfinite=True)
    zero = quantize(poisoned(source, tmp_path / "zero.gguf", name, 0), ["Q4_K_M", "BF16"], tmp_path / "0", name="m")
    for bits in (0x7FC0, 0xFF80):
        broken = poisoned(source, tmp_path / "broken.gguf", name, bits)
        mended = quantize(broken, ["Q4_K_M", "BF16"], tmp_path / f"{bits}", name="m", options=options)
        assert [path.read_bytes() for path in mended] == [path.read_bytes() for path in zero]


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
        quantize(source, ["BF16"], small_disk, options=Options(threads=1), progress=fill)
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


SLOW = """
import sys, time
from pathlib import Path
from studio.quantize.writer import quantize

def slow(done, total, unit="", message=""):
    print(message, flush=True)
    time.sleep(0.05)

quantize(Path(sys.argv[1]), ["Q8_0", "Q4_0"], Path(sys.argv[2]), progress=slow)
"""


def killed(source: Path, out: Path, after: int) -> Path:
    """What a job leaves that is killed when it has reported `after` times: the folder that it worked in."""
    with subprocess.Popen([sys.executable, "-c", SLOW, str(source), str(out)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(after):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    (left,) = out.iterdir()
    assert left.name.startswith(".tiny.partial-resume-")
    return left


def made_before(source: Path, out: Path) -> tuple[list[Path], set[str]]:
    """The files of a whole job in `out`, and the tensors that it did not have to make."""
    skipped: set[str] = set()

    def watch(done: int, total: int, unit: str = "", message: str = "") -> None:
        skipped.update([message.removeprefix("Made before: ")] if message.startswith("Made before: ") else [])

    return quantize(source, ["Q8_0", "Q4_0"], out, progress=watch), skipped


@pytest.mark.parametrize("after", [1, 20, 60])
def test_a_killed_job_leaves_nothing_under_a_final_name_and_the_next_one_goes_on(
    after: int, source: Path, tmp_path: Path
) -> None:
    whole, none = made_before(source, tmp_path / "whole")
    assert not none
    killed(source, tmp_path / "out", after)
    paths, skipped = made_before(source, tmp_path / "out")
    assert len(skipped) >= after - 3  # reports are by chunk, and the embeddings have three
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in whole]
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)


def test_what_does_not_stand_as_it_was_written_is_made_again(source: Path, tmp_path: Path) -> None:
    whole, _ = made_before(source, tmp_path / "whole")
    left = killed(source, tmp_path / "out", 40)
    names = [json.loads(line)["tensor"] for line in (left / "journal.jsonl").read_text().splitlines()]
    with (left / "tiny-Q4_0.gguf").open("r+b") as file:
        header = read_header(whole[1])
        file.seek(header.start_of(header.tensor(names[5])))
        file.write(b"rot")
    with (left / "journal.jsonl").open("a") as journal:
        journal.write('{"tensor": "blk.7.ffn')  # cut off in the middle
    paths, skipped = made_before(source, tmp_path / "out")
    assert names[5] not in skipped and {names[4], names[6]} <= skipped
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in whole]


def test_another_job_of_that_name_does_not_go_on_with_it(source: Path, tmp_path: Path) -> None:
    killed(source, tmp_path / "out", 20)
    (path,) = quantize(source, ["Q8_0"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [path]


def test_two_jobs_do_not_write_the_same_files_at_once(source: Path, tmp_path: Path) -> None:
    def meddle(done: int, total: int, unit: str = "", message: str = "") -> None:
        with pytest.raises(ResourceError, match="Another process is writing"):
            quantize(source, ["Q8_0"], tmp_path)

    (path,) = quantize(source, ["Q8_0"], tmp_path, progress=meddle)
    assert list(tmp_path.iterdir()) == [path]


HUNGRY = """
import re, resource, sys
from pathlib import Path
from studio.quantize.ggml import library
from studio.quantize.writer import Options, quantize

peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
library()
resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
before = peak()
quantize(Path(sys.argv[1]), ["Q8_0", "Q4_0"], Path(sys.argv[2]), options=Options(threads=2))
print(peak() - before)
"""


def test_a_tensor_larger_than_the_memory_there_is_needs_little_of_it(tmp_path: Path) -> None:
    keys = {"block_count": 1, "attention.head_count": 1}
    tensors = [("blk.0.ffn_up.weight", (4096, 131072), Type.BF16)]  # 1 GiB of zeros, in a process of half a GiB
    header = sparse_gguf(tmp_path / "large.gguf", "llama", keys, tensors)
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(header.path), str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 64  # MiB
