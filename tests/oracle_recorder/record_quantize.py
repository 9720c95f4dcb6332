"""Record what llama.cpp's own quantizer does, for the tests of studio/quantize.

    python3.11 -m venv /tmp/oracle && /tmp/oracle/bin/pip install llama-cpp-python==0.3.36 gguf==0.19.0
    /tmp/oracle/bin/python tests/oracle_recorder/record_quantize.py [--gemma-types TYPES.json] [--imatrix LLAMA-IMATRIX]

llama-cpp-python is built from source (minutes) and is needed only here. Written to tests/quantize/data:

- `digests.json`, `digests_imatrix.json`, `digests_qwen3.json`, `digests_qwen3_imatrix.json`: for every tier that can be
  made, what `llama_model_quantize` makes of the models of quantize_source.py and quantize_qwen3.py without and with the
  importance matrix of quantize_importance.py: sha256 of the file, and of each tensor its type and the first digits of
  sha256. Recorded on x86-64, where ggml is compiled without fused multiply-add; elsewhere K-quants may round otherwise.
- `digests_special.json`: sha256 of the files that it makes with a legacy importance matrix, and with types of its own
  choice overridden by patterns.
- `types.json`, `types_imatrix.json`: the types that llama.cpp chooses for models of other architectures (a dry run over
  files without weights), as index strings: one letter per tensor; with an importance matrix, of tiers that differ.
- `gemma4_types.json`: with --gemma-types, the types it chooses for Gemma 4 26B-A4B with and without an importance
  matrix, from a list of that shape: {"tensors": [[name, shape, type], …], "with_imatrix": {tier: {"types": […],
  "size_mib": …}}, "without_imatrix": …}; written again in the compact form of `types.json`.
- `imatrix.json`: with --imatrix, which names llama.cpp's own tool, sha256 of what that makes of importance matrices.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import re
import string
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "quantize" / "data"
sys.path.insert(0, str(ROOT))

from tests.quantize.quantize_importance import CHUNKS, TEXT, build_imatrix, build_legacy, importance  # noqa: E402
from tests.quantize.quantize_models import MODELS, Mock  # noqa: E402
from tests.quantize.quantize_qwen3 import build_qwen3  # noqa: E402
from tests.quantize.quantize_source import build_source  # noqa: E402

LETTERS = string.ascii_letters
NEED_IMATRIX = ("IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S")
LARGE = {"Q6_K_L": "Q6_K", "Q5_K_L": "Q5_K_M", "Q4_K_L": "Q4_K_M", "Q3_K_XL": "Q3_K_L", "Q2_K_L": "Q2_K"}
NOT_OFFERED = ("NVFP4", "Q1_0")

CUSTOM: dict[str, tuple[str, dict[str, str]]] = {
    "attention and down": ("Q4_K_M", {r"blk\.[0-2]\.attn_v": "q8_0", r"ffn_down\.weight": "q5_k", "attn_k": "q6_k"}),
    "experts": (
        "Q3_K_M",
        {"ffn_gate_up_exps": "iq4_xs", "ffn_down_exps": "iq4_xs", "token_embd": "q5_1", "ffn": "q4_k"},
    ),
}
"""Name → a tier to start from, and patterns with the type of what they match; the first that matches decides."""


def file_types() -> dict[str, int]:
    """Name → value of llama.cpp's file types."""
    prefix = "MOSTLY_"
    known = {kind.name.removeprefix(prefix): int(kind) for kind in gguf.LlamaFileType if kind.name.startswith(prefix)}
    return {name: code for name, code in known.items() if name not in NOT_OFFERED}


# --- llama_model_quantize


def quantize(
    source: Path,
    out: Path,
    file_type: int,
    *,
    large: bool = False,
    imatrix: Path | None = None,
    patterns: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> None:
    """Quantize as llama-quantize does with --imatrix and --tensor-type."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.dry_run = file_type, 2, dry_run
    if large:
        params.token_embedding_type = params.output_tensor_type = int(gguf.GGMLQuantizationType.Q8_0)
    if imatrix is not None:
        weights = importance(imatrix)
        params.imatrix, params.kv_overrides = imatrix_data(weights), imatrix_keys(imatrix.name, len(weights))
    if patterns:
        params.tt_overrides = overrides(patterns)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not make {out.name}")


def imatrix_data(weights: Mapping[str, Any]) -> Any:
    """The entries, ended by one without a name."""
    pointer = ctypes.POINTER(ctypes.c_float)
    entries = [(name.encode(), one.ctypes.data_as(pointer), one.size) for name, one in weights.items()]
    return (llama_cpp.llama_model_imatrix_data * (len(entries) + 1))(*entries)


def imatrix_keys(name: str, entries: int) -> Any:
    """What llama-quantize says in the header about the importance matrix, ended by an empty key."""
    text, number = 3, 0  # LLAMA_KV_OVERRIDE_TYPE_STR, …_INT
    told = (("file", text, name), ("dataset", text, TEXT), ("entries_count", number, entries))
    keys = (llama_cpp.llama_model_kv_override * 5)()
    for key, (what, tag, value) in zip(keys, (*told, ("chunks_count", number, CHUNKS)), strict=False):
        key.tag, key.key = tag, f"quantize.imatrix.{what}".encode()
        if tag == text:
            key.value.val_str = str(value).encode()
        else:
            key.value.val_i64 = value
    return keys


def overrides(patterns: Mapping[str, str]) -> Any:
    """Patterns with their types, ended by one without a pattern."""
    types = [(pattern.encode(), int(gguf.GGMLQuantizationType[kind.upper()])) for pattern, kind in patterns.items()]
    return (llama_cpp.llama_model_tensor_override * (len(types) + 1))(*types)


def digests(source: Path, imatrix: Path | None) -> dict[str, Any]:
    """Every tier of the model `source`, or every one that can be made without `imatrix`."""
    offered = file_types()
    tiers = {name: (code, False) for name, code in offered.items() if imatrix or name not in NEED_IMATRIX}
    tiers |= {name: (offered[mix], True) for name, mix in LARGE.items()}
    recorded: dict[str, Any] = {"source": sha256(source.read_bytes()), "files": {}, "tensors": {}}
    if imatrix:
        recorded["imatrix"] = sha256(imatrix.read_bytes())
    types: dict[str, list[str]] = {}
    for tier, (file_type, large) in sorted(tiers.items()):
        out = source.with_name(f"{tier}.gguf")
        quantize(source, out, file_type, large=large, imatrix=imatrix)
        reader = gguf.GGUFReader(out)
        recorded["files"][tier] = sha256(out.read_bytes())
        recorded["names"] = [one.name for one in reader.tensors]  # the same for all tiers
        recorded["tensors"][tier] = " ".join(sha256(one.data.tobytes())[:8] for one in reader.tensors)
        types[tier] = [one.tensor_type.name for one in reader.tensors]
        out.unlink()
    return recorded | {"types": compact(types)}


def special_digests(source: Path) -> dict[str, Any]:
    """Of the model `source`: with a legacy importance matrix, and with types overridden by patterns."""
    out = source.with_name("out.gguf")
    legacy = build_legacy(source.with_name("imatrix.dat"), source)
    recorded: dict[str, Any] = {"imatrix": sha256(legacy.read_bytes()), "legacy": {}, "custom": {}}
    for tier in ("IQ2_S", "Q4_K_M"):
        quantize(source, out, file_types()[tier], imatrix=legacy)
        recorded["legacy"][tier] = sha256(out.read_bytes())
    for name, (tier, patterns) in CUSTOM.items():
        quantize(source, out, file_types()[tier], patterns=patterns)
        types = {one.name: one.tensor_type.name for one in gguf.GGUFReader(out).tensors}
        recorded["custom"][name] = {
            "tier": tier,
            "patterns": patterns,
            "file": sha256(out.read_bytes()),
            "types": types,
        }
    return recorded


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- types of models without weights

KEYS: dict[str, int | float] = {
    **dict.fromkeys(("context_length", "embedding_length", "feed_forward_length", "expert_feed_forward_length"), 256),
    **dict.fromkeys(("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"), 1e-6),
    **dict.fromkeys(("attention.q_lora_rank", "attention.kv_lora_rank"), 64),
    **dict.fromkeys(("attention.key_length_mla", "attention.value_length_mla", "kda.head_dim"), 64),
    **dict.fromkeys(("expert_shared_count", "leading_dense_block_count", "expert_gating_func"), 1),
    **{"ssm.conv_kernel": 4, "kda.gate_lower_bound": -5.0},
    **{f"attention.indexer.{key}": 4 for key in ("head_count", "key_length", "top_k", "kpool")},
    **{"hyper_connection.count": 4, "hyper_connection.sinkhorn_iterations": 4, "hyper_connection.epsilon": 1e-6},
}
"""What llama.cpp insists on for one architecture or another; none of it bears on types."""

DRY_RUN_LINE = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[[^]]*\], type = +(\S+), size = [^(\n]*(?:\((\S+)\))?\n")


def without_weights(path: Path, mock: Mock) -> Path:
    """Write a BF16 file of `mock` that is as long as its header says, and empty."""
    writer = gguf.GGUFWriter(path, mock.architecture)
    counts = {"block_count": mock.layers, "attention.head_count": mock.heads, "attention.head_count_kv": mock.key_heads}
    if mock.experts:
        counts |= {"expert_count": mock.experts, "expert_used_count": 1}
    for key, value in (KEYS | counts).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{mock.architecture}.{key}", value)
    kind = gguf.GGMLQuantizationType.BF16
    for name, shape in mock.tensors:
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float16), 2 * math.prod(shape), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = sum(gguf.GGUFWriter.ggml_pad(info.nbytes, 32) for info in writer.tensors[0].values())
    with path.open("r+b") as file:
        file.truncate(gguf.GGUFWriter.ggml_pad(path.stat().st_size, 32) + data)
    return path


def types_of(mock: Mock, *, imatrix: bool) -> dict[str, list[str]]:
    """Tier → type of every tensor of `mock`, in the order given."""
    chosen: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = without_weights(Path(folder, "mock.gguf"), mock)
        some = build_imatrix(Path(folder, "imatrix.gguf"), source) if imatrix else None
        for tier, code in file_types().items():
            with Log() as log:
                quantize(source, Path(folder, "none"), code, imatrix=some, dry_run=True)
            found = {name: (new or old).upper() for name, old, new in DRY_RUN_LINE.findall(log.text)}
            chosen[tier] = [found[name] for name, _ in mock.tensors]
    return chosen


class Log:
    """What llama.cpp says while this is open."""

    def __init__(self) -> None:
        self.text = ""
        self._callback = llama_cpp.llama_log_callback(self._add)

    def _add(self, level: int, text: bytes, data: Any) -> None:
        self.text += text.decode("utf-8", "replace")

    def __enter__(self) -> Log:
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p())
        return self

    def __exit__(self, *exception: object) -> None:
        llama_cpp.llama_log_set(QUIET, ctypes.c_void_p())


QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)


def compact(types: dict[str, list[str]]) -> dict[str, Any]:
    """Tier → one letter per tensor, with the letters' meaning."""
    names = sorted({kind for kinds in types.values() for kind in kinds})
    letter = dict(zip(names, LETTERS, strict=False))
    return {
        "letters": {value: key for key, value in letter.items()},
        "tiers": {tier: "".join(letter[kind] for kind in kinds) for tier, kinds in types.items()},
    }


def gemma(path: Path) -> dict[str, Any]:
    given = json.loads(path.read_text())
    offered = file_types()
    recorded: dict[str, Any] = {"tensors": given["tensors"]}
    for key in ("with_imatrix", "without_imatrix"):
        tiers = {tier: entry for tier, entry in given[key].items() if tier in offered}
        upper = {tier: [kind.upper() for kind in entry["types"]] for tier, entry in tiers.items()}
        recorded[key] = compact(upper) | {"size_mib": {tier: entry["size_mib"] for tier, entry in tiers.items()}}
    return recorded


# --- importance matrices


def llama_imatrix(tool: Path, folder: Path, model: Path) -> dict[str, str]:
    """sha256 of what llama-imatrix makes of importance matrices for `model`; see test_quantize_imatrix.py."""
    first, second = (build_imatrix(folder / f"{seed}.gguf", model, seed=seed) for seed in (11, 12))
    legacy = build_legacy(folder / "11.dat", model)
    made = {
        "both": [first, second],
        "converted": [legacy],
        "mixed": [legacy, second],
        "legacy": [first],
    }
    recorded = {}
    for name, files in made.items():
        out = folder / "made"
        command = [tool, "--output-format", "dat" if name == "legacy" else "gguf", "-o", out]
        for file in files:
            command += ["--in-file", file]
        subprocess.run(command, check=True, capture_output=True)
        recorded[name] = sha256(out.read_bytes())
    return recorded


def save(name: str, content: Any) -> None:
    (DATA / name).write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n")
    print("wrote", DATA / name)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gemma-types", type=Path)
    arguments.add_argument("--imatrix", type=Path)
    chosen = arguments.parse_args()
    DATA.mkdir(exist_ok=True)
    if chosen.gemma_types:
        save("gemma4_types.json", gemma(chosen.gemma_types))
    llama_cpp.llama_log_set(QUIET, ctypes.c_void_p())
    plain = {name: types_of(mock, imatrix=False) for name, mock in MODELS.items()}
    save("types.json", {name: compact(tiers) for name, tiers in plain.items()})
    weighed = {name: types_of(mock, imatrix=True) for name, mock in MODELS.items()}
    differing = {
        name: {tier: kinds for tier, kinds in tiers.items() if kinds != plain[name][tier]}
        for name, tiers in weighed.items()
    }
    save("types_imatrix.json", {name: compact(tiers) for name, tiers in differing.items()})
    with tempfile.TemporaryDirectory() as folder:
        for name, build in (("digests_qwen3", build_qwen3), ("digests", build_source)):
            source = build(Path(folder, "source.gguf"))
            imatrix = build_imatrix(Path(folder, "imatrix.gguf"), source)
            save(f"{name}.json", digests(source, None))
            save(f"{name}_imatrix.json", digests(source, imatrix))
        save("digests_special.json", special_digests(source))
        if chosen.imatrix:
            save("imatrix.json", llama_imatrix(chosen.imatrix, Path(folder), source))


if __name__ == "__main__":
    main()
