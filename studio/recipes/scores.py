"""From an analysis and a recipe to one score per expert, with every step on the way kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.criteria import PER_TOKEN, Measure, class_values
from studio.recipes.recipe import Recipe
from studio.recipes.scoring import TINY, combine, normalise
from studio.recipes.weights import as_array, chosen_classes, weights_of

Array = npt.NDArray[np.float64]

POOLED = "all"
"""What classes that are pooled are called together."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Arrays over the classes that take part, C (one where they are pooled).

    R rows are the layers, or one where all layers drop the same.
    """

    weights: dict[str, float]
    """Per class, in the order of C."""
    values: Array
    """[C, L, E]: the criterion, with outliers dealt with."""
    normalised: Array
    """[C, R, E]."""
    score: Array
    """[R, E]; the lowest are dropped first."""
    protecting: Array
    """[R, E]: the score that `protect_top` goes by."""
    outliers: int
    """Entries of the analysis that were treated."""


def scored(contributions: Contributions, recipe: Recipe) -> Scored:
    """What `recipe` makes of `contributions` before anything is protected or dropped.

    Raises `InputError` for a class that the analysis does not have, weights that are all 0, a criterion whose sums the
    analysis lacks, and scores beyond what a float holds.
    """
    classes = chosen_classes(recipe, contributions.classes)
    weights = weights_of(classes, recipe.class_weights)
    if recipe.arithmetic == "espalier":
        classes = tuple(klass for klass in classes if weights[klass] > 0)
        weights = {klass: weights[klass] for klass in classes}
    measured = class_values(contributions, Measure.of(recipe))
    values = measured.values
    if classes != contributions.classes:
        values = values[[contributions.classes.index(klass) for klass in classes]]
    with np.errstate(over="ignore", invalid="ignore"):  # see `_require_finite`
        if recipe.pool_classes:
            values = _pooled(contributions, recipe, values, weights)
            weights = {POOLED: 1.0}
        normalised = one_row_if_model_wide(normalise(values, recipe.normalise, recipe.arithmetic), recipe)
        score = combine(normalised, as_array(weights), recipe.aggregate, recipe.arithmetic)
        if recipe.breadth_bonus > 0:
            score = score + recipe.breadth_bonus * normalised.mean(axis=0)
        protecting = _protecting(contributions, recipe, classes, normalised, score)
    if recipe.outliers != "keep":
        _require_finite(values, score, protecting)
    return Scored(
        weights=weights,
        values=values,
        normalised=normalised,
        score=score,
        protecting=protecting,
        outliers=measured.outliers,
    )


def _require_finite(values: Array, *scores: Array) -> None:
    """Raise `InputError` where numbers grew beyond what a float holds: experts would all be equal there.

    Outliers that are dropped are at −∞, and what that does to scores is no mistake.
    """
    finite = np.isfinite(values)
    grown = not finite.all() and not np.isneginf(values[~finite]).all()
    if grown or (finite.all() and not all(np.isfinite(score).all() for score in scores)):
        raise InputError(
            "The scores are too large for a computer's numbers.",
            "Choose a smaller alpha, smaller class weights, or a smaller breadth_bonus.",
        )


def _pooled(contributions: Contributions, recipe: Recipe, values: Array, weights: dict[str, float]) -> Array:
    """All classes as one, [1, L, E]: the weighted sum of `values` [C, L, E], or their mean over all tokens.

    The published arithmetic keeps classes of weight 0; here they would bring −∞ times 0, and means of no tokens.
    """
    values = values[as_array(weights) > 0]
    weights = {klass: weight for klass, weight in weights.items() if weight > 0}
    factors = as_array(weights)[:, None, None]
    if recipe.criterion not in PER_TOKEN:
        total: Array = (values * factors).sum(axis=0, keepdims=True)
        return total
    measured = class_values(contributions, replace(Measure.of(recipe), criterion="frequency", alpha=1.0)).values
    tokens = factors * measured[[contributions.classes.index(klass) for klass in weights]]
    sums = np.where(tokens > 0, values * tokens, values)  # who had no token is at 0, or as an outlier at −∞
    mean: Array = sums.sum(axis=0, keepdims=True) / np.maximum(tokens.sum(axis=0, keepdims=True), TINY)
    return mean


def one_row_if_model_wide(values: Array, recipe: Recipe) -> Array:
    """`values` [C, L, E], or their mean over layers [C, 1, E] where all layers are to drop the same experts."""
    return values if recipe.scope == "layer" else values.mean(axis=1, keepdims=True)


def _protecting(
    contributions: Contributions, recipe: Recipe, classes: tuple[str, ...], normalised: Array, score: Array
) -> Array:
    if recipe.protect_aggregate is None or recipe.pool_classes:
        return score
    every = chosen_classes(recipe, contributions.classes)
    weights = weights_of(every, recipe.protect_class_weights)
    used = as_array({klass: weights[klass] for klass in classes})
    if not used.any():
        raise InputError(
            "Every class that counts in the recipe has the weight 0 in protect_class_weights.",
            "Give at least one of them a weight above 0.",
        )
    if recipe.arithmetic == "espalier":
        normalised, used = normalised[used > 0], used[used > 0]
    return combine(normalised, used, recipe.protect_aggregate, recipe.arithmetic)
