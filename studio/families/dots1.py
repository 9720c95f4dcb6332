"""dots.llm1: dense layers first, shared experts, sigmoid routing with a correction bias."""

from __future__ import annotations

from studio.families.base import Family, block_tensors
from studio.families.layers import after_dense

DOTS1 = Family(
    name="dots1",
    model_types=("dots1",),
    gguf_architecture="dots1",
    experts_keys=("n_routed_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="moe_intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
    layers_with_experts=after_dense,
    correction_bias="mlp.gate.e_score_correction_bias",
    groups_key="n_group",
    groups_per_token_key="topk_group",
)
