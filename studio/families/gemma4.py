"""Gemma 4 mixture-of-experts (26B-A4B): softmax routing, top-k weights renormalised, a scale per expert."""

from __future__ import annotations

import re

from studio.families.base import ExpertTensor, Family, Sampling

# `model.language_model.` in the multimodal checkpoint, `model.` in a text-only one.
_LAYER = r"model\.(?:language_model\.)?layers\.(?P<layer>\d+)\."

GEMMA4 = Family(
    name="gemma4",
    model_types=("gemma4_text", "gemma4"),
    gguf_architecture="gemma4",
    experts_keys=("num_experts",),
    top_k_key="top_k_experts",
    expert_size_key="moe_intermediate_size",
    router_module="router",
    experts_module="experts",
    checkpoint_tensors=(
        ExpertTensor(re.compile(_LAYER + r"experts\.gate_up_proj")),  # [E, 2·expert, hidden]
        ExpertTensor(re.compile(_LAYER + r"experts\.down_proj")),  # [E, hidden, expert]
        ExpertTensor(re.compile(_LAYER + r"router\.proj\.weight")),  # [E, hidden]
        ExpertTensor(re.compile(_LAYER + r"router\.per_expert_scale")),  # [E]
    ),
    # "Best practices" of the model cards of google/gemma-4-*.
    sampling=Sampling(temperature=1.0, top_p=0.95, top_k=64),
)
