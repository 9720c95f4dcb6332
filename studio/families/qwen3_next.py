"""Qwen3-Next: as Qwen3 MoE, with linear attention, a gated shared expert, and a block that drafts tokens ahead."""

from __future__ import annotations

from studio.families.base import Family, Sampling, block_tensors
from studio.families.layers import sparse_steps

QWEN3_NEXT = Family(
    name="qwen3_next",
    model_types=("qwen3_next",),
    gguf_architecture="qwen3next",
    experts_keys=("num_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="moe_intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
    layers_with_experts=sparse_steps,
    # "Best Practices" of the model cards of Qwen/Qwen3-Next-80B-A3B-Instruct and -Thinking.
    sampling=Sampling(temperature=0.7, top_p=0.8, top_k=20),
    sampling_thinking=Sampling(temperature=0.6, top_p=0.95, top_k=20),
)
