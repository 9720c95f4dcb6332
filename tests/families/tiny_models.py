"""A tiny random model of every family, as transformers builds and saves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LAYERS, EXPERTS, TOP_K, HIDDEN, EXPERT_SIZE = 3, 12, 3, 64, 32

_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
_MLA = {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "shared_expert_intermediate_size": 48,
}
_QWEN = {"num_experts": EXPERTS, "moe_intermediate_size": EXPERT_SIZE, "intermediate_size": 80}
_LOCAL = {"num_local_experts": EXPERTS, "intermediate_size": EXPERT_SIZE}
_ROUTED = {
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "moe_intermediate_size": EXPERT_SIZE,
    "intermediate_size": 80,
    "first_k_dense_replace": 1,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "gemma4_text": {
        "num_experts": EXPERTS,
        "top_k_experts": TOP_K,
        "moe_intermediate_size": EXPERT_SIZE,
        "intermediate_size": 80,
        "enable_moe_block": True,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 128,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        **_ATTENTION,
    },
    "qwen3_moe": {**_QWEN, **_ATTENTION, "norm_topk_prob": True},
    "qwen2_moe": {**_QWEN, **_ATTENTION, "shared_expert_intermediate_size": 48},
    "qwen3_next": {**_QWEN, **_ATTENTION, **_LINEAR},
    "qwen3_5_moe_text": {**_QWEN, **_ATTENTION, **_LINEAR},
    "mixtral": {**_LOCAL, **_ATTENTION},
    "deepseek_v2": {**_ROUTED, **_MLA, "topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2},
    "deepseek_v3": {**_ROUTED, **_MLA, "n_group": 3, "topk_group": 2, "num_nextn_predict_layers": 1},
    "glm4_moe_lite": {**_ROUTED, **_MLA, "n_group": 1, "topk_group": 1},
    "glm4_moe": {**_ROUTED, **_ATTENTION, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 1},
    "gpt_oss": {
        **_LOCAL,
        **_ATTENTION,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "olmoe": {"num_experts": EXPERTS, "intermediate_size": EXPERT_SIZE, **_ATTENTION},
    "minimax_m2": {**_LOCAL, **_ATTENTION, "rotary_dim": 8},
    "phimoe": {**_LOCAL, **_ATTENTION, "num_experts_per_tok": 2},
    "dots1": {**_ROUTED, **_ATTENTION, "n_group": 1, "topk_group": 1},
    "granitemoe": {**_LOCAL, **_ATTENTION},
}
"""`model_type` → what its configuration needs beside `_COMMON`."""

_COMMON = {
    "vocab_size": 128,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_experts_per_tok": TOP_K,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


def tiny(model_type: str, seed: int = 0) -> Any:
    """A model in fp32 whose experts, routers, biases and scales all differ, in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    config = AutoConfig.for_model(model_type, **(_COMMON | CONFIGS[model_type]))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if "e_score_correction_bias" in name:
                values.uniform_(0.0, 0.4)
            elif "per_expert_scale" in name:
                values.uniform_(0.5, 2.0)
            elif "router.scale" in name:
                values.uniform_(1.0, 6.0)
            elif "bias" in name and "expert" in name:
                values.normal_(0.0, 0.3)
            elif "router.bias" in name:
                values.normal_(0.0, 0.5)
            elif values.ndim > 1 and values.is_floating_point():
                values.normal_(0.0, 0.3 if "gate.weight" in name or "router" in name else 0.15)
    return model


def save(model: Any, folder: Path, *, fused: bool = False, shards: str | None = None) -> Path:
    """Write `model` in the layout of the Hub's checkpoints, or as transformers holds it (`fused`)."""
    options = {} if shards is None else {"max_shard_size": shards}
    model.save_pretrained(folder, save_original_format=not fused, **options)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


NAMED_DRAFT = {"qwen3_next", "qwen3_5_moe_text"}
"""Their block that drafts tokens ahead is called `mtp.layers.0`."""
NUMBERED_DRAFT = {"deepseek_v3", "glm4_moe"}
"""Theirs is one more decoder layer."""


def add_draft(folder: Path, model_type: str) -> None:
    """Give the checkpoint in `folder` the block that the published ones have and transformers passes over.

    Its tensors are those of a layer with experts, turned upside down so that they differ.
    """
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    source = f"model.layers.{1 if model_type in NAMED_DRAFT else LAYERS - 1}."
    target = "mtp.layers.0." if model_type in NAMED_DRAFT else f"model.layers.{LAYERS}."
    copies = {name.replace(source, target): values for name, values in tensors.items() if name.startswith(source)}
    norm = tensors["model.norm.weight"]
    joined = tensors["lm_head.weight"].new_ones(HIDDEN, 2 * HIDDEN)
    if model_type in NAMED_DRAFT:
        copies |= {"mtp.fc.weight": joined, "mtp.norm.weight": norm}
        copies |= {"mtp.pre_fc_norm_embedding.weight": norm, "mtp.pre_fc_norm_hidden.weight": norm}
    else:
        copies |= {f"{target}eh_proj.weight": joined}
        copies |= {f"{target}{name}.weight": norm for name in ("enorm", "hnorm", "shared_head.norm")}
    save_file(tensors | {name: values.flip(0).contiguous() for name, values in copies.items()}, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    if model_type == "qwen3_5_moe_text":
        config["mtp_num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config, indent=2))
