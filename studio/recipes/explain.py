"""Why an expert stays or leaves: its scores and places, the rule that decided, and how far from the cut it lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError
from studio.recipes.boundary import boundaries
from studio.recipes.decision import Decision, by_groups, decide
from studio.recipes.protection import places
from studio.recipes.recipe import Recipe

Rule = Literal["score", "protected", "spared", "displaced", "released", "class_minimum", "force_keep", "force_drop"]
"""What decided:

score          the score alone (in its group, where the router chooses groups first)
protected      it stays although its score alone would drop it
spared         it stays although its score alone would drop it: a person chose others to leave in its place
displaced      it leaves although its score alone would keep it: others are protected in its place
released       it is protected, but more experts are than may be kept, and it is of the lowest priority among them
class_minimum  it came back, or gave way, so that a class reaches its minimum
force_keep     a person said so; force_drop too
"""


@dataclass(frozen=True)
class ClassStanding:
    """An expert in one class; `place` 1 is the highest of its layer."""

    klass: str
    weight: float
    value: float
    """The criterion, with outliers dealt with."""
    normalised: float
    """In the layer, or where all layers drop the same experts the mean over layers; `place` goes by it."""
    place: int


@dataclass(frozen=True)
class Explanation:
    """One expert of one layer."""

    layer: int
    expert: int
    kept: bool
    rule: Rule
    protected_by: tuple[str, ...]
    """Everything that protects it: `protect_top`, `protect_top_per_class: <class>`, `floor`."""
    score: float
    place: int
    """1 is the highest score of the layer; among equals the higher id, as the lower is dropped first."""
    experts: int
    boundary: float | None
    """The score between what is dropped and kept of the layer, or of its group: see `boundaries`. None where nothing
    is dropped by score."""
    distance: float | None
    """Score less boundary, None where one of them is missing or no number."""
    classes: tuple[ClassStanding, ...]


def explain(
    contributions: Contributions, recipe: Recipe, layer: int, expert: int, second: Contributions | None = None
) -> Explanation:
    """Why `recipe` keeps or drops `expert` of decoder layer `layer` (its id, not its position).

    Raises as `decide` does, `MismatchError` for a layer and `InputError` for an expert that the analysis has not.
    """
    shape = contributions.shape
    if layer not in shape.layer_ids:
        raise MismatchError(f"The analysis has no layer {layer}.")
    if not 0 <= expert < shape.experts:
        raise InputError(f"There is no expert {expert}; the ids go from 0 to {shape.experts - 1}.")
    decision = decide(contributions, recipe, second)
    position = shape.layer_ids.index(layer)
    row = position if recipe.scope == "layer" else 0
    score = decision.scored.score[row]
    group = np.arange(shape.experts) // shape.group_size
    boundary = float(boundaries(decision, group == group[expert])[row])
    distance = float(score[expert]) - boundary
    lowest_first = np.argsort(score, kind="stable")
    ascending, taking_turns = places(lowest_first), places(by_groups(lowest_first[None], shape)[0])
    return Explanation(
        layer=layer,
        expert=expert,
        kept=not decision.dropped[row, expert],
        rule=_rule(decision, row, expert, by_score=bool(taking_turns[expert] >= decision.cut[row].sum())),
        protected_by=_protected_by(decision, row, expert),
        score=float(score[expert]),
        place=shape.experts - int(ascending[expert]),
        experts=shape.experts,
        boundary=None if math.isnan(boundary) else boundary,
        distance=distance if math.isfinite(distance) else None,
        classes=_standings(decision, position, row, expert),
    )


def _rule(decision: Decision, row: int, expert: int, *, by_score: bool) -> Rule:
    """`by_score`: whether the score alone would keep it."""
    shield, cut, dropped = decision.protection, decision.cut[row, expert], decision.dropped[row, expert]
    if shield.force_keep[row, expert] or shield.force_drop[row, expert]:
        return "force_keep" if shield.force_keep[row, expert] else "force_drop"
    if cut != dropped:
        return "class_minimum"
    if cut and shield.asked[row, expert]:
        return "released"
    if cut == (not by_score):
        return "score"
    if cut:
        return "displaced"
    return "protected" if shield.asked[row, expert] else "spared"


def _protected_by(decision: Decision, row: int, expert: int) -> tuple[str, ...]:
    shield = decision.protection
    of_classes = zip(decision.scored.weights, shield.per_class[:, row, expert], strict=False)
    return (
        *(["protect_top"] if shield.top[row, expert] else []),
        *(f"protect_top_per_class: {klass}" for klass, best in of_classes if best),
        *(["floor"] if shield.floor[row, expert] else []),
    )


def _standings(decision: Decision, position: int, row: int, expert: int) -> tuple[ClassStanding, ...]:
    values, normalised = decision.scored.values[:, position, expert], decision.scored.normalised[:, row]
    return tuple(
        ClassStanding(
            klass, weight, float(values[index]), float(normalised[index, expert]), _place(normalised[index], expert)
        )
        for index, (klass, weight) in enumerate(decision.scored.weights.items())
    )


def _place(values: npt.NDArray[np.float64], expert: int) -> int:
    """1 for the highest; who is protected in a class is found by this place, so lower ids come first among equals."""
    return 1 + int(places(np.argsort(-values, kind="stable"))[expert])
