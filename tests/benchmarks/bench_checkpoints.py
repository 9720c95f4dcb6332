"""Pruning against `cp` of the same bytes, and opening a GGUF with Gemma 4's vocabulary.

Both copies read a source that the page cache holds and end when their bytes are on the disk (cp is followed by fsync,
which pruning does by itself). They take turns; medians are compared. The reference's hash is given, as a second build
has it.
"""

from __future__ import annotations

import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType

from studio.checkpoints.gguf_header import laid_out
from studio.checkpoints.safetensors_header import SafeTensor, header_bytes
from studio.recipes.dropmap import DropMap

ROUNDS = 3
LAYERS, EXPERTS, DROPPED = 2, 64, 16
GGUF_LAYERS = 6
HIDDEN, EXPERT = 2816, 704  # Gemma 4 26B-A4B
LARGEST_MIB = 500
TOKENS, MERGES = 262_144, 514_906

PRUNE = """
import re, sys, time
from pathlib import Path
from studio.checkpoints.{module} import {module} as prune
from studio.recipes.dropmap import DropMap
drop = DropMap.from_json(Path(sys.argv[2]).read_text(), {experts})
start = time.perf_counter()
prune(Path(sys.argv[1]), drop, Path(sys.argv[3]), overwrite=True, provenance={{"reference_hash": "0" * 64}})
seconds = time.perf_counter() - start
print(seconds, int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""

OPEN = """
import re, sys, time
from pathlib import Path
from studio.checkpoints.gguf_header import read_header
start = time.perf_counter()
read_header(Path(sys.argv[1]))
seconds = time.perf_counter() - start
print(seconds, int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "prune_safetensors_vs_cp": prune_safetensors_vs_cp,
        "prune_gguf_vs_cp": prune_gguf_vs_cp,
        "open_gguf_262k_vocab_s": open_gguf_262k_vocab_s,
    }


def prune_safetensors_vs_cp() -> dict[str, Any]:
    """Throughput of pruning a safetensors checkpoint ÷ that of cp."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference"
        write_safetensors(reference)
        return compare(reference, "prune_safetensors", Path("model.safetensors"), LAYERS)


def prune_gguf_vs_cp() -> dict[str, Any]:
    """Throughput of pruning a quantized GGUF ÷ that of cp."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.gguf"
        write_gguf(reference)
        return compare(reference, "prune_gguf", Path(), GGUF_LAYERS)


def open_gguf_262k_vocab_s() -> dict[str, Any]:
    """Seconds to read the header of a GGUF with a vocabulary of 262,144 tokens, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        tokens = string_array("tokenizer.ggml.tokens", (b"token%d" % number for number in range(TOKENS)), TOKENS)
        merges = string_array("tokenizer.ggml.merges", (b"left%d right" % number for number in range(MERGES)), MERGES)
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + tokens + merges + bytes(32))
        runs = [child(OPEN, [path]) for _ in range(5)]
    seconds, peak = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
    return {
        "value": round(seconds, 3),
        "budget": 0.5,
        "met": seconds <= 0.5 and peak <= 150,
        "sizes": {"tokens": TOKENS, "merges": MERGES, "peak_mib": round(peak), "peak_budget_mib": 150},
    }


def compare(reference: Path, module: str, written: Path, layers: int) -> dict[str, Any]:
    """Prune and cp in turns; `written` is the file that counts, relative to the result."""
    folder = reference.parent
    out, copy, map_file = folder / "out", folder / "copy", folder / "map.json"
    map_file.write_text(random_map(layers).to_json())
    script = PRUNE.format(module=module, experts=EXPERTS)
    child(script, [reference, map_file, out])  # fills the cache, and gives cp its source
    prune_runs: list[tuple[float, float]] = []
    cp_seconds: list[float] = []

    def prune_once() -> None:
        fresh = folder / "fresh"
        prune_runs.append(child(script, [reference, map_file, fresh]))
        subprocess.run(["rm", "-rf", fresh], check=True)

    def cp_once() -> None:
        cp_seconds.append(timed_cp(out / written, copy))
        copy.unlink()

    for number in range(ROUNDS):
        for once in (cp_once, prune_once) if number % 2 else (prune_once, cp_once):
            os.sync()
            once()
    prune_seconds, peak = [seconds for seconds, _ in prune_runs], max(mebibytes for _, mebibytes in prune_runs)
    size = (out / written).stat().st_size
    ratio = statistics.median(cp_seconds) / statistics.median(prune_seconds)
    return {
        "value": round(ratio, 2),
        "budget": 0.9,
        "met": ratio >= 0.9 and peak <= LARGEST_MIB,
        "sizes": {
            "written_mib": size >> 20,
            "prune_mib_per_s": round((size >> 20) / statistics.median(prune_seconds)),
            "cp_mib_per_s": round((size >> 20) / statistics.median(cp_seconds)),
            "peak_mib": round(peak),
            "peak_budget_mib": LARGEST_MIB,
        },
    }


def timed_cp(source: Path, target: Path) -> float:
    """Seconds that cp needs until the bytes are on the disk."""
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - start


def child(script: str, arguments: Sequence[Path]) -> tuple[float, float]:
    """(seconds, peak MiB) that the script prints."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    root = Path(__file__).parent.parent.parent
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    seconds, mebibytes = map(float, result.stdout.split())
    return seconds, mebibytes


def random_map(layers: int) -> DropMap:
    """Scattered drops: the worst case for copying in runs."""
    random = np.random.default_rng(0)
    dropped = tuple(tuple(sorted(random.permutation(EXPERTS)[:DROPPED].tolist())) for _ in range(layers))
    return DropMap("gemma4", EXPERTS, dropped, tuple(range(layers)))


def write_safetensors(folder: Path) -> None:
    """A checkpoint of 1.4 GiB with experts of the real size."""
    folder.mkdir()
    config = {
        "model_type": "gemma4_text",
        "num_hidden_layers": LAYERS,
        "num_experts": EXPERTS,
        "top_k_experts": 8,
        "hidden_size": HIDDEN,
        "moe_intermediate_size": EXPERT,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors: list[SafeTensor] = []
    for layer in range(LAYERS):
        for name, shape in (
            ("experts.gate_up_proj", (EXPERTS, 2 * EXPERT, HIDDEN)),
            ("experts.down_proj", (EXPERTS, HIDDEN, EXPERT)),
            ("router.proj.weight", (EXPERTS, HIDDEN)),
            ("router.per_expert_scale", (EXPERTS,)),
            ("input_layernorm.weight", (HIDDEN,)),
        ):
            start = tensors[-1].end if tensors else 0
            size = int(np.prod(shape)) * 2
            tensors.append(SafeTensor(f"model.layers.{layer}.{name}", "BF16", shape, start, start + size))
    write_noise(folder / "model.safetensors", header_bytes(tensors, {"format": "pt"}), tensors[-1].end)


def write_gguf(path: Path) -> None:
    """A Q8_0 GGUF of 2.4 GB with experts of the real size."""
    q8, f32 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32
    tensors = []
    for layer in range(GGUF_LAYERS):
        tensors += [
            (f"blk.{layer}.ffn_down_exps.weight", (EXPERT, HIDDEN, EXPERTS), q8),
            (f"blk.{layer}.ffn_gate_up_exps.weight", (HIDDEN, 2 * EXPERT, EXPERTS), q8),
            (f"blk.{layer}.ffn_gate_inp.weight", (HIDDEN, EXPERTS), f32),
            (f"blk.{layer}.ffn_down_exps.scale", (EXPERTS,), f32),
            (f"blk.{layer}.attn_norm.weight", (HIDDEN,), f32),
        ]
    placed = laid_out(tensors, 32)
    numbers = {
        "block_count": GGUF_LAYERS,
        "expert_count": EXPERTS,
        "expert_used_count": 8,
        "embedding_length": HIDDEN,
        "expert_feed_forward_length": EXPERT,
    }
    pairs = [string("general.architecture") + struct.pack("<I", 8) + string("gemma4")]
    pairs += [string(f"gemma4.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    infos = [
        string(one.name) + struct.pack(f"<I{len(one.shape)}QIQ", len(one.shape), *one.shape, one.type, one.offset)
        for one in placed
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs + infos)
    header += bytes(-len(header) % 32)
    write_noise(path, header, placed[-1].offset + placed[-1].size)


def write_noise(path: Path, header: bytes, size: int) -> None:
    noise = np.random.default_rng(0).bytes(64 << 20)
    with path.open("wb") as file:
        file.write(header)
        while size:
            size -= file.write(noise[:size])
        file.flush()
        os.fsync(file.fileno())


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def string_array(key: str, items: Iterator[bytes], count: int) -> bytes:
    packed = b"".join(struct.pack("<Q", len(item)) + item for item in items)
    return string(key) + struct.pack("<IIQ", 9, 8, count) + packed
