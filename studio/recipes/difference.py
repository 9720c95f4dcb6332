"""Two maps side by side: where they agree, and what the change means for each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import MismatchError
from studio.recipes.criteria import Measure, class_values, shown_criterion
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Criterion

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassChange:
    """Shares, 0 to 1, of a class's contribution over all layers; both 0 for a class without any."""

    klass: str
    gained: float
    """What the experts carry that only the second map keeps."""
    lost: float
    """What the experts carry that only the first map keeps."""

    @property
    def net(self) -> float:
        return self.gained - self.lost


@dataclass(frozen=True, eq=False)
class MapDifference:
    """From a first map to a second one of the same grid."""

    layer_ids: tuple[int, ...]
    agreement: Array
    """[L]: the share of experts whose fate is the same in both, 0 to 1."""
    both_drop: npt.NDArray[np.int64]
    """[L]: experts that both drop: `overlap_vs_baseline` of published summaries."""
    comes_back: tuple[tuple[int, ...], ...]
    """Per layer the ids that only the first map drops."""
    leaves: tuple[tuple[int, ...], ...]
    """Per layer the ids that only the second map drops."""


def map_difference(first: DropMap, second: DropMap) -> MapDifference:
    """`MismatchError` for maps of different grids; they may drop different numbers of experts."""
    if first.experts != second.experts or first.layer_ids != second.layer_ids:
        raise MismatchError(
            f"One map is for {first.layers} layers of {first.experts} experts, and the other for {second.layers} of "
            f"{second.experts}.",
            "Compare maps of one model.",
        )
    one, other = first.mask, second.mask
    return MapDifference(
        layer_ids=first.layer_ids,
        agreement=(one == other).mean(axis=1),
        both_drop=(one & other).sum(axis=1),
        comes_back=_ids(one & ~other),
        leaves=_ids(other & ~one),
    )


def class_changes(
    contributions: Contributions, first: DropMap, second: DropMap
) -> tuple[Criterion, tuple[ClassChange, ...]]:
    """What was shared out (see `Preview`), and the change of every class, from `first` to `second`.

    `MismatchError` when a map is for another grid than `contributions`.
    """
    for drop in (first, second):
        drop.check_grid(contributions.shape, "the analysis")
    criterion = shown_criterion(contributions)
    values = class_values(contributions, Measure(criterion=criterion)).values
    total = values.sum(axis=(1, 2))
    gained, lost = (
        np.divide(values[:, moved].sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
        for moved in (first.mask & ~second.mask, second.mask & ~first.mask)
    )
    changes = zip(contributions.classes, gained.tolist(), lost.tolist(), strict=True)
    return criterion, tuple(ClassChange(*change) for change in changes)


def _ids(mask: npt.NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in mask)
