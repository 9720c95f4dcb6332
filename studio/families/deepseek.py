"""DeepSeek V2, V3 and R1, Kimi K2, GLM 4.7 Flash: dense layers first, shared experts, routing in groups.

V2 routes by softmax; V3 by sigmoid, and chooses by scores with a correction bias.
"""

from __future__ import annotations

from studio.families.base import Family, block_tensors
from studio.families.layers import kinds_of_mlp

DEEPSEEK = Family(
    name="deepseek",
    model_types=("deepseek_v3", "deepseek_v2", "kimi_k2", "glm4_moe_lite"),
    gguf_architecture="deepseek2",
    experts_keys=("n_routed_experts", "num_local_experts"),
    top_k_key="num_experts_per_tok",
    expert_size_key="moe_intermediate_size",
    router_module="mlp.gate",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(),
    layers_with_experts=kinds_of_mlp,
    correction_bias="mlp.gate.e_score_correction_bias",
    groups_key="n_group",
    groups_per_token_key="topk_group",
    draft_layers_key="num_nextn_predict_layers",
)
