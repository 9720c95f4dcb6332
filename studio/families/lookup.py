"""From a `config.json` or a GGUF header to a family and a shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.errors import InputError, UnsupportedError
from studio.families.base import Family, MoeShape
from studio.families.gemma4 import GEMMA4

FAMILIES: tuple[Family, ...] = (GEMMA4,)


_CREDIBLE = 1_000_000
"""Largest layer count, expert count or size that is believed: a header that lies must not fill the memory."""


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
        return _positive(text.get(key), f"config.json, {key}")

    return MoeShape(
        family=family.name,
        layer_ids=tuple(range(number("num_hidden_layers"))),
        experts=number(family.experts_key),
        top_k=number(family.top_k_key),
        hidden_size=number("hidden_size"),
        expert_size=number(family.expert_size_key),
    )


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

    def number(key: str) -> int:
        return _positive(metadata.get(f"{architecture}.{key}"), f"GGUF key {architecture}.{key}")

    return MoeShape(
        family=family.name,
        layer_ids=tuple(range(number("block_count"))),
        experts=number("expert_count"),
        top_k=number("expert_used_count"),
        hidden_size=number("embedding_length"),
        expert_size=number("expert_feed_forward_length"),
    )


def _positive(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InputError(f"{where} is {value!r}, and has to be a positive whole number.", "Is this a MoE model?")
    if value > _CREDIBLE:
        raise InputError(f"{where} is {value}, more than any model has.", "Is the file damaged?")
    return value


def _unknown(key: str, value: object) -> UnsupportedError:
    known = ", ".join(family.name for family in FAMILIES)
    return UnsupportedError(
        f"Espalier does not know the architecture {value!r} ({key}).",
        f"It knows {known}; a new one is one small file in studio/families/.",
    )
