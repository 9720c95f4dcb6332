"""From class values to one score per expert: normalising `[C, L, E]` and combining it into `[L, E]`. Pure arrays.

The formulas are those of the published map generator (see `Recipe`); rows are one class in one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from studio.recipes.recipe import Aggregate, Normalise

Array = npt.NDArray[np.float64]

_TINY = 1e-12
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


def normalise(values: Array, mode: Normalise) -> Array:
    """`values` [C, L, E] made comparable between classes and layers."""
    if mode == "rank":
        return rank(values)
    if mode == "mean":
        return values / np.maximum(_row_means(values), _TINY)
    return values


def _row_means(values: Array) -> Array:
    """Mean over experts, [C, L, 1]; an expert that outliers put at −∞ does not count."""
    counted = ~np.isneginf(values)
    total = np.where(counted, values, 0.0).sum(axis=-1, keepdims=True)
    result: Array = total / np.maximum(counted.sum(axis=-1, keepdims=True), 1)
    return result


def combine(values: Array, weights: Array, aggregate: Aggregate) -> Array:
    """One score per expert, [L, E], from `values` [C, L, E] and positive `weights` [C]."""
    return _AGGREGATES[aggregate](values, weights[:, None, None])


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
    result: Array = np.exp(_mean(np.log(np.maximum(values, _TINY)), weights))
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
