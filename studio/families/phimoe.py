"""Phi-3.5-MoE: two experts per token, chosen one after the other (sparsemixer)."""

from __future__ import annotations

from studio.families.base import Family, block_tensors

PHIMOE = Family(
    name="phimoe",
    model_types=("phimoe",),
    gguf_architecture="phimoe",
    experts_keys=("num_local_experts",),
    top_k_key="num_experts_per_tok",
    expert_size_key="intermediate_size",
    router_module="mlp.router",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(block="(?:block_sparse_moe|mlp)", router="(?:gate|router)"),
)
