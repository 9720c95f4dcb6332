"""From class values to one score per expert: normalising `[C, L, E]` and combining it into `[L, E]`. Pure arrays.

The formulas are those of the published map generator (see `Recipe`); rows are one class in one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from studio.recipes.recipe import Aggregate, Arithmetic, Normalise

Array = npt.NDArray[np.float64]

TINY = 1e-12
"""Keeps logarithms and divisions defined, as in the published generator."""
_SHARPNESS = 4.0
"""τ of `softmax_t4`."""


def rank(values: Array) -> Array:
    """Ranks along the last axis, 0 (lowest) to 1 (highest); among equals the lower id has the lower rank."""
    experts = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    ranks = np.empty_like(values)
    steps = np.arange(experts, dtype=np.float64) / max(experts - 1, 1)
    np.put_along_axis(ranks, order, np.broadcast_to(steps, values.shape), axis=-1)
    return ranks


def normalise(values: Array, mode: Normalise, arithmetic: Arithmetic = "espalier") -> Array:
    """`values` [C, L, E] made comparable between classes and layers."""
    if mode == "rank":
        return rank(values)
    if mode == "mean":
        means = _row_means(values) if arithmetic == "espalier" else values.mean(axis=-1, keepdims=True)
        result: Array = values / np.maximum(means, TINY)
        return result
    if mode == "zscore":
        return _zscores(values)
    return values


def _zscores(values: Array) -> Array:
    """Standard deviations above the mean of the row; 0 where experts do not differ; −∞ stays and does not count."""
    counted = ~np.isneginf(values)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.where(counted, values - _row_means(values), 0.0)
        variances = _row_means(np.where(counted, apart**2, -np.inf))
    scores = np.divide(apart, np.sqrt(variances), out=np.zeros_like(values), where=variances > 0)
    # NaN, which only outliers that are kept bring, makes its whole row NaN, as a mean does.
    scores = np.where(np.isnan(variances), np.nan, scores)
    result: Array = np.where(counted, scores, -np.inf)
    return result


def _row_means(values: Array) -> Array:
    """Mean over experts, [C, L, 1]; an expert that outliers put at −∞ does not count."""
    counted = ~np.isneginf(values)
    total = np.where(counted, values, 0.0).sum(axis=-1, keepdims=True)
    result: Array = total / np.maximum(counted.sum(axis=-1, keepdims=True), 1)
    return result


def combine(values: Array, weights: Array, aggregate: Aggregate, arithmetic: Arithmetic = "espalier") -> Array:
    """One score per expert, [L, E], from `values` [C, L, E] and `weights` [C], positive unless `published`."""
    known = _AGGREGATES if arithmetic == "espalier" else _PUBLISHED
    with np.errstate(invalid="ignore"):  # published, −∞ times a weight of 0 is NaN
        return known[aggregate](values, weights[:, None, None])


def _sum(values: Array, weights: Array) -> Array:
    result: Array = (values * weights).sum(axis=0)
    return result


def _mean(values: Array, weights: Array) -> Array:
    result: Array = _sum(values, weights) / weights.sum()
    return result


def _max(values: Array, weights: Array) -> Array:
    result: Array = (values * weights).max(axis=0)
    return result


def _geomean(values: Array, weights: Array) -> Array:
    result: Array = np.exp(_mean(np.log(np.maximum(values, TINY)), weights))
    return result


def _lp4(values: Array, weights: Array) -> Array:
    result: Array = _sum(np.maximum(values, 0.0) ** 4, weights) ** 0.25
    return result


def _softmax_t4(values: Array, weights: Array) -> Array:
    weighted = values * weights
    highest = weighted.max(axis=0)
    offset = np.where(np.isneginf(highest), 0.0, highest)  # −∞ − (−∞) would be NaN
    with np.errstate(divide="ignore"):
        result: Array = offset + np.log(np.exp(_SHARPNESS * (weighted - offset)).sum(axis=0)) / _SHARPNESS
    return result


def _second(values: Array, weights: Array) -> Array:
    ordered = np.sort(values * weights, axis=0)
    result: Array = ordered[-min(2, len(ordered))]
    return result


def _top3mean(values: Array, weights: Array) -> Array:
    result: Array = np.sort(values * weights, axis=0)[:-4:-1].mean(axis=0)
    return result


_AGGREGATES: Mapping[Aggregate, Callable[[Array, Array], Array]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "geomean": _geomean,
    "lp4": _lp4,
    "softmax_t4": _softmax_t4,
    "second": _second,
    "top3mean": _top3mean,
}


def _lp4_as_it_comes(values: Array, weights: Array) -> Array:
    result: Array = _sum(values**4, weights) ** 0.25
    return result


def _second_below_nan(values: Array, weights: Array) -> Array:
    descending = -np.sort(-(values * weights), axis=0)  # NaN last, so lowest
    result: Array = descending[min(1, len(descending) - 1)]
    return result


def _top3mean_below_nan(values: Array, weights: Array) -> Array:
    result: Array = (-np.sort(-(values * weights), axis=0))[:3].mean(axis=0)
    return result


_PUBLISHED: Mapping[Aggregate, Callable[[Array, Array], Array]] = {
    **_AGGREGATES,
    "lp4": _lp4_as_it_comes,
    "second": _second_below_nan,
    "top3mean": _top3mean_below_nan,
}
"""The same to the letter of the published generator, which differs where values are −∞ or NaN."""
