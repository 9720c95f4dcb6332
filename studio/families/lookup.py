"""From a `config.json` or a GGUF header to a family and a shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.errors import InputError, UnsupportedError
from studio.families.base import Family, MoeShape
from studio.families.deepseek import DEEPSEEK
from studio.families.dots1 import DOTS1
from studio.families.gemma4 import GEMMA4
from studio.families.glm4_moe import GLM4_MOE
from studio.families.gpt_oss import GPT_OSS
from studio.families.granitemoe import GRANITEMOE
from studio.families.layers import whole_number
from studio.families.minimax_m2 import MINIMAX_M2
from studio.families.mixtral import MIXTRAL
from studio.families.olmoe import OLMOE
from studio.families.phimoe import PHIMOE
from studio.families.qwen2_moe import QWEN2_MOE
from studio.families.qwen3_5_moe import QWEN3_5_MOE
from studio.families.qwen3_moe import QWEN3_MOE
from studio.families.qwen3_next import QWEN3_NEXT

FAMILIES: tuple[Family, ...] = (
    *(GEMMA4, QWEN3_MOE, QWEN3_5_MOE, QWEN3_NEXT, QWEN2_MOE, MIXTRAL, DEEPSEEK, GLM4_MOE, GPT_OSS, OLMOE),
    *(MINIMAX_M2, PHIMOE, DOTS1, GRANITEMOE),
)


def family_named(name: str) -> Family:
    """The family called `name`; `UnsupportedError` when there is none."""
    for family in FAMILIES:
        if family.name == name:
            return family
    raise _unknown("family", name)


def family_of_config(config: Mapping[str, Any]) -> Family:
    """The family of a parsed `config.json`; `UnsupportedError` names an unknown `model_type`."""
    model_type = config.get("model_type")
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    raise _unknown("model_type", model_type)


def text_config(config: Mapping[str, Any], family: Family) -> Mapping[str, Any]:
    """The part of `config` that describes the language model."""
    part = config.get(family.text_config_key)
    return part if isinstance(part, Mapping) else config


def shape_of_config(config: Mapping[str, Any]) -> MoeShape:
    """The shape that a parsed `config.json` describes.

    Raises `UnsupportedError` for an unknown architecture, `InputError` naming a missing or senseless key.
    """
    family = family_of_config(config)
    text = text_config(config, family)

    def number(key: str) -> int:
        return whole_number(text.get(key), f"config.json, {key}")

    def group_number(key: str | None) -> int:
        return 1 if key is None or text.get(key) is None else number(key)

    experts_key = next((key for key in family.experts_keys if text.get(key) is not None), family.experts_keys[0])
    return _checked(
        MoeShape(
            family=family.name,
            layer_ids=family.layers_with_experts(text, number("num_hidden_layers")),
            experts=number(experts_key),
            top_k=number(family.top_k_key),
            hidden_size=number("hidden_size"),
            expert_size=number(family.expert_size_key),
            groups=group_number(family.groups_key),
            groups_per_token=group_number(family.groups_per_token_key),
        ),
        "config.json",
    )


def draft_layers_of_config(config: Mapping[str, Any]) -> range:
    """Ids of numbered blocks after the decoder layers that draft tokens ahead; empty where there is none."""
    family = family_of_config(config)
    text = text_config(config, family)
    first = whole_number(text.get("num_hidden_layers"), "config.json, num_hidden_layers")
    key = family.draft_layers_key
    count = 0 if key is None or text.get(key) is None else whole_number(text[key], f"config.json, {key}", least=0)
    return range(first, first + count)


def shape_of_gguf(metadata: Mapping[str, Any]) -> MoeShape:
    """The shape that a GGUF header's key–value pairs describe.

    Raises as `shape_of_config` does.
    """
    architecture = metadata.get("general.architecture")
    for family in FAMILIES:
        if family.gguf_architecture == architecture:
            break
    else:
        raise _unknown("general.architecture", architecture)

    def number(key: str, default: int | None = None, least: int = 1) -> int:
        value = metadata.get(f"{architecture}.{key}", default)
        return whole_number(value, f"GGUF key {architecture}.{key}", least)

    size = "expert_feed_forward_length"
    if f"{architecture}.{size}" not in metadata and f"{architecture}.feed_forward_length" in metadata:
        size = "feed_forward_length"  # where there is no other feed-forward part
    return _checked(
        MoeShape(
            family=family.name,
            layer_ids=tuple(range(number("leading_dense_block_count", 0, least=0), _decoder_layers(metadata))),
            experts=number("expert_count"),
            top_k=number("expert_used_count"),
            hidden_size=number("embedding_length"),
            expert_size=number(size),
            groups=number("expert_group_count", 1),
            groups_per_token=number("expert_group_used_count", 1),
        ),
        "the GGUF header",
    )


def draft_layers_of_gguf(metadata: Mapping[str, Any]) -> range:
    """Ids of the blocks that draft tokens ahead, the last in the file; empty where there is none."""
    first = _decoder_layers(metadata)
    return range(first, metadata[f"{metadata['general.architecture']}.block_count"])


def _decoder_layers(metadata: Mapping[str, Any]) -> int:
    """How many of the file's blocks are decoder layers, and not there to draft tokens ahead."""
    blocks, drafts = (f"{metadata['general.architecture']}.{key}" for key in ("block_count", "nextn_predict_layers"))
    all_blocks = whole_number(metadata.get(blocks), f"GGUF key {blocks}")
    drafting = whole_number(metadata.get(drafts, 0), f"GGUF key {drafts}", least=0)
    if drafting >= all_blocks:
        raise InputError(f"GGUF key {drafts} is {drafting}, and there are {all_blocks} blocks in all.")
    return all_blocks - drafting


def _checked(shape: MoeShape, where: str) -> MoeShape:
    """`shape`, when its numbers fit each other."""
    if not shape.layer_ids:
        raise InputError(f"By {where}, no layer has experts.", "Is this a MoE model?")
    if shape.top_k > shape.experts:
        raise InputError(f"By {where}, a token uses {shape.top_k} of {shape.experts} experts.", "Is it damaged?")
    if shape.experts % shape.groups or shape.groups_per_token > shape.groups:
        raise InputError(
            f"By {where}, a token uses {shape.groups_per_token} of {shape.groups} groups of {shape.experts} experts.",
            "Is it damaged?",
        )
    return shape


def _unknown(key: str, value: object) -> UnsupportedError:
    known = ", ".join(family.name for family in FAMILIES)
    return UnsupportedError(
        f"Espalier does not know the architecture {value!r:.60} ({key}).",
        f"It knows {known}. A new one is one small file with its names of config keys, modules and tensors: "
        "see studio/families/README.md.",
    )
