"""Fields of a recipe that do nothing because of what others say: its maps are the same whatever stands in them."""

from __future__ import annotations

from studio.recipes.recipe import Recipe

_NO_SUMS = ("coverage", "reap", "ean_mean")
_BY_SIZE = ("geomean", "softmax_t4")
"""Aggregates that depend on how large values are, and not only on their proportions."""


def idle(recipe: Recipe) -> dict[str, str]:
    """Field → why it does nothing. (But for rounding: where numbers are multiplied, ties may fall apart.)"""
    return {
        field: reason
        for rules in (_of_scores, _of_classes, _of_protection, _of_floors)
        for field, reason in rules(recipe).items()
    }


def without_idle(recipe: Recipe) -> Recipe:
    """The recipe that says the same with every idle field at its default.

    `recipe` may be one of `Recipe.model_construct` whose fields do not agree yet: what they disagree about is often
    idle. Raises `InputError` where they still do not.
    """
    nothing = {"version", *idle(recipe)}
    return Recipe(**{name: getattr(recipe, name) for name in Recipe.model_fields if name not in nothing})


def _of_scores(recipe: Recipe) -> dict[str, str]:
    found = {}
    if recipe.criterion != "coverage":
        found["protect_top_per_question"] = "Only coverage asks which experts a question vouches for."
    if recipe.criterion in _NO_SUMS:
        found["add_tokens"] = "The criterion is no sum over tokens, so there is nothing to add them to."
    scale_free = recipe.normalise != "none" or not {recipe.aggregate, recipe.protect_aggregate} & {*_BY_SIZE}
    adds = recipe.add_tokens and "add_tokens" not in found
    if not adds and scale_free and recipe.arithmetic == "espalier":
        found["alpha"] = "It weighs the criterion against the tokens, and those are not added."
    if recipe.outliers == "keep":
        found["outlier_threshold"] = "Outliers are taken as they are."
    return found


def _of_classes(recipe: Recipe) -> dict[str, str]:
    ordered_alike = recipe.normalise != "zscore" and recipe.outliers in ("median", "zero")
    if recipe.pool_classes and ordered_alike:
        return dict.fromkeys(("aggregate", "breadth_bonus"), "All classes count as one, so nothing is to be combined.")
    return {}


def _of_protection(recipe: Recipe) -> dict[str, str]:
    protecting = ("protect_aggregate", "protect_class_weights")
    if recipe.pool_classes:
        return dict.fromkeys(protecting, "All classes count as one, so there is no second way to combine them.")
    if not recipe.protect_top:
        return dict.fromkeys(protecting, "Nobody is protected for a high score.")
    if recipe.protect_aggregate is None:
        return {"protect_class_weights": "Protection goes by the score itself."}
    return {}


def _of_floors(recipe: Recipe) -> dict[str, str]:
    found: dict[str, str] = {}
    floors, own = recipe.layer_floors, recipe.floor_layers_from
    if recipe.scope == "model":
        why = "All layers drop the same experts, so they have the same floor."
        found |= {"floor_layers_from": why, "layer_floors": why}
        floors, own = {}, "recipe"
    if own != "recipe":
        found["layer_floors"] = "Floors per layer come from elsewhere."
        floors = {}
        if own == "importance":
            found["floor"] = "Each layer has a floor by its importance."
    if own == "recipe" and not floors:
        found["floor_clamp"] = "It is a range for floors that differ between layers, and there are none."
    if not (recipe.floor or floors or own != "recipe" or recipe.class_minimums):
        found["floor_analysis"] = "There are neither floors nor minimums."
    return found
