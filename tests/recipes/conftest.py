"""Analyses made in the test: small, seeded, with no two equal numbers unless asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from studio.contributions.model import Contributions, Question
from studio.families.base import MoeShape
from studio.recipes.recipe import Recipe


def make_analysis(
    *,
    layers: int = 3,
    experts: int = 8,
    top_k: int = 2,
    klasses: Sequence[str] = ("math", "code", "math", "creative"),
    seed: int = 0,
    family: str = "gemma4",
    groups: int = 1,
    groups_per_token: int = 1,
) -> Contributions:
    """One question per entry of `klasses`, with norms as spread out as real ones and some experts never routed to."""
    random = np.random.default_rng(seed)
    shape = (len(klasses), layers, experts)
    tokens = np.floor(random.lognormal(3, 1, shape)) * (random.random(shape) > 0.1)
    norm = tokens * random.lognormal(2, 1, shape)
    weighted = norm * random.uniform(0.05, 0.9, shape)
    spread = random.uniform(1.0, 1.5, shape)
    sums = {
        "tokens": tokens,
        "gate": weighted / np.maximum(norm, 1e-9),
        "norm": norm,
        "norm_squared": norm**2 / np.maximum(tokens, 1) * spread,
        "weighted_norm": weighted,
        "weighted_norm_squared": weighted**2 / np.maximum(tokens, 1) * spread,
    }
    return Contributions(
        shape=MoeShape(
            family,
            tuple(range(layers)),
            experts,
            top_k,
            hidden_size=16,
            expert_size=8,
            groups=groups,
            groups_per_token=groups_per_token,
        ),
        model="tiny",
        questions=tuple(Question(id=f"q{index}", klass=klass) for index, klass in enumerate(klasses)),
        sums=sums,
    )


def recipes_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Recipe]:
    """Recipes of these fields, but for the two aggregates that a zscore is refused with."""

    def agrees(chosen: dict[str, Any]) -> bool:
        aggregates = {chosen.get("aggregate"), chosen.get("protect_aggregate")}
        return chosen.get("normalise") != "zscore" or aggregates.isdisjoint({"geomean", "lp4"})

    return st.fixed_dictionaries(fields).filter(agrees).map(lambda chosen: Recipe(**chosen))


@pytest.fixture(scope="session")
def analysis() -> Callable[..., Contributions]:
    return make_analysis


@pytest.fixture(scope="session")
def data() -> Path:
    return Path(__file__).parent / "data"
