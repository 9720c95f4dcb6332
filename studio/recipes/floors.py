"""Floors: how many experts of each layer are protected for what a second (generic) analysis says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import FormatError, InputError, MismatchError
from studio.recipes.criteria import Measure, class_values
from studio.recipes.json_object import parse_object, shown
from studio.recipes.recipe import Recipe
from studio.recipes.scores import one_row_if_model_wide

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SIGNAL_SHARE = 98 / 128
"""A layer's importance is the mean over this share of its experts, the highest: `top98_mean_per_layer` as published."""


@dataclass(frozen=True, eq=False)
class FloorAnalysis:
    """What floors and minima per class go by; R rows as in `Scored`."""

    classes: tuple[str, ...]
    pooled: Array | None
    """[R, E]: an expert's highest value in any class; None without floors."""
    counts: Integers
    """[R]: how many of the highest pooled values are protected."""
    best_class: Integers
    """[R, E]: index into `classes` of the class in which an expert has its highest value, outliers as they are."""


def floor_analysis(contributions: Contributions, recipe: Recipe, second: Contributions | None) -> FloorAnalysis:
    """Raises `InputError` when the recipe needs a second analysis, or a file of floors per layer, and has none.

    `MismatchError` when the second analysis is of another grid, or there is a floor for a layer that is none.
    """
    analysis = _chosen(contributions, recipe, second)
    shape = contributions.shape
    measure = Measure.of(recipe)
    rows = shape.layers if recipe.scope == "layer" else 1
    pooled, counts = None, np.zeros(rows, dtype=np.int64)
    best = np.zeros((rows, shape.experts), dtype=np.int64)
    if recipe.floor or recipe.layer_floors or recipe.floor_layers_from != "recipe":
        pooled = one_row_if_model_wide(class_values(analysis, measure).values, recipe).max(axis=0)
        counts = np.clip(_counts(recipe, shape.layer_ids, pooled), 0, shape.experts).astype(np.int64)
    if recipe.class_minimums:
        as_they_are = class_values(analysis, replace(measure, outliers="keep")).values
        best = one_row_if_model_wide(as_they_are, recipe).argmax(axis=0)
    return FloorAnalysis(analysis.classes, pooled, counts, best)


def _chosen(contributions: Contributions, recipe: Recipe, second: Contributions | None) -> Contributions:
    if not recipe.needs_second_analysis:
        return contributions
    if second is None:
        raise InputError(
            "The recipe's floors or class_minimums go by a second analysis, and none is given.",
            "Give it as well (--floor-contributions), or say floor_analysis: same in the recipe.",
        )
    if not second.shape.same_grid(contributions.shape):
        raise MismatchError(
            f"The second analysis has {second.shape.layers} layers of {second.shape.experts} experts, and the first "
            f"{contributions.shape.layers} of {contributions.shape.experts}.",
            "Choose two analyses of one model.",
        )
    return second


def _counts(recipe: Recipe, layer_ids: tuple[int, ...], pooled: Array) -> Array:
    """[R]: whole numbers as the recipe has them, however low or high."""
    if recipe.floor_layers_from == "file":
        raise InputError("The recipe takes its floors per layer from a file, and none is given.", "Give --layer-floor.")
    floors = dict(recipe.layer_floors)
    if recipe.floor_layers_from == "importance":
        floors = dict(zip(map(str, layer_ids), _importance(pooled).tolist(), strict=True))
    if surplus := [layer for layer in floors if int(layer) not in layer_ids]:
        raise MismatchError(
            f"There is a floor for layer {surplus[0]}, which the analysis does not have.",
            f"It has {layer_ids[0]} to {layer_ids[-1]}: choose the floors of this model.",
        )
    if recipe.floor_clamp is not None and floors:
        floors = _stretched(floors, *recipe.floor_clamp)
    if recipe.scope == "model":
        floors = {}
        layer_ids = layer_ids[:1]
    return np.trunc([float(floors.get(str(layer), recipe.floor)) for layer in layer_ids])


def _importance(pooled: Array) -> Array:
    """Mean of the highest pooled values of each layer, [L]; what is not finite does not count."""
    highest = -np.sort(-np.where(np.isfinite(pooled), pooled, 0.0), axis=1)
    result: Array = highest[:, : max(round(SIGNAL_SHARE * pooled.shape[1]), 1)].mean(axis=1)
    return result


def _stretched(floors: Mapping[str, float], lowest: int, highest: int) -> dict[str, float]:
    """`floors` moved linearly into [lowest, highest] and rounded (halves to the even number); all equal: the lowest."""
    least, most = min(floors.values()), max(floors.values())
    span = (most - least) or 1.0
    moved = {layer: round(lowest + (highest - lowest) * (value - least) / span) for layer, value in floors.items()}
    return {layer: max(lowest, min(highest, value)) for layer, value in moved.items()}


def with_layer_floors(recipe: Recipe, source: str | bytes | Mapping[str, Any], name: str = "floors") -> Recipe:
    """`recipe` with the floors per layer of a published file: `{"floor_per_layer": {"0": 16, …}}`, or the inner object.

    Where the recipe stretches floors into a range and the file has `top98_mean_per_layer`, those are what is
    stretched, as in the published generator: they tell layers apart that the file's own floors already rounded alike.
    Raises `FormatError` for anything that is not a map of floors.
    """
    content = source if isinstance(source, Mapping) else parse_object(source, name)
    floors, place = content, ""
    if "floor_per_layer" in content:
        floors, place = content["floor_per_layer"], "floor_per_layer"
    if recipe.floor_clamp is not None and content.get("top98_mean_per_layer"):
        floors, place = content["top98_mean_per_layer"], "top98_mean_per_layer"
    if not isinstance(floors, Mapping) or not floors:
        raise FormatError(name, place, "it is not an object with one floor per layer")
    for layer, floor in floors.items():
        if type(floor) not in (int, float):
            raise FormatError(name, place, f"the floor of layer {layer[:20]} is {shown(floor)}, and not a number")
    try:
        return recipe.but(layer_floors=dict(floors), floor_layers_from="recipe")
    except InputError as error:
        raise FormatError(name, place, error.what.removesuffix("."), error.remedy) from error
