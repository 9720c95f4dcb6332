"""Reading the drop maps that people publish, and saying what else a file is when it is none.

Accepted: the drop map `{"0": [ids…], …}`, `expert_drop_metadata.json` (`per_layer_drop`, `per_layer_keep` or both),
and a summary that contains a `drop_map`. Whether ids and counts are right is for `DropMap` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.errors import FormatError, InputError
from studio.families.layers import CREDIBLE
from studio.recipes.json_object import parse_object, shown

EXTRA_BLOCKS = ("mtp",)
"""Blocks with experts beside the numbered layers: the multi-token prediction block of Qwen3.6."""

_LAYER_KEY = re.compile(r"(?:0|[1-9][0-9]{0,5})", re.ASCII)
_METADATA_KEYS = ("per_layer_drop", "per_layer_keep", "original_experts", "target_experts", "drop_map")

_TELLING: Mapping[str, Callable[[Any], bool]] = {
    "recipe": lambda value: isinstance(value, Mapping) or _is_object(value),
    "recipe_hash": lambda value: isinstance(value, str),
    "contributions_hash": lambda value: isinstance(value, str),
    "floor_contributions_hash": lambda value: isinstance(value, str),
}
"""Keys of a map's origin that Espalier writes, and what they have to be."""

_OTHER_FILES: tuple[tuple[str, str, str], ...] = (
    ("floor_per_layer", "is a map of floors per layer: how many experts to protect, not which to drop", ""),
    ("args", "is a generator's summary: it has counts per layer, but not the experts", "Open the drop map beside it."),
    ("categories", "is a contribution analysis, not a drop map", "Import it as an analysis and make a map from it."),
    ("questions", "is a contribution analysis, not a drop map", "Import it as an analysis and make a map from it."),
    ("criterion", "is a recipe, not a drop map", "Open it as a recipe."),
    ("num_hidden_layers", "is a model's config.json, not a drop map", ""),
    ("text_config", "is a model's config.json, not a drop map", ""),
)
"""Key that gives another kind of file away, what it is, what to do."""


@dataclass(frozen=True)
class Published:
    """What a file says: ids per layer (ascending), not yet compared with any number of experts."""

    layers: Mapping[int, tuple[int, ...]]
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    keeps: bool = False
    """Whether the ids are those kept, not those dropped."""
    experts: int | None = None
    target_experts: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def dropped(self, block: int | str, experts: int) -> tuple[int, ...]:
        """Ids dropped in a layer or extra block of `experts`; `InputError` for kept ids out of range."""
        ids = self.extra[block] if isinstance(block, str) else self.layers[block]
        if not self.keeps:
            return ids
        if ids and not 0 <= ids[0] <= ids[-1] < experts:
            raise InputError(f"Layer {block} keeps expert {ids[-1]}, and the ids go from 0 to {experts - 1}.")
        if len(set(ids)) != len(ids):
            raise InputError(f"Layer {block} keeps an expert twice.")
        kept = set(ids)
        return tuple(expert for expert in range(experts) if expert not in kept)


def parse(source: str | bytes | Mapping[str, Any], name: str) -> Published:
    """What `source` says; `FormatError` with the reason when it is not a drop map. `name` is what messages call it."""
    content = source if isinstance(source, Mapping) else parse_object(source, name)
    if "per_layer_drop" in content or "per_layer_keep" in content:
        return _metadata(content, name)
    if isinstance(content.get("drop_map"), Mapping):
        layers, extra = _blocks(content["drop_map"], name, "drop_map")
        return Published(layers, extra, provenance=_others(content))
    for key, what, remedy in _OTHER_FILES:
        if key in content:
            raise FormatError(name, "", what, remedy)
    layers, extra = _blocks(content, name, "")
    return Published(layers, extra)


def _metadata(content: Mapping[str, Any], name: str) -> Published:
    """An `expert_drop_metadata.json`; kept and dropped lists have to complement each other."""
    experts = _count(content, "original_experts", name)
    target = _count(content, "target_experts", name)
    provenance = _others(content)
    keep = _blocks(content["per_layer_keep"], name, "per_layer_keep") if "per_layer_keep" in content else None
    drop = _blocks(content["per_layer_drop"], name, "per_layer_drop") if "per_layer_drop" in content else None
    if drop is None:
        assert keep is not None
        return Published(*keep, keeps=True, experts=experts, target_experts=target, provenance=provenance)
    if keep is not None:
        _require_complements(keep[0], drop[0], experts, name)
    return Published(*drop, experts=experts, target_experts=target, provenance=provenance)


def _require_complements(
    keep: Mapping[int, tuple[int, ...]], drop: Mapping[int, tuple[int, ...]], experts: int | None, name: str
) -> None:
    if keep.keys() != drop.keys():
        raise FormatError(name, "", "per_layer_keep and per_layer_drop have different layers")
    for layer in keep:
        together = sorted(keep[layer] + drop[layer])
        if together != list(range(len(together) if experts is None else experts)):
            raise FormatError(name, f"layer {layer}", "kept and dropped experts do not make up all of them, each once")


def _blocks(content: object, name: str, key: str) -> tuple[dict[int, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """(ids per layer, ids per extra block)."""
    if not isinstance(content, Mapping) or not content:
        raise FormatError(name, key, "it is not an object with one list of expert ids per layer")
    layers: dict[int, tuple[int, ...]] = {}
    extra: dict[str, tuple[int, ...]] = {}
    for block, ids in content.items():
        place = f"{key}, layer {block}" if key else f"layer {block}"
        if block in EXTRA_BLOCKS:
            extra[block] = _ids(ids, name, place)
        elif isinstance(block, str) and _LAYER_KEY.fullmatch(block):
            layers[int(block)] = _ids(ids, name, place)
        else:
            known = ", ".join(EXTRA_BLOCKS)
            raise FormatError(
                name, key, f"the key {shown(block)} is neither a layer number nor a known block ({known})"
            )
    return layers, extra


def _ids(ids: object, name: str, place: str) -> tuple[int, ...]:
    if type(ids) is int:
        raise FormatError(name, place, f"it is the number {ids}, not a list of expert ids", "Is this a map of floors?")
    if not isinstance(ids, (list, tuple)):
        raise FormatError(name, place, f"it is a {type(ids).__name__}, not a list of expert ids")
    for expert in ids:
        if type(expert) is not int:
            raise FormatError(name, place, f"{shown(expert)} is not an expert id; ids are whole numbers")
    return tuple(sorted(ids))


def _count(content: Mapping[str, Any], key: str, name: str) -> int | None:
    value = content.get(key)
    if value is not None and (type(value) is not int or not 1 <= value <= CREDIBLE):
        raise FormatError(name, key, f"{shown(value)} is not a number of experts")
    return value


def _others(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says about its origin: the keys that are not the map."""
    own = content.get("provenance")
    others = {key: value for key, value in content.items() if key not in (*_METADATA_KEYS, "provenance")}
    return telling(others | (dict(own) if isinstance(own, Mapping) else {}))


def telling(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """`provenance` without what a manifest would misunderstand: other tools may call other things by its keys."""
    return {key: value for key, value in provenance.items() if key not in _TELLING or _TELLING[key](value)}


def _is_object(text: object) -> bool:
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except ValueError:
        return False
