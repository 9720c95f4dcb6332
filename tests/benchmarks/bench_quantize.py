"""Quantizing against llama.cpp's own quantizer, all tiers in one pass against one by one, and predicting sizes.

`quantize_vs_llama` needs an interpreter that has llama-cpp-python, named by ESPALIER_ORACLE_PYTHON (see
tests/oracle_recorder/record_quantize.py). Both end when their bytes are on the disk, both run in a fresh process, they
take turns, and the faster round counts, since only other work on the machine can make one slower.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from studio.checkpoints.gguf_header import read_header
from studio.quantize.forecast import predict_bytes
from studio.quantize.plan import make_plan
from studio.quantize.tiers import TIERS
from studio.quantize.writer import Options, quantize

HIDDEN, EXPERT, DENSE, HEADS = 2816, 704, 2112, 4096  # Gemma 4 26B-A4B
THREADS = os.cpu_count() or 1
ROUNDS = int(os.environ.get("ESPALIER_BENCH_ROUNDS", "1"))

OURS = """
import re, sys, time
from pathlib import Path
from studio.quantize.ggml import library
from studio.quantize.writer import Options, quantize
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
library()
before, start = peak(), time.perf_counter()
options = Options(threads=int(sys.argv[4]), overwrite=True)
quantize(Path(sys.argv[1]), [sys.argv[2]], Path(sys.argv[3]), options=options)
print(time.perf_counter() - start, peak() - before)
"""

THEIRS = """
import ctypes, os, re, sys, time
from pathlib import Path
import llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = int(sys.argv[2]), int(sys.argv[4])
start = time.perf_counter()
failed = llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[3].encode(), ctypes.byref(params))
file = os.open(sys.argv[3], os.O_RDONLY)
os.fsync(file)
peak = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(time.perf_counter() - start, peak, file=sys.stdout)
sys.exit(failed)
"""


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "quantize_vs_llama": quantize_vs_llama,
        "sweep_vs_singles": sweep_vs_singles,
        "predict_658_tensors_ms": predict_658_tensors_ms,
    }


def quantize_vs_llama() -> dict[str, Any]:
    """Time of quantizing to Q4_K_M ÷ that of llama.cpp with as many threads."""
    python = os.environ.get("ESPALIER_ORACLE_PYTHON")
    result: dict[str, Any] = {"value": None, "budget": 1.0, "met": None, "sizes": "not run"}
    if not python:
        return result | {"note": "ESPALIER_ORACLE_PYTHON names no interpreter that has llama-cpp-python"}
    tier = TIERS["Q4_K_M"]
    with tempfile.TemporaryDirectory() as folder:
        source = write_model(Path(folder, "model.gguf"), layers=8, experts=12, vocabulary=4096)
        theirs_out, ours_out = Path(folder, "theirs.gguf"), Path(folder, f"model-{tier.name}.gguf")
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(timed(sys.executable, OURS, source, tier.name, folder, THREADS))
            theirs.append(timed(python, THEIRS, source, tier.file_type, theirs_out, THREADS))
        identical = ours_out.read_bytes() == theirs_out.read_bytes()
        megabytes = source.stat().st_size // 10**6
    (our_seconds, our_memory), (their_seconds, their_memory) = min(ours), min(theirs)
    ratio = round(our_seconds / their_seconds, 3)
    sizes = (
        f"{megabytes} MB, {THREADS} threads, {our_seconds:.1f} s and {their_seconds:.1f} s, identical: {identical}; "
        f"peak memory {our_memory:.0f} MiB and {their_memory:.0f} MiB (which has the mapped source in it)"
    )
    return result | {
        "value": ratio,
        "met": ratio <= 1.0 and identical,
        "sizes": sizes,
        "memory_mib": round(our_memory),
    }


def sweep_vs_singles() -> dict[str, Any]:
    """Time of making all tiers in one pass ÷ the sum of making each by itself."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_model(Path(folder, "model.gguf"), layers=8, experts=8, vocabulary=1024, shrink=11)
        tiers = buildable(source)
        every, every_cpu = compared(source, tiers, Path(folder))
        usual, usual_cpu = compared(source, ["F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"], Path(folder))
        sizes = (
            f"{len(tiers)} tiers of {source.stat().st_size // 10**6} MB, CPU time {every_cpu}; "
            f"F16 to Q4_K_M, which share little: {usual}, CPU time {usual_cpu}"
        )
    return {"value": every, "budget": 0.6, "met": every <= 0.6, "sizes": sizes}


def compared(source: Path, tiers: list[str], folder: Path) -> tuple[float, float]:
    """Time of one job for all `tiers` ÷ the sum over the tiers, on the clock and of the CPU.

    The clock also counts what other work on the machine costs, so the job for all runs before and after the others.
    """
    jobs = [tiers, *([tier] for tier in tiers), tiers]
    clock, cpu = [], []
    for job in jobs:
        before = time.process_time()
        clock.append(seconds(quantize, source, job, folder, options=Options(overwrite=True)))
        cpu.append(time.process_time() - before)

    def ratio(times: list[float]) -> float:
        return round((times[0] + times[-1]) / 2 / sum(times[1:-1]), 3)

    return ratio(clock), ratio(cpu)


def predict_658_tensors_ms() -> dict[str, Any]:
    """Milliseconds to say how large a file becomes, for a number of experts not asked for before."""
    with tempfile.TemporaryDirectory() as folder:
        header = read_header(header_only(Path(folder, "model.gguf")))
        first = seconds(predict_bytes, header, TIERS["Q4_K_M"], 127)
        each = [seconds(predict_bytes, header, TIERS["Q4_K_M"], kept) for kept in range(9, 127)]
    value = round(statistics.median(each) * 1000, 3)
    sizes = f"{len(header.tensors)} tensors; the first question: {first * 1000:.1f} ms"
    return {"value": value, "budget": 5.0, "met": value <= 5.0, "sizes": sizes}


def buildable(source: Path) -> list[str]:
    """The tiers that can be made without an importance matrix."""
    header = read_header(source)
    known = [name for name, tier in TIERS.items() if tier.layers is None]
    return [name for name in known if not make_plan(header, TIERS[name]).without_importance]


def seconds(function: Callable[..., object], *arguments: object, **named: object) -> float:
    start = time.perf_counter()
    function(*arguments, **named)
    return time.perf_counter() - start


def timed(python: str, script: str, *arguments: object) -> list[float]:
    """The numbers that `script` prints last."""
    command = [python, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split("\n")[-2].split()]


Matrices = Iterator[tuple[str, tuple[int, ...]]]


def matrices(layers: int, experts: int, vocabulary: int, shrink: int) -> Matrices:
    """(name, shape in numpy order) of Gemma 4's matrices, with fewer layers, experts and, by `shrink`, values."""
    hidden, expert, dense, heads = (size // shrink for size in (HIDDEN, EXPERT, DENSE, HEADS))
    heads -= heads % 256
    yield "token_embd.weight", (vocabulary, hidden)
    for layer in range(layers):
        block = f"blk.{layer}."
        yield block + "attn_q.weight", (heads, hidden)
        yield block + "attn_k.weight", (heads // 2, hidden)
        yield block + "attn_v.weight", (heads // 2, hidden)
        yield block + "attn_output.weight", (hidden, heads)
        yield block + "ffn_gate.weight", (dense, hidden)
        yield block + "ffn_up.weight", (dense, hidden)
        yield block + "ffn_down.weight", (hidden, dense)
        yield block + "ffn_gate_up_exps.weight", (experts, 2 * expert, hidden)
        yield block + "ffn_down_exps.weight", (experts, hidden, expert)


def write_model(path: Path, *, layers: int, experts: int, vocabulary: int, shrink: int = 1) -> Path:
    """A BF16 GGUF of Gemma 4's shapes with normally distributed weights."""
    writer = started(path, layers, experts)
    generator = np.random.default_rng(0)
    for name, shape in matrices(layers, experts, vocabulary, shrink):
        writer.add_tensor(name, bf16(generator, shape), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def header_only(path: Path) -> Path:
    """A file with as many tensors as Gemma 4 26B-A4B has, and no weights."""
    writer = started(path, 30, 128)
    for name, shape in [*matrices(30, 128, 262_144, 1), *((f"blk.{i % 30}.norm_{i}.weight", (8,)) for i in range(387))]:
        half = np.dtype(np.float16)
        writer.add_tensor_info(name, shape, half, int(np.prod(shape)) * 2, raw_dtype=gguf.GGMLQuantizationType.F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, 60 << 30)
    return path


def started(path: Path, layers: int, experts: int) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "gemma4")
    keys = {
        "block_count": layers,
        "embedding_length": HIDDEN,
        "feed_forward_length": DENSE,
        "expert_feed_forward_length": EXPERT,
        "expert_count": experts,
        "expert_used_count": min(8, experts),
        "context_length": 4096,
        "attention.head_count": 16,
        "attention.head_count_kv": 8,
        "attention.key_length_swa": 256,
        "attention.value_length_swa": 256,
        "attention.sliding_window": 1024,
        "embedding_length_per_layer_input": 0,
    }
    for key, value in keys.items():
        writer.add_uint32(f"gemma4.{key}", value)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_array("gemma4.attention.sliding_window_pattern", [True] * layers)
    return writer


def bf16(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The bytes of BF16 weights."""
    values = generator.standard_normal(shape, dtype=np.float32) / 32
    return (values.view(np.uint32) >> 16).astype("<u2").view(np.uint8)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or benchmarks():
        print(chosen, benchmarks()[chosen]())
