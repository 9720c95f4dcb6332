"""What the heatmap shows: one number per layer and expert, and colour limits that an outlier cannot spoil."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.criteria import Measure, class_values, shown_criterion
from studio.recipes.recipe import Criterion
from studio.recipes.scoring import rank

Array = npt.NDArray[np.float64]
Scale = Literal["raw", "share", "rank"]

ALL_CLASSES = "all"
CLIPPED_PERCENT = 1.0
"""Colours end where this many percent of the values are more extreme."""


def view(
    contributions: Contributions,
    klass: str | tuple[str, str] = ALL_CLASSES,
    scale: Scale = "raw",
    criterion: Criterion | None = None,
) -> Array:
    """Numbers to colour, [L, E]: of one class, of all together (`ALL_CLASSES`), or the difference of two, (a, b).

    `raw` is the criterion itself (by default Σ‖g·f‖ or the next best sum) as measured: NaN and outliers included.
    `share` is an expert's share of its layer, `rank` its rank in the layer, 0 (lowest) to 1; there, outliers are
    replaced by the median of their neighbours, or one of them would blank its row. A difference is that of shares (also
    for `raw`, as classes differ in tokens) or of ranks, positive where the first class leans on the expert more.

    Raises `InputError` for an unknown class or scale, or a criterion whose sums the analysis lacks.
    """
    if scale not in ("raw", "share", "rank"):
        raise InputError(f"There is no scale {scale!r}.", "Choose raw, share or rank.")
    if isinstance(klass, tuple):
        comparable: Scale = "rank" if scale == "rank" else "share"
        first, second = klass
        return view(contributions, first, comparable, criterion) - view(contributions, second, comparable, criterion)
    measure = Measure(
        criterion=criterion or shown_criterion(contributions), outliers="keep" if scale == "raw" else "median"
    )
    values: Array = class_values(contributions, measure).values[_classes(contributions, klass)].sum(axis=0)
    if scale == "rank":
        return rank(values)
    if scale == "share":
        total = values.sum(axis=1, keepdims=True)
        values = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    return values


def colour_limits(values: Array, *, signed: bool = False) -> tuple[float, float]:
    """Where the colours begin and end, lowest first and never equal: 0 and a high percentile of the finite values.

    `signed` (for a difference) puts 0 in the middle, and takes the percentile of the absolute values.
    """
    finite = np.abs(values[np.isfinite(values)])
    reach = 0.0
    if finite.size:
        reach = float(np.percentile(finite, 100 - CLIPPED_PERCENT)) or float(finite.max())
    reach = reach or 1.0
    return (-reach if signed else 0.0), reach


def _classes(contributions: Contributions, klass: str) -> list[int]:
    """Positions of the classes to add up."""
    if klass == ALL_CLASSES:
        return list(range(len(contributions.classes)))
    if klass not in contributions.classes:
        raise InputError(
            f"The analysis has no class {klass!r}.", f"It has {', '.join(contributions.classes)}, or {ALL_CLASSES}."
        )
    return [contributions.classes.index(klass)]
