"""Models that are nothing but the weights of experts, as checkpoints and as GGUF."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

LAYERS, EXPERTS, TOP_K, HIDDEN, INNER = 2, 4, 2, 32, 64

Floats = npt.NDArray[np.float32]


def weights(seed: int = 0) -> dict[str, Floats]:
    """gate_up [L, E, 2·inner, hidden], down [L, E, hidden, inner], scale [L, E]."""
    lots = np.random.default_rng(seed)
    return {
        "gate_up": lots.normal(size=(LAYERS, EXPERTS, 2 * INNER, HIDDEN)).astype(np.float32),
        "down": lots.normal(size=(LAYERS, EXPERTS, HIDDEN, INNER)).astype(np.float32),
        "scale": lots.uniform(0.5, 2, size=(LAYERS, EXPERTS)).astype(np.float32),
    }


def write_checkpoint(folder: Path, given: dict[str, Floats]) -> Path:
    """A Gemma 4 checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "gemma4_text",
        "num_hidden_layers": LAYERS,
        "num_experts": EXPERTS,
        "top_k_experts": TOP_K,
        "hidden_size": HIDDEN,
        "moe_intermediate_size": INNER,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors: dict[str, Floats] = {}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.router.per_expert_scale"] = given["scale"][layer]
        tensors[f"{prefix}.experts.gate_up_proj"] = given["gate_up"][layer]
        tensors[f"{prefix}.experts.down_proj"] = given["down"][layer]
        tensors[f"{prefix}.mlp.shared_experts.down_proj.weight"] = given["down"][layer, 0]
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, folder / "model.safetensors")
    return folder


def write_gguf(path: Path, given: dict[str, Floats], kind: gguf.GGMLQuantizationType) -> Path:
    """The same as GGUF, the experts in type `kind`."""
    writer = gguf.GGUFWriter(path, "gemma4")
    numbers = {
        "block_count": LAYERS,
        "expert_count": EXPERTS,
        "expert_used_count": TOP_K,
        "embedding_length": HIDDEN,
        "expert_feed_forward_length": INNER,
    }
    for key, value in numbers.items():
        writer.add_uint32(f"gemma4.{key}", value)
    for layer in range(LAYERS):
        for name in ("gate_up", "down"):
            data = gguf.quants.quantize(given[name][layer], kind)
            writer.add_tensor(f"blk.{layer}.ffn_{name}_exps.weight", data, raw_dtype=kind)
        writer.add_tensor(f"blk.{layer}.ffn_down_exps.scale", given["scale"][layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
