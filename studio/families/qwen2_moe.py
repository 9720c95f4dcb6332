"""Qwen1.5 and Qwen2 MoE: softmax routing, weights not always renormalised, a gated shared expert."""

from __future__ import annotations

from studio.families.base import Family, block_tensors
from studio.families.layers import sparse_steps

QWEN2_MOE = Family(
    name="qwen2_moe",
    model_types=("qwen2_moe",),
    gguf_architecture="qwen2moe",
    experts_keys=("num_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="moe_intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
    layers_with_experts=sparse_steps,
)
