"""From the six sums to one value per class, layer and expert, with outliers dealt with. Computed once per analysis.

Moving a slider changes neither the criterion nor the outliers, so what is computed here is kept beside the
`Contributions` for as long as those live; everything after it is fast enough for a live page.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.recipes.recipe import Criterion, Outliers, Recipe

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

OUTLIER_FACTOR = 1e6
"""Without a threshold, an entry is an outlier beyond this many times the median of its layer's positive entries.

Real weighted norms of one layer lie within three or four powers of ten of each other; overflow artefacts (3.9e18 in a
published analysis) lie fifteen away.
"""
_KEPT_RESULTS = 16
"""Class values kept per analysis; one has 3 MiB at 16 classes, 61 layers and 384 experts."""

_SUMMED: Mapping[Criterion, str] = {
    "contribution": "weighted_norm",
    "frequency": "tokens",
    "gate": "gate",
    "reap": "weighted_norm",
    "ean": "norm",
    "ean_mean": "norm",
}
"""Criteria that are sums over tokens, or means of them."""
PER_TOKEN = ("reap", "ean_mean")
"""Criteria that are means over the routed tokens."""
_SHOWN: Mapping[Criterion, str] = {
    "contribution": "weighted_norm",
    "weighted_norm": "weighted_norm_squared",
    "ean": "norm",
    "norm": "norm_squared",
    "frequency": "tokens",
}


@dataclass(frozen=True)
class Measure:
    """The fields of a recipe on which class values depend."""

    criterion: Criterion = "weighted_norm"
    alpha: float = 1.0
    add_tokens: bool = False
    protect_top_per_question: int = 16
    outliers: Outliers = "median"
    outlier_threshold: float | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Measure:
        return cls(**{field.name: getattr(recipe, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class ClassValues:
    """`values` [C, L, E], read-only, in the order of `Contributions.classes`; `outliers`: entries that were treated."""

    values: Array
    outliers: int


_lock = threading.Lock()
_results: WeakKeyDictionary[Contributions, OrderedDict[Measure, ClassValues]] = WeakKeyDictionary()


def class_values(contributions: Contributions, measure: Measure) -> ClassValues:
    """What `measure` says about every class and expert; remembered.

    Raises `InputError` when the analysis lacks a sum that the criterion needs.
    """
    with _lock:
        known = _results.setdefault(contributions, OrderedDict())
        if measure in known:
            known.move_to_end(measure)
            return known[measure]
    with np.errstate(over="ignore", invalid="ignore"):  # huge factors and sums: `scored` says so
        result = _compute(contributions, measure)
    result.values.flags.writeable = False
    with _lock:
        known[measure] = result
        while len(known) > _KEPT_RESULTS:
            known.popitem(last=False)
    return result


def _compute(contributions: Contributions, measure: Measure) -> ClassValues:
    criterion = _per_question(contributions, measure.criterion)
    needs_tokens = measure.add_tokens or measure.criterion in PER_TOKEN
    tokens = contributions.sum("tokens") if needs_tokens else np.zeros(1)
    outliers = _outliers(criterion, tokens, measure)
    if measure.criterion == "coverage":
        vouched = _top_per_question(_treated(criterion, outliers, measure.outliers), measure.protect_top_per_question)
        values = measure.alpha * contributions.per_class(vouched.astype(np.float64))
    elif measure.criterion in PER_TOKEN:
        # Unused experts have 0 / 1. An outlier that is to be dropped has −∞ above the line, and nothing odd below it.
        below = _treated(tokens, outliers, "zero" if measure.outliers == "drop" else measure.outliers)
        above = contributions.per_class(_treated(criterion, outliers, measure.outliers))
        values = measure.alpha * above / np.maximum(contributions.per_class(below), 1.0)
    else:
        # The published score: an outlier's whole score is replaced, its tokens included.
        values = contributions.per_class(_treated(measure.alpha * criterion + tokens, outliers, measure.outliers))
    return ClassValues(values, int(outliers.sum()))


def shown_criterion(contributions: Contributions) -> Criterion:
    """What stands for "contribution" in previews and figures: Σ‖g·f‖, else the next best that the analysis has."""
    for criterion, needed in _SHOWN.items():
        if needed in contributions.sums:
            return criterion
    return "gate"


def fitting(recipe: Recipe, contributions: Contributions) -> Recipe:
    """`recipe`, or where the analysis lacks a sum that it needs, the same by the next best criterion that it has.

    Analyses that were imported often have fewer sums than the published recipes were made for.
    """
    criterion = recipe.criterion
    needed = {_SUMMED.get(criterion, "norm_squared" if criterion == "norm" else "weighted_norm_squared")}
    needed |= {"tokens"} if recipe.add_tokens or criterion in PER_TOKEN else set()
    if needed <= contributions.sums.keys():
        return recipe
    best = shown_criterion(contributions)
    return recipe.but(criterion=best, add_tokens=False, protect_top_per_question=Measure.protect_top_per_question)


def _per_question(contributions: Contributions, criterion: Criterion) -> Array:
    """The part of `criterion` that adds up over questions, [Q, L, E]; what outliers are judged by."""
    if criterion in _SUMMED:
        return contributions.sum(_SUMMED[criterion])
    return contributions.question_norm(weighted=criterion != "norm")


def _outliers(criterion: Array, tokens: Array, measure: Measure) -> Mask:
    """Entries that must not decide anything, [Q, L, E]; none when they are to be kept."""
    if measure.outliers == "keep":
        return np.zeros(criterion.shape, dtype=np.bool_)
    limit = measure.outlier_threshold
    limits = _credible_limits(criterion) if limit is None else np.array(limit)
    with np.errstate(invalid="ignore"):
        outliers: Mask = ~(np.abs(criterion) <= limits) | ~np.isfinite(tokens)  # NaN compares false
    return outliers


def _credible_limits(values: Array) -> Array:
    """Largest credible value per layer, [L, 1]; infinity excluded even where a layer has nothing to compare with."""
    layers = values.shape[1]
    limits = np.full((layers, 1), np.finfo(np.float64).max)
    for layer in range(layers):
        row = values[:, layer]
        positive = row[(row > 0) & np.isfinite(row)]
        if positive.size:
            limits[layer] = OUTLIER_FACTOR * float(np.median(positive))
    return limits


def _treated(values: Array, outliers: Mask, mode: Outliers) -> Array:
    """`values` with its outliers replaced as `mode` says."""
    if mode == "keep" or not outliers.any():
        return values
    if mode == "median":
        return np.where(outliers, _clean_medians(values, outliers), values)
    return np.where(outliers, 0.0 if mode == "zero" else -np.inf, values)


def _clean_medians(values: Array, outliers: Mask) -> Array:
    """Median over the experts of a question and layer that are no outliers, [Q, L, 1]; 0 where all are.

    Two sorted columns instead of `np.nanmedian`, which walks row by row.
    """
    result = np.zeros((*values.shape[:2], 1))
    rows = outliers.any(axis=2)
    ordered = np.sort(np.where(outliers[rows], np.inf, values[rows]), axis=1)
    clean = values.shape[2] - outliers[rows].sum(axis=1, keepdims=True)
    lower = np.take_along_axis(ordered, np.maximum(clean - 1, 0) // 2, axis=1)
    upper = np.take_along_axis(ordered, clean // 2 % values.shape[2], axis=1)
    result[rows] = np.where(clean > 0, (lower + upper) / 2, 0.0)
    return result


def _top_per_question(norms: Array, count: int) -> Mask:
    """The `count` highest entries of every question and layer, lower ids first; an unused expert is never one."""
    count = min(count, norms.shape[2])
    last = np.partition(norms, -count, axis=2)[..., -count, None]
    above = norms > last
    level = norms == last
    room = count - above.sum(axis=2, keepdims=True)
    result: Mask = (above | (level & (np.cumsum(level, axis=2) <= room))) & (norms > 0)
    return result
