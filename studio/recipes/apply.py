"""A recipe applied to contributions: scores, and the map of what is dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from studio.contributions.model import UNKNOWN_FAMILY, Contributions
from studio.errors import InputError
from studio.recipes.criteria import Measure, class_values
from studio.recipes.dropmap import DropMap, check_top_k
from studio.recipes.recipe import Recipe
from studio.recipes.scoring import combine, normalise

Array = npt.NDArray[np.float64]


def scores(contributions: Contributions, recipe: Recipe) -> Array:
    """One score per expert, [L, E]; the lowest are dropped first.

    Raises `InputError` for a weighted class that the analysis does not have, weights that are all 0, and a criterion
    whose sums the analysis lacks.
    """
    weights = weights_of(contributions, recipe.class_weights)
    used = weights > 0
    values = class_values(contributions, Measure.of(recipe)).values[used]
    return combine(normalise(values, recipe.normalise), weights[used], recipe.aggregate)


def weights_of(contributions: Contributions, class_weights: Mapping[str, float]) -> Array:
    """Weight of every class, [C]; 1 for those that `class_weights` does not name. Raises as `scores` does."""
    known = contributions.classes
    if unknown := [klass for klass in class_weights if klass not in known]:
        raise InputError(
            f"The analysis has no class {unknown[0]!r}, which the recipe gives a weight.", f"It has {', '.join(known)}."
        )
    weights = np.array([class_weights.get(klass, 1.0) for klass in known], dtype=np.float64)
    if not weights.any():
        raise InputError("The recipe gives every class the weight 0.", "Give at least one class a weight above 0.")
    return weights


def make_map(contributions: Contributions, recipe: Recipe) -> DropMap:
    """The map that drops `recipe.drop` experts of every layer: those with the lowest scores.

    Among equal scores the lower id is dropped first, as in the published generator (a stable ascending sort); NaN,
    which only `outliers="keep"` lets through, goes last. The same recipe on the same contributions gives the same map.

    Raises `InputError` as `scores` does, and when fewer experts would be kept than the router uses.
    """
    shape = contributions.shape
    check_top_k(shape.experts, recipe.drop, shape.top_k)
    order = np.argsort(scores(contributions, recipe), axis=1, kind="stable")
    mask = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(mask, order[:, : recipe.drop], True, axis=1)
    provenance = {
        "recipe": json.loads(recipe.to_json()),
        "recipe_hash": recipe.content_hash,
        "contributions_hash": contributions.content_hash,
        "model": contributions.model,
        "outliers_treated": class_values(contributions, Measure.of(recipe)).outliers,
    }
    family = None if shape.family == UNKNOWN_FAMILY else shape.family
    return DropMap.from_mask(mask, shape.layer_ids, family=family, provenance=provenance)
