"""How much of each class's contribution stays, for every number of dropped experts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.recipes.criteria import Measure, class_values, shown_criterion
from studio.recipes.decision import decide
from studio.recipes.recipe import Criterion, Recipe

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DropCurve:
    """Shares, 0 to 1, over all layers; index n of the last axis is what stays when n experts leave every layer."""

    criterion: Criterion
    """What was shared out, as in `Preview`."""
    classes: tuple[str, ...]
    kept_share: Array
    """[C, E + 1], from 1 to 0; 1 throughout for a class without any contribution."""
    most: int
    """The most that may be dropped: what top-k and `force_keep` leave."""
    without_minimums: bool
    """Whether the recipe has `class_minimums`, which would swap experts at each count and are not in the curve."""

    def most_keeping(self, share: float) -> int:
        """The most that can be dropped before a class keeps less than `share`."""
        return min(self.most, int((self.kept_share >= share).all(axis=0).sum()) - 1)


def drop_curve(contributions: Contributions, recipe: Recipe, second: Contributions | None = None) -> DropCurve:
    """What `preview` would say of the recipe's map at every count, but for `class_minimums`.

    Whoever is dropped at one count is dropped at every higher one, so one order of the experts per layer says it all.
    The recipe's own count does not matter, but has to be possible. Raises as `decide` does.
    """
    decision = decide(contributions, recipe.but(class_minimums=[]), second)
    criterion = shown_criterion(contributions)
    values = class_values(contributions, Measure(criterion=criterion)).values
    shape = contributions.shape
    order = np.broadcast_to(decision.order, (shape.layers, shape.experts))
    staying = np.take_along_axis(values, order[None, :, ::-1], axis=2).sum(axis=1)  # [C, E], last dropped first
    kept = np.zeros((len(values), shape.experts + 1))
    kept[:, :-1] = np.cumsum(staying, axis=1)[:, ::-1]
    total = kept[:, :1]
    forced = int(decision.protection.force_keep.sum(axis=1).max())
    return DropCurve(
        criterion=criterion,
        classes=contributions.classes,
        kept_share=np.divide(kept, total, out=np.ones_like(kept), where=total > 0),
        most=shape.experts - max(shape.top_k, forced),
        without_minimums=bool(recipe.class_minimums),
    )
