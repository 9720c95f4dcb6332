"""GLM 4.5, 4.6 and Air: dense layers first, a shared expert, sigmoid routing with a correction bias."""

from __future__ import annotations

from studio.families.base import Family, block_tensors
from studio.families.layers import after_dense

GLM4_MOE = Family(
    name="glm4_moe",
    model_types=("glm4_moe",),
    gguf_architecture="glm4moe",
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
    draft_layers_key="num_nextn_predict_layers",
)
