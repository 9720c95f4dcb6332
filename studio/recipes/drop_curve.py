"""How much of each class's contribution stays, for every number of dropped experts at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.families.base import MoeShape
from studio.recipes.criteria import Measure, class_values, shown_criterion
from studio.recipes.decision import Decision, after_minimums, decide
from studio.recipes.protection import places
from studio.recipes.recipe import Criterion, Recipe

Array = npt.NDArray[np.float64]

MOST_WORK = 4000
"""Rows of a map times minima per class: so many are worked out for a curve, some 0.1 ms each."""
LEAST_COUNTS = 17
"""That many counts are worked out however long it takes: one in each sixteenth of the curve."""


@dataclass(frozen=True, eq=False)
class DropCurve:
    """Shares, 0 to 1, over all layers; index n of the last axis is what stays when n experts leave every layer."""

    criterion: Criterion
    """What was shared out, as in `Preview`."""
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    """The counts that were worked out, ascending: all of them, or where `class_minimums` would take too long, some."""
    kept_share: Array
    """[C, E + 1], from 1 to 0; 1 throughout for a class without any contribution, NaN where not worked out."""
    most: int
    """The most that may be dropped: what top-k and `force_keep` leave."""

    def most_keeping(self, share: float) -> int:
        """The highest of `counts` up to which no class keeps less than `share`."""
        possible = [count for count in self.counts if count <= self.most]
        enough = (self.kept_share[:, possible] >= share).all(axis=0)
        return max(possible[: int(np.logical_and.accumulate(enough).sum())], default=0)


def drop_curve(contributions: Contributions, recipe: Recipe, second: Contributions | None = None) -> DropCurve:
    """What `preview` would say of the recipe's map at every count.

    Without `class_minimums`, whoever is dropped at one count is dropped at every higher one, so one order of the
    experts per layer says it all. With them, experts are swapped at each count anew. The recipe's own count has to be
    possible, and is always worked out. Raises as `decide` does.
    """
    decision = decide(contributions, recipe, second)
    criterion, shape = shown_criterion(contributions), contributions.shape
    values = class_values(contributions, Measure(criterion=criterion)).values
    order = np.broadcast_to(decision.order, (shape.layers, shape.experts))
    staying = np.take_along_axis(values, order[None, :, ::-1], axis=2).sum(axis=1)  # [C, E], last dropped first
    kept = np.zeros((len(values), shape.experts + 1))
    kept[:, :-1] = np.cumsum(staying, axis=1)[:, ::-1]
    total = kept[:, :1].copy()
    forced = int(decision.protection.force_keep.sum(axis=1).max())
    most = shape.experts - max(shape.top_k, forced)
    counts = tuple(range(shape.experts + 1))
    if recipe.class_minimums:
        work = len(decision.cut) * len(recipe.class_minimums)
        counts = _some(most, shape.groups, max(LEAST_COUNTS, MOST_WORK // work), recipe.drop_of(shape.experts))
        kept[:] = np.nan
        for count in counts:
            kept[:, count] = np.where(_dropped(decision, recipe, shape, count), 0.0, values).sum(axis=(1, 2))
    return DropCurve(
        criterion=criterion,
        classes=contributions.classes,
        counts=counts,
        kept_share=np.divide(kept, total, out=np.ones_like(kept), where=total > 0),
        most=most,
    )


def _some(most: int, step: int, wanted: int, own: int) -> tuple[int, ...]:
    """About `wanted` multiples of `step` from 0 to `most`, evenly spread, with `own` among them."""
    possible = np.arange(0, most + 1, step)
    chosen = possible[np.unique(np.linspace(0, len(possible) - 1, min(wanted, len(possible))).round().astype(int))]
    return tuple(sorted({*chosen.tolist(), own}))


def _dropped(decision: Decision, recipe: Recipe, shape: MoeShape, count: int) -> npt.NDArray[np.bool_]:
    """[R, E]: what the recipe would drop if it dropped `count`."""
    return after_minimums(replace(decision, cut=places(decision.order) < count), recipe, shape)
