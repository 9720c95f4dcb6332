"""What an analysis says about a model before anything is chosen: how concentrated, how shared, how sure.

All functions are pure; values are contributions [..., L, E] from `measured`, in which nothing is negative or infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SURE = 0.95
"""A reliability at which more questions change a ranking hardly any more."""


@dataclass(frozen=True)
class Specialist:
    """An expert of which one class has more than its share."""

    klass: str
    layer: int
    expert: int
    share: float
    """Of the expert's contribution to all classes, each class counting the same, 0 to 1."""


MEASURES = {
    "weighted_norm_squared": "the norm of an expert's weighted outputs for a question",
    "weighted_norm": "the sum of the norms of an expert's weighted outputs",
    "norm_squared": "the norm of an expert's outputs for a question, before they are weighted",
    "norm": "the sum of the norms of an expert's outputs, before they are weighted",
    "tokens": "the routed tokens, because there are no norms",
}
"""Sums by which a contribution can be measured, the best first, and what they measure."""


def measuring_sum(contributions: Contributions) -> str:
    """The first of `MEASURES` that the analysis has; `InputError` when it has none."""
    known = [name for name in MEASURES if name in contributions.sums]
    if not known:
        raise InputError(
            f"This analysis has none of {', '.join(MEASURES)}, and so does not tell what experts contribute."
        )
    return known[0]


def measured(contributions: Contributions) -> Array:
    """The contribution of each expert to each question, [Q, L, E], by the `measuring_sum`.

    Of squares the root is taken: √Σ‖g·f‖². What is not finite becomes the median of its question and layer.
    """
    name = measuring_sum(contributions)
    values = np.sqrt(contributions.sum(name)) if name.endswith("_squared") else contributions.sum(name)
    if np.isfinite(values).all():
        return values
    finite = np.where(np.isfinite(values), values, np.nan)
    with np.errstate(all="ignore"):
        median = np.nan_to_num(np.nanmedian(finite, axis=2, keepdims=True))
    return np.where(np.isnan(finite), median, finite)


def gini(values: Array) -> Array:
    """Gini coefficient of each layer, [L] of [L, E]: 0 where all experts give the same, near 1 where one gives all."""
    ordered = np.sort(values, axis=1)
    experts = values.shape[1]
    position = np.arange(1, experts + 1)
    total = ordered.sum(axis=1)
    weighted = 2 * (position * ordered).sum(axis=1)
    spread: Array = np.divide(weighted, experts * total, out=np.zeros_like(total), where=total > 0)
    return np.where(total > 0, spread - (experts + 1) / experts, 0.0)


def experts_for(values: Array, share: float = 0.8) -> Counts:
    """How many experts of each layer give `share` of its contribution, [L] of [L, E]."""
    if not 0 < share <= 1:
        raise InputError(f"A share of {share} makes no sense.", "Give more than 0 and at most 1.")
    ordered = -np.sort(-values, axis=1)
    reached = np.cumsum(ordered, axis=1) < share * ordered.sum(axis=1, keepdims=True) * (1 - 1e-12)
    counts: Counts = reached.sum(axis=1) + 1
    return counts


def layer_importance(values: Array) -> Array:
    """Contribution of each layer, [L] of [L, E], relative to the largest."""
    total: Array = values.sum(axis=1)
    return total / total.max() if total.max() > 0 else total


def class_overlap(per_class: Array, top: int) -> Array:
    """How many of the `top` experts two classes share, [C, C] of [C, L, E], the mean over layers."""
    ranked = np.argsort(-per_class, axis=2, kind="stable")[..., :top]
    chosen = np.zeros(per_class.shape)
    np.put_along_axis(chosen, ranked, 1.0, axis=2)
    overlap: Array = np.einsum("ale,ble->ab", chosen, chosen) / per_class.shape[1]
    return overlap


def unused(contributions: Contributions) -> tuple[tuple[int, int], ...]:
    """(layer, expert) of those that no token was routed to."""
    never = contributions.sum("tokens").sum(axis=0) == 0
    return tuple((contributions.shape.layer_ids[layer], int(expert)) for layer, expert in np.argwhere(never))


def specialists(contributions: Contributions, most: int = 20) -> tuple[Specialist, ...]:
    """The `most` experts that belong to one class most of all, the clearest first."""
    shares = contributions.per_class(measured(contributions))
    totals = shares.sum(axis=2, keepdims=True)
    shares = np.divide(shares, totals, out=np.zeros_like(shares), where=totals > 0)  # classes differ in tokens
    together = shares.sum(axis=0)
    part = np.divide(shares, together, out=np.zeros_like(shares), where=together > 0)
    best = part.max(axis=0)
    order = np.argsort(-best, axis=None, kind="stable")[:most]
    found = []
    for layer, expert in zip(*np.unravel_index(order, best.shape), strict=True):
        klass = contributions.classes[int(part[:, layer, expert].argmax())]
        layer_id = contributions.shape.layer_ids[layer]
        found.append(Specialist(klass, layer_id, int(expert), float(best[layer, expert])))
    return tuple(found)


def split_half(values: Array, rounds: int = 8, seed: int = 0) -> Array:
    """How well two halves of the questions agree, [L] of [Q, L, E]: Spearman's correlation.

    The mean over `rounds` ways of halving them by lot. Raises `InputError` for fewer than two questions.
    """
    questions = values.shape[0]
    if questions < 2:
        raise InputError(
            "One question cannot be compared with others.", "Analyze more questions, or import them apart."
        )
    lots = np.random.default_rng(seed)
    correlations = []
    for _ in range(rounds):
        order = lots.permutation(questions)
        halves = [values[half].sum(axis=0) for half in (order[: questions // 2], order[questions // 2 :])]
        correlations.append(spearman(*halves))
    mean: Array = np.mean(correlations, axis=0)
    return mean


def spearman(first: Array, second: Array) -> Array:
    """Rank correlation of each layer, [L] of two [L, E]; 0 where one of them is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    centred = [one - one.mean(axis=1, keepdims=True) for one in ranks]
    scale = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    product = (centred[0] * centred[1]).sum(axis=1)
    correlation: Array = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return correlation


def enough_questions(values: Array, sure: float = SURE) -> int:
    """How many questions would give a ranking with the reliability `sure`, by the formula of Spearman and Brown.

    It extrapolates from the layer that is least sure, and from questions like these. Raises as `split_half`.
    """
    half = values.shape[0] / 2
    worst = float(np.clip(split_half(values).min(), 0.01, 1 - 1e-9))
    return int(np.ceil(half * sure * (1 - worst) / (worst * (1 - sure))))


def _ranks(values: Array) -> Array:
    """Ranks from 0 within each row; equals share their mean rank."""
    ranks = np.empty(values.shape)
    for row, line in enumerate(values):
        _, place, count = np.unique(line, return_inverse=True, return_counts=True)
        ranks[row] = (np.cumsum(count) - (count + 1) / 2)[place]
    return ranks
