"""What llama.cpp's converter makes of a checkpoint's tensors: names before gguf-py's table, and shapes.

Read from its source (llama.cpp, conversion/*.py). Most tensors stay what they are; what follows are the exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gguf.constants import GGMLQuantizationType as Type

from studio.families import Family, MoeShape

Size = tuple[int, ...]
"""A shape in torch order."""
Part = tuple[str, Size, Type | None]
"""Name, shape, and the type where the checkpoint dictates one."""

WITHOUT_DRAFT = {"deepseek2"}
"""Architectures whose converter leaves out the block that drafts tokens ahead."""
_WITH_GATE_UP = {"gemma4"}
"""Architectures whose experts' gate and up projections stay one tensor."""
_DRAFT_NAMES = {
    "mtp.fc.": "eh_proj.",
    "mtp.pre_fc_norm_embedding.": "enorm.",
    "mtp.pre_fc_norm_hidden.": "hnorm.",
    "mtp.norm.": "shared_head.norm.",
}


def text_tensors(
    tensors: Iterable[tuple[str, Size]], family: Family, shape: MoeShape, drafts: range, config: Mapping[str, Any]
) -> Iterator[Part]:
    """The tensors that gguf-py's table is asked for, of those (name, shape) in the checkpoint; each once.

    `drafts` are the numbers of blocks that draft tokens ahead, `config` is the text part of config.json.
    """
    merged = dict.fromkeys(_merged(name, size, family, shape, drafts) for name, size in tensors)
    for name, size in merged:
        if family.gguf_architecture in WITHOUT_DRAFT and any(f"layers.{draft}." in name for draft in drafts):
            continue
        for pattern, parts in _EXCEPTIONS:
            if (pattern in name) and (found := parts(name, size, family.gguf_architecture, config)) is not None:
                yield from found
                break
        else:
            yield name, size, None


def _merged(name: str, size: Size, family: Family, shape: MoeShape, drafts: range) -> tuple[str, Size]:
    """What a tensor becomes part of: the same for all experts of a layer, and for the names of towers and drafts."""
    place = family.place(name)
    if place is not None and place.expert is not None:
        name, size = re.sub(r"(\.experts)\.\d+\.", r"\1.", name, count=1), (shape.experts, *size)
    name = re.sub(r"^(?:model\.language_model|language_model\.model)\.", "model.", name)
    name = name.removeprefix("model.") if name.startswith("model.mtp.") else name
    if drafts and name.startswith("mtp."):
        name = re.sub(r"^mtp\.layers\.(\d+)\.", lambda found: f"model.layers.{drafts[int(found[1])]}.", name)
        for before, after in _DRAFT_NAMES.items():
            if name.startswith(before):
                name = f"model.layers.{drafts[0]}.{after}{name.removeprefix(before)}"
    return name, size


def _gate_up(name: str, size: Size, architecture: str, config: Mapping[str, Any]) -> list[Part] | None:
    """Gate and up, which some checkpoints keep in one tensor, apart."""
    if architecture in _WITH_GATE_UP:
        return None
    if name.endswith("_scales"):
        return []  # they go into the blocks
    kind: Type | None = None
    halves: Size
    if name.endswith("_bias"):  # [E, 2·I]
        halves, suffix = (size[0], size[1] // 2), "bias"
    elif name.endswith("_blocks"):  # [E, 2·I, H / 32, 16]: half a byte a number
        halves, suffix, kind = (size[0], size[1] // 2, size[2] * 32), "weight", Type.MXFP4
    elif architecture == "gpt-oss":  # [E, H, 2·I]
        halves, suffix = (size[0], size[2] // 2, size[1]), "weight"
    else:  # [E, 2·I, H]
        halves, suffix = (size[0], size[1] // 2, size[2]), "weight"
    base = name[: name.index("block_sparse_moe" if "input_linear" in name else "experts.gate_up_proj")]
    base += "mlp.experts." if "input_linear" in name else "experts."
    return [(f"{base}{part}_proj.{suffix}", halves, kind) for part in ("gate", "up")]


def _down(name: str, size: Size, architecture: str, config: Mapping[str, Any]) -> list[Part] | None:
    if architecture != "gpt-oss":
        return None
    if name.endswith("_scales"):
        return []
    base = name[: name.index("down_proj")]
    if name.endswith("_bias"):
        return [(f"{base}down_proj.bias", size, None)]
    if name.endswith("_blocks"):
        return [(f"{base}down_proj.weight", (size[0], size[1], size[2] * 32), Type.MXFP4)]
    return [(f"{base}down_proj.weight", (size[0], size[2], size[1]), None)]


def _latent(name: str, size: Size, architecture: str, config: Mapping[str, Any]) -> list[Part]:
    """Multi-head latent attention with the projection absorbed: keys transposed, and apart from values."""
    rank, nope, value = size[1], int(config["qk_nope_head_dim"]), int(config["v_head_dim"])
    heads = size[0] // (nope + value)
    return [
        (name.replace("kv_b_proj", "k_b_proj"), (heads, rank, nope), None),
        (name.replace("kv_b_proj", "v_b_proj"), (heads, value, rank), None),
    ]


def _joined_linear_attention(name: str, size: Size, architecture: str, config: Mapping[str, Any]) -> list[Part]:
    values = int(config["linear_num_value_heads"]) * int(config["linear_value_head_dim"])
    return [
        (name.replace("in_proj_qkvz", "in_proj_qkv"), (size[0] - values, size[1]), None),
        (name.replace("in_proj_qkvz", "in_proj_z"), (values, size[1]), None),
    ]


def _squeezed(name: str, size: Size, architecture: str, config: Mapping[str, Any]) -> list[Part]:
    return [(name, tuple(length for length in size if length > 1), None)]


def _renamed(before: str, after: str) -> Callable[[str, Size, str, Mapping[str, Any]], list[Part]]:
    return lambda name, size, architecture, config: [(name.replace(before, after), size, None)]


_EXCEPTIONS: tuple[tuple[str, Callable[[str, Size, str, Mapping[str, Any]], list[Part] | None]], ...] = (
    ("experts.gate_up_proj", _gate_up),
    ("block_sparse_moe.input_linear", _gate_up),
    ("experts.down_proj", _down),
    ("kv_b_proj", _latent),
    ("in_proj_qkvz", _joined_linear_attention),
    ("conv1d", _squeezed),
    (".dt_bias", _renamed(".dt_bias", ".dt_proj.bias")),
    ("e_score_correction_bias", _renamed("e_score_correction_bias", "e_score_correction.bias")),
    ("self_attn.sinks", _renamed("sinks", "sinks.weight")),
)
"""What a name contains, and what the converter makes of such a tensor (None: what it is)."""
