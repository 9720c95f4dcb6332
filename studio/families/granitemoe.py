"""Granite 3 MoE: softmax over the chosen experts, which lie in one tensor for input and one for output."""

from __future__ import annotations

from studio.families.base import Family, block_tensors

GRANITEMOE = Family(
    name="granitemoe",
    model_types=("granitemoe", "granitemoeshared"),
    gguf_architecture="granitemoe",
    experts_keys=("num_local_experts",),
    top_k_key="num_experts_per_tok",
    expert_size_key="intermediate_size",
    router_module="block_sparse_moe.router",
    experts_module="block_sparse_moe.experts",
    checkpoint_tensors=block_tensors(
        block="block_sparse_moe",
        router=r"router(?:\.layer)?",
        experts=r"(?:experts\.(?:gate_up|down)_proj|(?:input|output)_linear\.weight)",
    ),
)
