"""Minima per class: enough of the kept experts have their best class in each class that asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from studio.errors import InputError
from studio.recipes.protection import sorted_by

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


def require_known(minimums: Sequence[tuple[str, int]], classes: Sequence[str]) -> None:
    """Raise `InputError` for a minimum of a class that the floor analysis does not have."""
    if unknown := [klass for klass, _ in minimums if klass not in classes]:
        raise InputError(
            f"The floor analysis has no class {unknown[0]!r}, which class_minimums names.",
            f"It has {', '.join(classes)}.",
        )


def with_minimums(
    kept: Mask,
    scores: Array,
    best: Integers,
    minimums: Mapping[int, int],
    *,
    pinned: Mask,
    barred: Mask,
    group: Integers,
) -> Mask:
    """`kept` of one layer, [E], after as many swaps as its `minimums` (class index → count, in this order) need.

    The best dropped experts of a class come back, for the weakest kept ones of other classes that are not `pinned`: at
    first of classes that have more than their own minimum, then of any. Both are of one `group` [E]: each keeps its
    number. Who is `barred` never comes back. Where there is nobody to bring back, or nobody to give way, the minimum is
    not reached. Among equal scores, lower ids first.
    """
    kept = kept.copy()
    for klass, minimum in minimums.items():
        counts = np.bincount(best[kept], minlength=int(best.max()) + 1)
        missing = minimum - int(counts[klass]) if klass < len(counts) else 0
        if missing <= 0:
            continue
        returning = sorted_by(np.flatnonzero(~kept & ~barred & (best == klass)), -scores)
        spare = counts > np.array([minimums.get(index, 0) for index in range(len(counts))])
        leaving = np.flatnonzero(kept & ~pinned & (best != klass))
        willing = spare[best[leaving]]
        leaving = np.concatenate([sorted_by(leaving[willing], scores), sorted_by(leaving[~willing], scores)])
        weakest = {number: iter(leaving[group[leaving] == number]) for number in np.unique(group)}
        swaps = ((back, next(weakest[group[back]], None)) for back in returning)
        for back, away in islice(((back, away) for back, away in swaps if away is not None), missing):
            kept[back], kept[away] = True, False
    return kept
