"""Qwen3 MoE (30B-A3B, 235B-A22B, Coder): softmax routing, top-k weights renormalised."""

from __future__ import annotations

from studio.families.base import Family, Sampling, block_tensors
from studio.families.layers import sparse_steps

QWEN3_MOE = Family(
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    gguf_architecture="qwen3moe",
    experts_keys=("num_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="moe_intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
    layers_with_experts=sparse_steps,
    # "Best Practices" of the model cards of Qwen/Qwen3-30B-A3B and -235B-A22B.
    sampling=Sampling(temperature=0.7, top_p=0.8, top_k=20),
    sampling_thinking=Sampling(temperature=0.6, top_p=0.95, top_k=20),
)
