"""Which decoder layers have experts, by the keys with which configs say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from studio.errors import InputError

LayersWithExperts = Callable[[Mapping[str, Any], int], tuple[int, ...]]
"""From the text part of a config and its number of decoder layers to the ids of those that have experts, ascending."""

CREDIBLE = 1_000_000
"""Largest layer count, expert count or size that is believed: a header that lies must not fill the memory."""


def whole_number(value: object, where: str, least: int = 1) -> int:
    """`value`, when it is a whole number from `least` to `CREDIBLE`; else `InputError` that begins with `where`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        kind = "a positive whole number" if least == 1 else f"a whole number from {least}"
        raise InputError(f"{where} is {value!r:.60}, and has to be {kind}.", "Is this a MoE model?")
    if value > CREDIBLE:
        raise InputError(f"{where} is {value!r:.60}, more than any model has.", "Is the file damaged?")
    return value


def every_layer(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """All decoder layers."""
    return tuple(range(layers))


def after_dense(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """All but the first `first_k_dense_replace` (DeepSeek, GLM)."""
    dense = whole_number(config.get("first_k_dense_replace"), "config.json, first_k_dense_replace", least=0)
    return tuple(range(dense, layers))


def sparse_steps(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Every `decoder_sparse_step`-th, unless `mlp_only_layers` names it (Qwen)."""
    step = whole_number(config.get("decoder_sparse_step", 1), "config.json, decoder_sparse_step")
    dense = config.get("mlp_only_layers") or ()
    if not isinstance(dense, list | tuple):
        raise InputError(f"config.json, mlp_only_layers is {dense!r}, and has to be a list of layers.")
    return tuple(layer for layer in range(layers) if (layer + 1) % step == 0 and layer not in dense)


def kinds_of_mlp(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Those that `mlp_layer_types` calls sparse; without it, all but the first `first_k_dense_replace`."""
    kinds = config.get("mlp_layer_types")
    if kinds is None:
        return after_dense(config, layers)
    if not isinstance(kinds, list | tuple) or len(kinds) != layers:
        raise InputError(f"config.json, mlp_layer_types has to list the {layers} layers, and is {kinds!r}.")
    return tuple(layer for layer, kind in enumerate(kinds) if kind == "sparse")
