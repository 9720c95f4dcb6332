"""An optimiser over the parameters of a recipe: optuna's tree-structured Parzen estimator."""

from __future__ import annotations

import math
from typing import Any

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.evaluate.search_candidates import PUBLISHED_SCORE, measured_by
from studio.recipes.recipe import Recipe

LOWEST_WEIGHT, HIGHEST_WEIGHT = 0.25, 4.0
MOST_BREADTH = 1.0
NORMALISE = ("none", "mean", "rank", "zscore")
AGGREGATE = ("sum", "max", "lp4", "softmax_t4", "second", "top3mean")
"""geomean is left out: it needs values above 0."""
STARTS = 12
"""Recipes by lot before the optimiser believes what it has seen."""


class Tuner:
    """Recipes that drop `drop` experts, one after the other, each chosen by what the ones before have done.

    The same `seed` and the same answers give the same recipes. Raises `InputError` where optuna is not installed.
    """

    def __init__(self, contributions: Contributions, drop: int, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise InputError("The search needs optuna, which is not installed.", "Run: pip install optuna") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._contributions = contributions
        self._drop = drop
        self._failed = optuna.trial.TrialState.FAIL
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTS)
        self._study = optuna.create_study(direction="minimize", sampler=sampler)
        self._measures = measured_by(contributions)
        self._trial: Any = None
        for name, normalise, aggregate in _KNOWN:
            if name in self._measures:
                self._study.enqueue_trial(self._plain(name, normalise, aggregate))

    def ask(self) -> Recipe:
        """The next recipe to try; parameters that make none are passed over."""
        while True:
            self._trial = self._study.ask()
            try:
                return self._recipe()
            except InputError:
                self.tell(None)

    def tell(self, divergence: float | None) -> None:
        """What that recipe does; None when it gives no map, or nothing that can be compared."""
        if divergence is None or not math.isfinite(divergence):
            self._study.tell(self._trial, state=self._failed)
        else:
            self._study.tell(self._trial, divergence)

    def _recipe(self) -> Recipe:
        """What the trial's parameters say; `InputError` where a recipe cannot have them together."""
        fields = self._measures[self._trial.suggest_categorical("measure", list(self._measures))]
        classes = self._contributions.classes
        return Recipe(
            drop=self._drop,
            normalise=self._trial.suggest_categorical("normalise", NORMALISE),
            aggregate=self._trial.suggest_categorical("aggregate", AGGREGATE),
            breadth_bonus=round(self._trial.suggest_float("breadth_bonus", 0.0, MOST_BREADTH), 3),
            class_weights={klass: self._weight(klass) for klass in classes} if len(classes) > 1 else {},
            protect_top_per_class=self._trial.suggest_int("protect_top_per_class", 0, self._most_protected),
            **fields,
        )

    def _plain(self, name: str, normalise: str, aggregate: str) -> dict[str, Any]:
        """The parameters of a recipe that weighs all classes alike."""
        weights = {f"weight {klass}": 1.0 for klass in self._contributions.classes}
        plain = {"breadth_bonus": 0.0, "protect_top_per_class": 0}
        return {"measure": name, "normalise": normalise, "aggregate": aggregate, **plain, **weights}

    def _weight(self, klass: str) -> float:
        return round(float(self._trial.suggest_float(f"weight {klass}", LOWEST_WEIGHT, HIGHEST_WEIGHT, log=True)), 3)

    @property
    def _most_protected(self) -> int:
        """So that protecting leaves something to choose: half of what stays, if no two classes share an expert."""
        kept = self._contributions.shape.experts - self._drop
        return max(0, kept // (2 * len(self._contributions.classes)))


_KNOWN = (
    ("frequency", "none", "sum"),
    ("ean", "none", "sum"),
    ("reap", "none", "sum"),
    (PUBLISHED_SCORE, "none", "sum"),
    (PUBLISHED_SCORE, "mean", "max"),
)
"""The fixed criteria in the optimiser's own terms: what it is told first."""
