"""Qwen3.5 and 3.6 MoE: as Qwen3-Next, multimodal, with experts of all numbers in one tensor."""

from __future__ import annotations

from studio.families.base import Family, block_tensors

QWEN3_5_MOE = Family(
    name="qwen3_5_moe",
    model_types=("qwen3_5_moe_text", "qwen3_5_moe"),
    gguf_architecture="qwen35moe",
    experts_keys=("num_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="moe_intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
)
