"""Models that consist of names and shapes, one for each exception in llama.cpp's choice of types.

Imports nothing of Espalier: the recorder of tests/oracle_recorder uses it too.
"""

from __future__ import annotations

from dataclasses import dataclass

Tensors = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Mock:
    """A model without weights; `tensors` (name, shape in ne order) in llama.cpp's order."""

    architecture: str
    layers: int
    heads: int
    key_heads: int
    experts: int
    tensors: Tensors


ATTENTION = ("attn_k.weight", "attn_output.weight", "attn_q.weight", "attn_v.weight")
FUSED_ATTENTION = ("attn_output.weight", "attn_qkv.weight")
LATENT_ATTENTION = ("attn_k_b.weight", "attn_kv_a_mqa.weight", "attn_kv_b.weight", "attn_output.weight",
                    "attn_q_a.weight", "attn_q_b.weight", "attn_v_b.weight")  # fmt: skip
DENSE = ("ffn_down.weight", "ffn_gate.weight", "ffn_up.weight")
EXPERTS = ("ffn_down_exps.weight", "ffn_gate_exps.weight", "ffn_gate_inp.weight", "ffn_up_exps.weight")
KEPT = (
    "attn_norm.weight",
    "attn_q.bias",
    "attn_rel_b.weight",
    "indexer.k_proj.weight",
    "laurel_l.weight",
    "shortconv.conv.weight",
    "ssm_conv1d.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
)
GLM5_NEXT = (
    *("hc_attn_fn.weight", "indexer.attn_q_b.weight", "indexer.proj.weight", "indexer_compressor_gate.weight"),
    *("nextn.eh_proj.weight", "ssm_beta.weight", "ssm_f_a.weight", "ssm_g_b.weight"),
)
OUTSIDE = ("output.weight", "per_layer_model_proj.weight", "position_embd.weight", "token_embd.weight",
           "token_types.weight")  # fmt: skip


def _tensors(
    layers: int, parts: tuple[str, ...], *, experts: int = 0, columns: int = 256, outside: tuple[str, ...] = OUTSIDE
) -> Tensors:
    def shape(name: str) -> tuple[int, ...]:
        if name.endswith(".bias"):
            return (columns,)
        return (columns, 2, experts) if "_exps" in name else (columns, 2)

    inside = [f"blk.{layer}.{part}" for layer in range(layers) for part in sorted(parts)]
    return tuple((name, shape(name)) for name in [*sorted(outside), *inside])


def _model(
    architecture: str,
    layers: int,
    parts: tuple[str, ...],
    *,
    heads: int = 8,
    key_heads: int = 4,
    experts: int = 0,
    columns: int = 256,
    outside: tuple[str, ...] = OUTSIDE,
) -> Mock:
    tensors = _tensors(layers, parts, experts=experts, columns=columns, outside=outside)
    return Mock(architecture, layers, heads, key_heads, experts, tensors)


TIED = ("token_embd.weight",)

MODELS: dict[str, Mock] = {
    "dense": _model("llama", 20, (*ATTENTION, *DENSE, *KEPT)),
    "dense with shared keys": _model("llama", 20, (*ATTENTION, *DENSE), heads=16, key_heads=4),
    "dense and tied": _model("qwen3", 17, (*ATTENTION, *DENSE), outside=("per_layer_token_embd.weight", *TIED)),
    "rows of 96": _model("llama", 9, (*ATTENTION, *DENSE), columns=96),
    "rows of 80": _model("llama", 9, (*ATTENTION, *DENSE), columns=80),
    "llama 70B": _model("llama", 80, (*ATTENTION, *DENSE), heads=64, key_heads=8),
    "llama 65B": _model("llama", 80, (*ATTENTION, *DENSE), heads=64, key_heads=64),
    "falcon": _model("falcon", 20, (*FUSED_ATTENTION, *DENSE)),
    "falcon tied": _model("falcon", 32, (*FUSED_ATTENTION, *DENSE), key_heads=1, outside=TIED),
    "two experts": _model("llama", 12, (*ATTENTION, *EXPERTS), experts=2),
    "four experts": _model("llama", 12, (*ATTENTION, *EXPERTS), experts=4),
    "eight experts": _model("llama", 32, (*ATTENTION, *EXPERTS), experts=8, heads=32, key_heads=8),
    "eight experts tied": _model("llama", 32, (*ATTENTION, *EXPERTS), experts=8, key_heads=8, outside=TIED),
    "many experts and a dense part": _model("qwen3moe", 25, (*ATTENTION, *DENSE, *EXPERTS), experts=64),
    "latent attention": _model("deepseek2", 27, (*LATENT_ATTENTION, *EXPERTS), experts=32, key_heads=8),
    "glm5-next": _model("glm5-next", 10, (*LATENT_ATTENTION, *EXPERTS, *GLM5_NEXT), experts=32),
    "bailingmoe3": _model("bailingmoe3", 10, (*LATENT_ATTENTION, *EXPERTS), experts=32),
    "a single layer": _model("llama", 1, (*ATTENTION, *DENSE)),
}
