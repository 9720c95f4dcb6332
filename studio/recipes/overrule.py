"""What a person says about single experts, whatever their scores: keep, drop, or leave it to the recipe again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from studio.errors import InputError
from studio.families.base import MoeShape
from studio.recipes.protection import forced_mask
from studio.recipes.recipe import ALL_LAYERS, Recipe

Fate = Literal["keep", "drop", "release"]
Mask = npt.NDArray[np.bool_]


def overruled(recipe: Recipe, shape: MoeShape) -> tuple[Mask, Mask]:
    """(kept, dropped) [L, E]: the experts that a person keeps or drops by hand.

    Raises `InputError` and `MismatchError` for experts and layers that `shape` has not.
    """
    keep = forced_mask("force_keep", recipe.force_keep, shape.layers, shape)
    return keep, forced_mask("force_drop", recipe.force_drop, shape.layers, shape)


def overrule(recipe: Recipe, shape: MoeShape, rows: Sequence[int], experts: Sequence[int], fate: Fate) -> Recipe:
    """`recipe` with every expert of `experts` in every row of `rows` (positions of layers, not ids) kept or dropped by
    hand, or released; the last word about an expert counts.

    Where all layers drop the same ids, it is said for all layers. Raises `InputError` for what `shape` has not.
    """
    for noun, numbers, size in (("row", rows, shape.layers), ("expert", experts, shape.experts)):
        if beyond := [number for number in numbers if not 0 <= number < size]:
            raise InputError(f"The map has no {noun} {beyond[0]}.", f"They go from 0 to {size - 1}.")
    keep, drop = overruled(recipe, shape)
    cells = np.ix_(list(rows) if recipe.scope == "layer" else range(shape.layers), list(experts))
    keep[cells], drop[cells] = fate == "keep", fate == "drop"
    return recipe.but(force_keep=_listed(keep, shape), force_drop=_listed(drop, shape))


def _listed(mask: Mask, shape: MoeShape) -> dict[str, list[int]]:
    """`mask` as a recipe has it: what is the same in all layers once, the rest by layer."""
    everywhere = mask.all(axis=0)
    listed = {ALL_LAYERS: everywhere, **dict(zip(map(str, shape.layer_ids), mask & ~everywhere, strict=True))}
    return {layer: np.flatnonzero(ids).tolist() for layer, ids in listed.items() if ids.any()}
