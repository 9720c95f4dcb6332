"""What a tensor's name says about it: its role, its layer, its place in the file, whether it is quantized at all.

All as llama.cpp sees it (src/llama-quant.cpp and src/llama-model-loader.h, release of llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache


class Role(Enum):
    """The part a tensor plays, as far as the choice of its type depends on it."""

    EMBEDDINGS = auto()
    OUTPUT = auto()
    QUERY = auto()
    KEY = auto()
    VALUE = auto()
    """Attention values, or whatever holds them (fused q, k and v; the second half of a compressed key and value)."""
    ATTENTION_OUTPUT = auto()
    UP = auto()
    GATE = auto()
    """Also a fused gate and up projection, as Gemma 4's experts have."""
    DOWN = auto()
    OTHER = auto()


PER_LAYER_EMBEDDINGS = "per_layer_token_embd.weight"
"""A large table of its own: a type for embeddings is meant for it too, unless an override names it."""

_WHOLE_NAMES = {
    "output.weight": Role.OUTPUT,
    "token_embd.weight": Role.EMBEDDINGS,
    PER_LAYER_EMBEDDINGS: Role.EMBEDDINGS,
}
_PARTS = (  # the first that occurs in the name decides
    ("attn_qkv.weight", Role.VALUE),
    ("attn_kv_b.weight", Role.VALUE),
    ("attn_v.weight", Role.VALUE),
    ("attn_k.weight", Role.KEY),
    ("attn_q.weight", Role.QUERY),
    ("attn_output.weight", Role.ATTENTION_OUTPUT),
    ("ffn_up", Role.UP),
    ("ffn_gate", Role.GATE),
    ("ffn_down", Role.DOWN),
)

_KEPT_PARTS = (
    r"_norm\.weight",
    r"ffn_gate_inp\.weight",  # routers: small, and every token passes through them
    r"ffn_gate_tid2eid\.weight",  # a table of expert ids
    r"altup|laurel|per_layer_model_proj",
    r"ssm_conv1d|shortconv\.conv\.weight",
    r"indexer\.[kq]_proj\.weight",
    r"time_mix_(?:first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight",  # RWKV
    r"attn_rel_b\.weight",
    r"\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger",  # vision
    r"a\.rvq\.codebook|mm\.a\.code_embd",  # audio
)
_KEPT = re.compile("|".join(_KEPT_PARTS) + r"|\A(?:position_embd|token_types)\.weight\Z")
_KEPT_IN = {
    "glm5-next": re.compile(
        r"hc_|indexer\.(?:attn_q_b|attn_k|proj)|indexer_compressor_(?:gate|ape)"
        r"|ssm_(?:[fg]_[ab]|beta)\.weight|attn_kv_a_mqa\.weight|attn_[kv]_b\.weight"
    )
}
"""What is kept in one architecture only."""

_BLOCK = re.compile(r"blk\.(\d+)")


@lru_cache(maxsize=1 << 16)
def role_of(name: str) -> Role:
    """The part that the tensor called `name` plays."""
    if name in _WHOLE_NAMES:
        return _WHOLE_NAMES[name]
    return next((role for part, role in _PARTS if part in name), Role.OTHER)


@lru_cache(maxsize=1 << 16)
def is_quantized(name: str, architecture: str) -> bool:
    """Whether a matrix called `name` is converted at all; vectors never are."""
    if not name.endswith("weight") or _KEPT.search(name):
        return False
    also_kept = _KEPT_IN.get(architecture)
    return also_kept is None or also_kept.search(name) is None


@lru_cache(maxsize=1 << 16)
def block_of(name: str) -> int | None:
    """The number in `blk.N.`, None where a name has none."""
    match = _BLOCK.match(name)
    return int(match.group(1)) if match else None


@lru_cache(maxsize=1 << 16)
def file_order(name: str) -> tuple[int, bytes]:
    """Sort key for the order in which llama.cpp writes tensors: those outside blocks first, then block by block."""
    block = block_of(name)
    return (-1 if block is None else block), name.encode("utf-8", "surrogateescape")
