"""Where the cut falls in each layer: the sorted scores, the boundary, and how many experts lie close to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.recipes.decision import Decision, decide
from studio.recipes.recipe import Recipe

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NEAR = 0.01
"""Kept experts within this share of the boundary are near ties: `boundary_ties_within_1pct` of published summaries."""


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """The experts of each layer by ascending score; row by row what a figure draws."""

    layer_ids: tuple[int, ...]
    experts: npt.NDArray[np.int64]
    """[L, E]: ids."""
    scores: Array
    """[L, E], ascending, NaN last."""
    dropped: npt.NDArray[np.bool_]
    """[L, E], in the same order; not one block where experts are protected."""
    boundaries: Array
    """[L], see `boundaries`."""
    near_ties: npt.NDArray[np.int64]
    """[L], see `near_ties`."""


def score_curves(contributions: Contributions, recipe: Recipe, second: Contributions | None = None) -> ScoreCurves:
    """Raises as `decide` does."""
    decision = decide(contributions, recipe, second)
    shape = contributions.shape
    score = decision.scored.score
    experts = np.argsort(score, axis=1, kind="stable")
    layers = np.arange(shape.layers) if recipe.scope == "layer" else np.zeros(shape.layers, dtype=np.int64)
    return ScoreCurves(
        layer_ids=shape.layer_ids,
        experts=experts[layers],
        scores=np.take_along_axis(score, experts, axis=1)[layers],
        dropped=np.take_along_axis(decision.dropped, experts, axis=1)[layers],
        boundaries=boundaries(decision)[layers],
        near_ties=near_ties(decision)[layers],
    )


def boundaries(decision: Decision, among: Mask | None = None) -> Array:
    """[R]: halfway between the highest score that was cut and the lowest that nothing but its score kept.

    Where only protected experts are kept, the highest that was cut; NaN where nothing is cut by its score. Where groups
    of experts lose equally many, each has its own cut: `among` [E] are the experts to look at.
    """
    shield, score = decision.protection, decision.scored.score
    looked_at = np.True_ if among is None else among
    cut = _highest_cut(decision, looked_at)
    free = ~decision.cut & ~shield.asked & looked_at
    kept = np.where(free & ~np.isnan(score), score, np.inf).min(axis=1)
    with np.errstate(invalid="ignore"):
        halfway = (cut + kept) / 2
    result: Array = np.where(np.isfinite(kept) & np.isfinite(cut), halfway, cut)
    return result


def near_ties(decision: Decision, within: float = NEAR) -> npt.NDArray[np.int64]:
    """[R]: kept experts, protected or not, whose score is below the highest that was cut and `within` of its size."""
    highest = _highest_cut(decision, np.True_)
    limit = (highest + within * np.abs(highest))[:, None]
    result: npt.NDArray[np.int64] = (~decision.cut & (decision.scored.score < limit)).sum(axis=1)
    return result


def _highest_cut(decision: Decision, among: Mask | np.bool_) -> Array:
    """[R]: among those that were dropped by score (not by a person, not released); NaN where there are none."""
    shield, score = decision.protection, decision.scored.score
    by_score = decision.cut & ~shield.force_drop & ~shield.asked & ~np.isnan(score) & among
    highest = np.where(by_score, score, -np.inf).max(axis=1)
    result: Array = np.where(by_score.any(axis=1), highest, np.nan)
    return result
