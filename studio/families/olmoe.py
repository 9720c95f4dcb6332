"""OLMoE: softmax routing, weights not renormalised."""

from __future__ import annotations

from studio.families.base import Family, block_tensors

OLMOE = Family(
    name="olmoe",
    model_types=("olmoe",),
    gguf_architecture="olmoe",
    experts_keys=("num_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
)
