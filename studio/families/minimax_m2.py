"""MiniMax M2: sigmoid routing, weights renormalised, and a correction bias beside the router."""

from __future__ import annotations

from studio.families.base import Family, Sampling, block_tensors

MINIMAX_M2 = Family(
    name="minimax_m2",
    model_types=("minimax_m2",),
    gguf_architecture="minimax-m2",
    experts_keys=("num_local_experts",),
    top_k_key="num_experts_per_tok",
    expert_size_key="intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(block="(?:block_sparse_moe|mlp)"),
    correction_bias="mlp.e_score_correction_bias",
    # generation_config.json of MiniMaxAI/MiniMax-M2.
    sampling=Sampling(temperature=1.0, top_p=0.95, top_k=40),
)
