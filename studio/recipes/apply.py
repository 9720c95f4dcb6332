"""A recipe applied to contributions: scores, and the map of what is dropped."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from studio.contributions.model import UNKNOWN_FAMILY, Contributions
from studio.recipes.decision import decide
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
from studio.recipes.scores import scored

Array = npt.NDArray[np.float64]


def scores(contributions: Contributions, recipe: Recipe) -> Array:
    """One score per expert, [L, E]; the lowest are dropped first. Model-wide, all layers have the same.

    Raises `InputError` for a weighted class that the analysis does not have, weights that are all 0, and a criterion
    whose sums the analysis lacks.
    """
    shape = contributions.shape
    return np.broadcast_to(scored(contributions, recipe).score, (shape.layers, shape.experts))


def make_map(contributions: Contributions, recipe: Recipe, second: Contributions | None = None) -> DropMap:
    """The map that drops as many experts of every layer as `recipe` says: the lowest scores that nothing protects.

    `second` is the analysis that floors and minima per class go by; a recipe that needs none ignores it. Among equal
    scores the lower id is dropped first, as in the published generator (a stable ascending sort); NaN, which only
    `outliers="keep"` lets through, goes last. The same recipe on the same contributions gives the same map.

    Raises as `decide` does.
    """
    shape = contributions.shape
    decision = decide(contributions, recipe, second)
    provenance = {
        "recipe": json.loads(recipe.to_json()),
        "recipe_hash": recipe.content_hash,
        "contributions_hash": contributions.content_hash,
        "model": contributions.model,
        "outliers_treated": decision.scored.outliers,
    }
    if second is not None and recipe.needs_second_analysis:
        provenance["floor_contributions_hash"] = second.content_hash
    family = None if shape.family == UNKNOWN_FAMILY else shape.family
    mask = np.broadcast_to(decision.dropped, (shape.layers, shape.experts))
    return DropMap.from_mask(mask, shape.layer_ids, family=family, provenance=provenance)
