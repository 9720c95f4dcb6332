"""gpt-oss: softmax over the chosen experts, biases everywhere, gate and up interleaved, MXFP4 blocks and scales."""

from __future__ import annotations

from studio.families.base import Family, Sampling, block_tensors

GPT_OSS = Family(
    name="gpt_oss",
    model_types=("gpt_oss",),
    gguf_architecture="gpt-oss",
    experts_keys=("num_local_experts",),
    top_k_key="num_experts_per_tok",
    expert_size_key="intermediate_size",
    router_module="mlp.router",
    experts_module="mlp.experts",
    checkpoint_tensors=block_tensors(router="router"),
    transposed=True,
    # README of github.com/openai/gpt-oss, "Recommended Sampling Parameters".
    sampling=Sampling(temperature=1.0, top_p=1.0),
)
