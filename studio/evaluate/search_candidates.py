"""Recipes worth trying without any search: the published ways to choose experts, and each class weighted once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from studio.contributions.model import Contributions
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from studio.recipes.recipe import Recipe

WEIGHTED = 3.0
"""What one class counts, where one counts more than the others: as code in 98e-v5-coder."""

PUBLISHED_SCORE = "2·weighted_norm + tokens"

_TOKENS, _NORM, _WEIGHTED = {"tokens"}, {"norm"}, {"weighted_norm"}
_QUESTION = {"weighted_norm_squared", "tokens"}


def fixed_recipes(contributions: Contributions, drop: int) -> dict[str, Recipe]:
    """The fixed criteria for `drop` experts per layer, by what they are called, as far as the analysis has their sums.

    frequency: routed tokens; EAN: Σ‖f‖ (arXiv 2504.05586); REAP: Σ‖g·f‖ per routed token (arXiv 2510.13999); total:
    98e-v3; max over classes: 98e-v4.
    """
    known = set(contributions.sums)
    recipes = {
        "frequency": (_TOKENS, Recipe(criterion="frequency", drop=drop)),
        "EAN": (_NORM, Recipe(criterion="ean", drop=drop)),
        "REAP": (_WEIGHTED | _TOKENS, preset("REAP", drop)),
        "total": (_QUESTION, preset("98e-v3", drop)),
        "max over classes": (_QUESTION, preset("98e-v4", drop)),
    }
    return {name: recipe for name, (needed, recipe) in recipes.items() if needed <= known}


def weighted_recipes(contributions: Contributions, drop: int) -> Iterator[tuple[str, Recipe]]:
    """Total and max over classes with one class counting `WEIGHTED` times, each class in turn."""
    recipes = fixed_recipes(contributions, drop)
    for name in ("total", "max over classes"):
        for klass in contributions.classes if name in recipes and len(contributions.classes) > 1 else ():
            yield f"{name}, {klass} × {WEIGHTED:g}", recipes[name].but(class_weights={klass: WEIGHTED})


def random_map(contributions: Contributions, drop: int, seed: int) -> DropMap:
    """A map that knows nothing: `drop` experts of every layer by lot, equally many of each group of experts."""
    shape = contributions.shape
    lots = np.random.default_rng(seed).random((shape.layers, shape.groups, shape.experts // shape.groups))
    mask = np.argsort(np.argsort(lots, axis=2), axis=2) < drop // shape.groups
    return DropMap.from_mask(mask.reshape(shape.layers, shape.experts), shape.layer_ids, family=shape.family)


def measured_by(contributions: Contributions) -> Mapping[str, Mapping[str, Any]]:
    """What a search may measure experts by, as fields of a recipe, as far as the analysis has the sums for it."""
    needed = {
        "weighted_norm": _QUESTION - _TOKENS,
        PUBLISHED_SCORE: _QUESTION,
        "contribution": _WEIGHTED,
        "frequency": _TOKENS,
        "gate": {"gate"},
        "reap": _WEIGHTED | _TOKENS,
        "ean": _NORM,
        "ean_mean": _NORM | _TOKENS,
    }
    known = set(contributions.sums)
    fields: dict[str, Mapping[str, Any]] = {name: {"criterion": name} for name, sums in needed.items() if sums <= known}
    if PUBLISHED_SCORE in fields:
        fields[PUBLISHED_SCORE] = {"criterion": "weighted_norm", "alpha": 2.0, "add_tokens": True}
    return fields
