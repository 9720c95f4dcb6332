"""Mixtral: softmax routing over eight large experts, called w1 (gate), w2 (down) and w3 (up)."""

from __future__ import annotations

from studio.families.base import Family, block_tensors

MIXTRAL = Family(
    name="mixtral",
    model_types=("mixtral",),
    gguf_architecture="llama",
    experts_keys=("num_local_experts",),
    top_k_key="num_experts_per_tok",
    expert_size_key="intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(block="(?:block_sparse_moe|mlp)"),
)
