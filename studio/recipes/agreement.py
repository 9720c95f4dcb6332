"""What the fields of a recipe have to agree on between themselves, whatever analysis they meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from studio.recipes.json_object import shown

if TYPE_CHECKING:
    from studio.recipes.recipe import Recipe

_NO_SUMS_OVER_TOKENS = ("coverage", "reap", "ean_mean")


def disagreement(recipe: Recipe) -> str:
    """What is wrong, and after "; " what to do about it, in a sentence without its full stop; empty: nothing is."""
    checks = (_counts, _tokens, _classes, _pooled, _zscores, _floors, _layers, _overruled)
    return next((problem for check in checks if (problem := check(recipe))), "")


def _counts(recipe: Recipe) -> str:
    if recipe.drop is None and recipe.keep is None:
        return "The recipe lacks 'drop'; Say how many experts to drop (or, with 'keep', to keep) in every layer."
    if recipe.drop is not None and recipe.keep is not None:
        return "The recipe has both 'drop' and 'keep'; Leave one of them out."
    return ""


def _tokens(recipe: Recipe) -> str:
    if recipe.add_tokens and recipe.criterion in _NO_SUMS_OVER_TOKENS:
        return (
            f"tokens cannot be added to {recipe.criterion}, which is no sum over tokens; "
            "Leave add_tokens out, or choose another criterion."
        )
    return ""


def _classes(recipe: Recipe) -> str:
    named = [klass for klass, _ in recipe.class_minimums]
    if (twice := _twice(recipe.classes or ())) is not None:
        return f"The recipe's classes name {shown(twice)} twice; Name it once."
    if (twice := _twice(named)) is not None:
        return f"The recipe's class_minimums name {shown(twice)} twice; Name it once."
    return ""


def _pooled(recipe: Recipe) -> str:
    if recipe.pool_classes and recipe.protect_aggregate is not None:
        return "Classes that are pooled are not combined in a second way; Leave protect_aggregate or pool_classes out."
    return ""


def _zscores(recipe: Recipe) -> str:
    """To `lp4`, all experts that are below the mean everywhere would be equal: those that are to be told apart."""
    for aggregate in (recipe.aggregate, recipe.protect_aggregate):
        if recipe.normalise == "zscore" and aggregate in ("geomean", "lp4"):
            return (
                f"{aggregate} needs positive values, and a zscore is negative below the mean; "
                "Choose another of the two."
            )
    return ""


def _floors(recipe: Recipe) -> str:
    clamp = recipe.floor_clamp
    if clamp is not None and clamp[0] > clamp[1]:
        return f"The recipe's floor_clamp is [{clamp[0]}, {clamp[1]}]; Give the lower floor first."
    if recipe.floor_layers_from == "importance" and clamp is None:
        return "Floors by importance need a floor_clamp; Give the lowest and the highest floor."
    if recipe.floor_layers_from != "recipe" and recipe.layer_floors:
        return f"The recipe has layer_floors, and takes them from {recipe.floor_layers_from}; Leave one of them out."
    return ""


def _layers(recipe: Recipe) -> str:
    if recipe.scope == "layer":
        return ""
    if recipe.layer_floors or recipe.floor_layers_from != "recipe":
        return "Where all layers drop the same ids they have the same floor; Give floor, and no floors per layer."
    if {*recipe.force_keep, *recipe.force_drop} - {"all"}:
        return (
            "Where all layers drop the same ids, the layer of force_keep and force_drop can only be 'all'; "
            "Write 'all', or release what is kept or dropped by hand in single layers first."
        )
    return ""


def _overruled(recipe: Recipe) -> str:
    """An expert that is to stay and to leave: in one layer, or in one and in all."""
    for (one, kept), (other, dropped) in product(recipe.force_keep.items(), recipe.force_drop.items()):
        if one != other and "all" not in (one, other):
            continue
        if both := sorted({*kept} & {*dropped}):
            where = f"layer {other if one == 'all' else one}" if {one, other} != {"all"} else "every layer"
            return f"Expert {both[0]} of {where} is in force_keep and in force_drop; Take it out of one of them."
    return ""


def _twice(names: Sequence[str]) -> str | None:
    """A name that comes twice, which may be the empty one."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
