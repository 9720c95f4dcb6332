"""How alike the weights of experts are: whether two of them could be averaged without destroying both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from studio.checkpoints.expert_weights import ExpertWeights, Matrix
from studio.errors import InputError
from studio.progress import Progress, silent

ALIKE = 0.5
"""A cosine above which two experts have more in common than apart: cos² says how much of one lies along the other."""


@dataclass(frozen=True)
class LayerSimilarity:
    """Cosines between all weights of two experts of a layer, neuron by neuron in their order."""

    layer: int
    pairs: int
    mean: float
    """Of the absolute values."""
    largest: float
    experts: tuple[int, int]
    """Whose the largest is."""


def similarity(
    weights: ExpertWeights, *, layers: int = 4, pairs: int = 64, seed: int = 0, progress: Progress = silent
) -> tuple[LayerSimilarity, ...]:
    """Cosines in `layers` layers, of `pairs` pairs in each, both drawn by lot with `seed`; all where there are fewer.

    Two experts are in memory at a time. Raises `InputError` where nothing is asked for, or a model has single experts,
    and what `ExpertWeights` raises.
    """
    if layers < 1 or pairs < 1:
        raise InputError(f"{layers} layers with {pairs} pairs are nothing to compare.", "Ask for at least one of both.")
    experts = weights.shape.experts
    if experts < 2:
        raise InputError(f"{weights.path} has one expert per layer, and no other to compare it with.")
    lots = np.random.default_rng(seed)
    count = min(layers, weights.shape.layers)
    rows = np.sort(lots.choice(weights.shape.layers, count, replace=False))
    found = []
    for done, row in enumerate(rows):
        drawn = _pairs(experts, pairs, lots)
        layer = weights.shape.layer_ids[row]

        def told(compared: int, layer: int = layer, before: int = done * len(drawn), each: int = len(drawn)) -> None:
            progress(before + compared, count * each, "pairs", f"Comparing the experts of layer {layer}")

        found.append(_compare(weights, layer, drawn, told))
    return tuple(found)


def in_words(found: Sequence[LayerSimilarity]) -> str:
    """What `similarity` found, in sentences."""
    closest = max(found, key=lambda one: one.largest)
    a, b = closest.experts
    meaning = (
        "These two are much alike: one may stand in for both."
        if closest.largest > ALIKE
        else "So no two of them are near copies, and averaging experts would destroy both."
    )
    return (
        f"Among {sum(one.pairs for one in found)} pairs in {len(found)} layers the most alike are experts {a} and {b} "
        f"of layer {closest.layer}, with a cosine of {closest.largest:.3f}; on average it "
        f"is {np.mean([one.mean for one in found]):.3f} away from 0 (0: nothing in common, 1: the same). {meaning}"
    )


def _pairs(experts: int, count: int, lots: np.random.Generator) -> list[tuple[int, int]]:
    """Different pairs (a, b) with a < b, those with the same a behind each other, so that a is read once."""
    first, second = np.triu_indices(experts, 1)
    drawn = np.sort(lots.choice(len(first), min(count, len(first)), replace=False))
    return [(int(first[index]), int(second[index])) for index in drawn]


def _compare(
    weights: ExpertWeights, layer: int, pairs: Sequence[tuple[int, int]], told: Callable[[int], None]
) -> LayerSimilarity:
    cosines = np.zeros(len(pairs))
    held: tuple[int, Matrix] | None = None
    for index, (a, b) in enumerate(pairs):
        told(index)
        if held is None or held[0] != a:
            held = (a, _unit(weights.flat(layer, a)))
        cosines[index] = float(held[1] @ _unit(weights.flat(layer, b)))
    told(len(pairs))
    most = int(cosines.argmax())
    return LayerSimilarity(layer, len(pairs), float(np.abs(cosines).mean()), float(cosines[most]), pairs[most])


def _unit(weights: Matrix) -> Matrix:
    """`weights` with length 1; zeros stay as they are, and are like nothing."""
    length = float(np.linalg.norm(weights))
    return weights if length == 0 else weights / np.float32(length)
