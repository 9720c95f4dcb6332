"""All choices of a recipe at once: what holds for each of them holds for their combinations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from studio.contributions.model import Contributions
from studio.errors import EspalierError
from studio.recipes.apply import make_map, scores
from studio.recipes.decision import decide
from studio.recipes.explain import explain
from studio.recipes.recipe import Aggregate, Arithmetic, Criterion, Normalise, Outliers, Recipe
from studio.recipes.weights import by_name

Analysis = Callable[..., Contributions]

EXPERTS, LAYERS = 12, 3
seeds = st.integers(0, 1000)
ids = st.lists(st.integers(0, EXPERTS - 1), max_size=3)
fields: dict[str, st.SearchStrategy[Any]] = {
    "criterion": st.sampled_from(get_args(Criterion)),
    "outliers": st.sampled_from(get_args(Outliers)),
    "outlier_threshold": st.sampled_from([None, 1.0, 50.0]),
    "classes": st.sampled_from([None, ["code", "math"]]),
    "pool_classes": st.booleans(),
    "normalise": st.sampled_from(get_args(Normalise)),
    "arithmetic": st.sampled_from(get_args(Arithmetic)),
    "class_weights": st.sampled_from([{}, {"code": 3.0}, {"*a*": 0.0}, {"#1": 1.0, "#2": 0.5}]),
    "aggregate": st.sampled_from(get_args(Aggregate)),
    "breadth_bonus": st.sampled_from([0.0, 0.5]),
    "scope": st.sampled_from(["layer", "model"]),
    "protect_top": st.sampled_from([0, 3, EXPERTS]),
    "protect_aggregate": st.sampled_from([None, "sum", "second"]),
    "protect_class_weights": st.sampled_from([{}, {"code": 0.0}, {"*": 2.0}]),
    "protect_top_per_class": st.sampled_from([0, 2, 5]),
    "floor_analysis": st.sampled_from(["same", "second"]),
    "floor": st.sampled_from([0, 2, 9]),
    "layer_floors": st.sampled_from([{}, {"1": 4.0, "2": -1.0}]),
    "floor_layers_from": st.sampled_from(["recipe", "importance"]),
    "floor_clamp": st.sampled_from([None, (1, 5)]),
    "class_minimums": st.sampled_from([[], [("code", 5), ("math", 4)]]),
    "force_keep": st.fixed_dictionaries({}, optional={"all": ids, "1": ids}),
    "force_drop": st.fixed_dictionaries({}, optional={"all": ids, "2": ids}),
    "drop": st.integers(0, EXPERTS - 2),
}


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes whose fields agree: what a model-wide scope or pooled classes refuse is left out of them."""
    chosen = {name: draw(strategy) for name, strategy in fields.items()}
    if chosen["scope"] == "model":
        chosen |= {"layer_floors": {}, "floor_layers_from": "recipe"}
        chosen |= {name: {"all": chosen[name].get("all", [])} for name in ("force_keep", "force_drop")}
    if chosen["pool_classes"]:
        chosen["protect_aggregate"] = None
    if chosen["floor_layers_from"] == "importance":
        chosen |= {"layer_floors": {}, "floor_clamp": (1, 5)}
    try:
        return Recipe(**chosen)
    except EspalierError:
        assume(False)
        raise


def odd(analysis: Analysis, seed: int) -> Contributions:
    """With a few entries that are no numbers, and a few that are far too high."""
    contributions = analysis(seed=seed, experts=EXPERTS, layers=LAYERS)
    random = np.random.default_rng(seed)
    sums = {name: values.copy() for name, values in contributions.sums.items()}
    for value in (math.nan, math.inf, 3.9e18):
        place = tuple(random.integers(0, sums["norm"].shape))
        for values in sums.values():
            values[place] = value
    return dataclasses.replace(contributions, sums=sums)


@given(seed=seeds, recipe=recipes())
def test_every_recipe_makes_a_map_that_keeps_its_word_or_says_why_not(
    analysis: Analysis, seed: int, recipe: Recipe
) -> None:
    contributions, second = odd(analysis, seed), odd(analysis, seed + 1)
    try:
        decision = decide(contributions, recipe, second)
    except EspalierError as error:
        assert error.remedy and "too large" not in error.what
        return
    shield = decision.protection
    assert (decision.cut.sum(axis=1) == recipe.drop).all() and (decision.dropped.sum(axis=1) == recipe.drop).all()
    assert not (shield.force_keep & decision.dropped).any() and not (shield.force_drop & ~decision.dropped).any()
    free = ~shield.asked & ~shield.force_drop
    for row in range(len(free)):  # whoever is protected leaves only when nobody else is left
        assert not (shield.asked & decision.cut)[row].any() or not (free & ~decision.cut)[row].any()
    drop = make_map(contributions, recipe, second)
    drop.check(contributions.shape)
    assert drop.mask.tolist() == np.broadcast_to(decision.dropped, (LAYERS, EXPERTS)).tolist()


@given(seed=seeds, recipe=recipes())
def test_a_recipe_from_a_file_or_in_plain_names_makes_the_same_bytes(
    analysis: Analysis, seed: int, recipe: Recipe
) -> None:
    contributions, second = odd(analysis, seed), odd(analysis, seed + 1)
    again = Recipe.from_json(recipe.to_json())
    try:
        drop = make_map(contributions, recipe, second)
    except EspalierError:
        return
    assert make_map(odd(analysis, seed), again, odd(analysis, seed + 1)).to_metadata() == drop.to_metadata()
    assert make_map(contributions, by_name(recipe, contributions.classes, EXPERTS), second) == drop


@given(seed=seeds, recipe=recipes(), layer=st.integers(0, LAYERS - 1))
def test_what_is_told_about_the_experts_of_a_layer_is_what_became_of_them(
    analysis: Analysis, seed: int, recipe: Recipe, layer: int
) -> None:
    contributions, second = odd(analysis, seed), odd(analysis, seed + 1)
    try:
        told = [explain(contributions, recipe, layer, expert, second) for expert in range(EXPERTS)]
    except EspalierError:
        return
    assert tuple(one.expert for one in told if not one.kept) == make_map(contributions, recipe, second).dropped[layer]
    assert sorted(one.place for one in told) == list(range(1, EXPERTS + 1))
    for one in told:
        assert one.rule != "class_minimum" or recipe.class_minimums
        assert one.rule not in ("protected", "released") or one.protected_by


@given(seed=seeds, recipe=recipes())
def test_dropping_more_cuts_the_same_and_more(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    contributions, second = odd(analysis, seed), odd(analysis, seed + 1)
    try:
        fewer, more = (
            decide(contributions, recipe.but(drop=drop), second).cut
            for drop in (recipe.drop_of(EXPERTS), min(recipe.drop_of(EXPERTS) + 2, EXPERTS - 2))
        )
    except EspalierError:
        return
    assert not (fewer & ~more).any()


@given(seed=seeds, criterion=st.sampled_from(get_args(Criterion)), outliers=st.sampled_from(["median", "drop"]))
def test_a_class_of_weight_0_is_not_pooled_whatever_the_arithmetic(
    analysis: Analysis, seed: int, criterion: Criterion, outliers: Outliers
) -> None:
    recipe = Recipe(criterion=criterion, outliers=outliers, pool_classes=True, class_weights={"code": 0.0}, drop=4)
    one, other = (scores(odd(analysis, seed), recipe.but(arithmetic=arithmetic)) for arithmetic in get_args(Arithmetic))
    np.testing.assert_array_equal(one, other)
