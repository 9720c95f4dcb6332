"""Scores and maps: against slow and obvious ones, and what must hold for every recipe."""

from __future__ import annotations

import dataclasses
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.contributions.model import UNKNOWN_FAMILY, Contributions
from studio.errors import InputError
from studio.recipes import criteria
from studio.recipes.apply import make_map, scores
from studio.recipes.criteria import Measure, class_values
from studio.recipes.presets import PRESETS, preset, scaled
from studio.recipes.recipe import Aggregate, Criterion, Normalise, Recipe
from tests.recipes.conftest import recipes_of

Analysis = Callable[..., Contributions]
Array = npt.NDArray[np.float64]

seeds = st.integers(0, 10_000)
recipes = recipes_of(
    criterion=st.sampled_from(get_args(Criterion)),
    protect_top_per_question=st.integers(1, 8),
    normalise=st.sampled_from(get_args(Normalise)),
    class_weights=st.fixed_dictionaries({}, optional={"math": st.floats(0.1, 4), "code": st.floats(0, 4)}),
    aggregate=st.sampled_from(get_args(Aggregate)),
    drop=st.integers(0, 6),
)
untied = st.builds(
    Recipe,
    criterion=st.sampled_from(["weighted_norm", "norm", "contribution", "reap", "ean"]),
    normalise=st.sampled_from(["none", "mean"]),
    aggregate=st.sampled_from(["sum", "max", "lp4"]),
    drop=st.integers(0, 6),
)
"""Recipes that give different experts different scores when all their sums differ."""


def with_sums(contributions: Contributions, **sums: Array) -> Contributions:
    return dataclasses.replace(contributions, sums={**contributions.sums, **sums})


def slow_98e_v3(contributions: Contributions, weights: dict[str, float], layer: int, expert: int) -> float:
    total = 0.0
    for index, question in enumerate(contributions.questions):
        norm = math.sqrt(contributions.sum("weighted_norm_squared")[index, layer, expert])
        total += weights.get(question.klass, 1.0) * (2 * norm + contributions.sum("tokens")[index, layer, expert])
    return total


def slow_98e_v4(contributions: Contributions, weights: dict[str, float], layer: int, expert: int) -> float:
    best = -math.inf
    experts = contributions.shape.experts
    for klass in contributions.classes:
        only = {other: float(other == klass) for other in contributions.classes}
        mean = sum(slow_98e_v3(contributions, only, layer, other) for other in range(experts)) / experts
        best = max(best, weights.get(klass, 1.0) * slow_98e_v3(contributions, only, layer, expert) / mean)
    return best


def slow_109e_v3(contributions: Contributions, weights: dict[str, float], layer: int, expert: int) -> float:
    total = 0.0
    for index, question in enumerate(contributions.questions):
        row = contributions.sum("weighted_norm_squared")[index, layer].tolist()
        best = sorted(range(len(row)), key=lambda other: (-row[other], other))[:16]
        total += weights.get(question.klass, 1.0) * (expert in best and row[expert] > 0)
    return total


@pytest.mark.parametrize(
    ("name", "slow"), [("98e-v3", slow_98e_v3), ("98e-v4", slow_98e_v4), ("109e-v3", slow_109e_v3)]
)
@pytest.mark.parametrize("weights", [{}, {"code": 3.0}, {"math": 0.5, "creative": 2.0}], ids=str)
def test_a_preset_equals_its_slow_and_obvious_version(
    analysis: Analysis, name: str, slow: Callable[..., float], weights: dict[str, float]
) -> None:
    contributions = analysis(experts=20, seed=5)
    recipe = preset(name, drop=5, class_weights=weights)
    fast = scores(contributions, recipe)
    grid = [[slow(contributions, weights, layer, expert) for expert in range(20)] for layer in range(3)]
    np.testing.assert_allclose(fast, grid, rtol=1e-12)
    drop = make_map(contributions, recipe)
    for layer in range(3):
        lowest = sorted(range(20), key=lambda expert: (fast[layer, expert], expert))[:5]
        assert drop.dropped[layer] == tuple(sorted(lowest))


def test_criteria_are_what_they_are_called(analysis: Analysis) -> None:
    contributions = analysis(klasses=("math", "math"))
    total = {name: contributions.sum(name).sum(axis=0) for name in contributions.sums}
    expected = {
        "weighted_norm": np.sqrt(contributions.sum("weighted_norm_squared")).sum(axis=0),
        "norm": np.sqrt(contributions.sum("norm_squared")).sum(axis=0),
        "contribution": total["weighted_norm"],
        "frequency": total["tokens"],
        "gate": total["gate"],
        "ean": total["norm"],
        "reap": total["weighted_norm"] / np.maximum(total["tokens"], 1),
        "ean_mean": total["norm"] / np.maximum(total["tokens"], 1),
    }
    assert {*expected, "coverage"} == set(get_args(Criterion))
    for criterion, values in expected.items():
        np.testing.assert_allclose(scores(contributions, Recipe(criterion=criterion, drop=0)), values, rtol=1e-12)


@given(seed=seeds, recipe=recipes)
def test_every_layer_drops_exactly_as_many_as_asked(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    drop = make_map(analysis(seed=seed), recipe)
    assert [len(ids) for ids in drop.dropped] == [recipe.drop] * 3


@given(seed=seeds, recipe=recipes)
def test_dropping_more_drops_the_same_and_more(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    contributions = analysis(seed=seed)
    fewer = make_map(contributions, recipe.but(drop=max(recipe.drop - 1, 0)))
    more = make_map(contributions, recipe)
    assert all(set(one) <= set(other) for one, other in zip(fewer.dropped, more.dropped, strict=True))


@given(seed=seeds, recipe=untied, order=st.permutations(range(8)))
def test_renumbering_the_experts_renumbers_the_map(
    analysis: Analysis, seed: int, recipe: Recipe, order: list[int]
) -> None:
    sparse = analysis(seed=seed)
    everywhere = 1 + np.random.default_rng(seed).random(sparse.sum("norm").shape)
    contributions = with_sums(sparse, **{name: values + everywhere for name, values in sparse.sums.items()})
    renumbered = with_sums(contributions, **{name: values[:, :, order] for name, values in contributions.sums.items()})
    before, after = make_map(contributions, recipe), make_map(renumbered, recipe)
    for old, new in zip(before.dropped, after.dropped, strict=True):
        assert {order[expert] for expert in new} == set(old)


@given(seed=seeds, exponent=st.integers(-5, 5), aggregate=st.sampled_from(get_args(Aggregate)))
def test_scaling_one_class_does_not_move_a_rank_normalised_recipe(
    analysis: Analysis, seed: int, exponent: int, aggregate: Aggregate
) -> None:
    contributions = analysis(seed=seed)
    factor = np.where(contributions.class_index == 0, 2.0**exponent, 1.0)[:, None, None]
    scaled = with_sums(
        contributions,
        tokens=contributions.sum("tokens") * factor,
        weighted_norm_squared=contributions.sum("weighted_norm_squared") * factor**2,
    )
    recipe = preset("98e-v4", drop=3).but(normalise="rank", aggregate=aggregate)
    assert make_map(scaled, recipe) == make_map(contributions, recipe)


@given(seed=seeds, recipe=recipes)
def test_a_class_of_weight_0_is_as_good_as_absent(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    contributions = analysis(seed=seed)
    kept = [index for index, question in enumerate(contributions.questions) if question.klass != "code"]
    without = dataclasses.replace(
        contributions,
        questions=tuple(contributions.questions[index] for index in kept),
        sums={name: values[kept] for name, values in contributions.sums.items()},
    )
    weights = {klass: weight for klass, weight in recipe.class_weights.items() if klass != "code"}
    zero = make_map(contributions, recipe.but(class_weights=weights | {"code": 0.0}))
    assert zero == make_map(without, recipe.but(class_weights=weights))


@given(seed=seeds, recipe=recipes)
def test_the_same_recipe_on_the_same_contributions_gives_the_same_bytes(
    analysis: Analysis, seed: int, recipe: Recipe
) -> None:
    one, other = make_map(analysis(seed=seed), recipe), make_map(analysis(seed=seed), recipe)
    assert one.to_json() == other.to_json()
    assert one.to_metadata() == other.to_metadata()


def test_among_equal_scores_the_lower_id_is_dropped_first(analysis: Analysis) -> None:
    contributions = analysis()
    level = {name: np.ones_like(values) for name, values in contributions.sums.items()}
    drop = make_map(with_sums(contributions, **level), preset("98e-v3", drop=3))
    assert drop.dropped == ((0, 1, 2),) * 3


@pytest.mark.parametrize(("count", "votes"), [(3, [0, 1, 1, 1, 0, 0, 0, 0]), (7, [0, 1, 1, 1, 1, 0, 0, 0])])
def test_among_equal_norms_a_question_vouches_for_the_lower_ids_and_never_for_unused_experts(
    analysis: Analysis, count: int, votes: list[int]
) -> None:
    contributions = analysis(layers=1, klasses=("math",))
    contributions = with_sums(contributions, weighted_norm_squared=np.array([[[0.0, 1, 1, 2, 1, 0, 0, 0]]]))
    recipe = Recipe(criterion="coverage", protect_top_per_question=count, drop=0)
    assert scores(contributions, recipe).tolist() == [votes]


def test_the_map_carries_the_recipe_and_where_the_numbers_came_from(analysis: Analysis) -> None:
    contributions = analysis()
    recipe = preset("98e-v4", drop=2)
    drop = make_map(contributions, recipe)
    assert Recipe.from_json(drop.provenance["recipe"]) == recipe
    assert drop.provenance["recipe_hash"] == recipe.content_hash
    assert drop.provenance["contributions_hash"] == contributions.content_hash
    assert drop.provenance["outliers_treated"] == 0
    assert drop.shape_family == "gemma4"
    assert make_map(analysis(family=UNKNOWN_FAMILY), recipe).shape_family is None


BROKEN = (math.nan, math.inf, 3.9e18**2)


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("name", PRESETS)
def test_by_default_a_broken_entry_does_not_save_the_weakest_expert(
    analysis: Analysis, name: str, value: float
) -> None:
    contributions = analysis(klasses=("math", "code", "creative") * 4, experts=24)
    recipe = scaled(preset(name, drop=8), 24)
    weakest = int(scores(contributions, recipe)[0].argmin())
    measured = "weighted_norm" if recipe.criterion == "reap" else "weighted_norm_squared"
    broken = contributions.sum(measured).copy()
    broken[0, 0, weakest] = value
    drop = make_map(with_sums(contributions, **{measured: broken}), recipe)
    assert weakest in drop.dropped[0]
    assert drop.provenance["outliers_treated"] == 1


@pytest.mark.parametrize("value", BROKEN)
def test_each_way_with_outliers_does_what_it_says(analysis: Analysis, value: float) -> None:
    contributions = analysis(layers=1, experts=4, klasses=("math",), top_k=1)
    contributions = with_sums(contributions, weighted_norm_squared=np.array([[[9.0, 16.0, value, 1.0]]]))

    def score(**fields: str) -> float:
        return float(scores(contributions, Recipe(drop=0, **fields))[0, 2])

    assert score(outliers="median") == 3.0
    assert score(outliers="zero") == 0.0
    assert score(outliers="drop") == -math.inf
    assert score(outliers="keep") == pytest.approx(math.sqrt(value), nan_ok=True)
    assert make_map(contributions, Recipe(outliers="drop", drop=1)).dropped == ((2,),)
    assert make_map(contributions, Recipe(outliers="keep", drop=3)).dropped == ((0, 1, 3),)


def test_a_threshold_of_ones_own_replaces_the_automatic_one(analysis: Analysis) -> None:
    contributions = analysis(layers=1, experts=4, klasses=("math",), top_k=1)
    contributions = with_sums(contributions, weighted_norm_squared=np.array([[[9.0, 16.0, 25.0, 1.0]]]))
    recipe = Recipe(outlier_threshold=4.5, outliers="zero", drop=1)
    assert scores(contributions, recipe).tolist() == [[3.0, 4.0, 0.0, 1.0]]


@pytest.mark.parametrize("experts", [1, 2, 5, 8])
def test_medians_of_clean_neighbours_equal_numpys(experts: int) -> None:
    random = np.random.default_rng(3)
    values = random.random((4, 3, experts))
    outliers = random.random(values.shape) < 0.4
    found = criteria._clean_medians(values, outliers)
    for question, layer in np.argwhere(outliers.any(axis=2)):
        clean = values[question, layer][~outliers[question, layer]]
        assert found[question, layer, 0] == (np.median(clean) if clean.size else 0.0)


@settings(max_examples=40)
@given(seed=seeds, recipe=recipes, mode=st.sampled_from(["median", "drop", "zero"]), data=st.data())
def test_no_score_is_nan_unless_outliers_are_kept(
    analysis: Analysis, seed: int, recipe: Recipe, mode: str, data: st.DataObject
) -> None:
    contributions = analysis(seed=seed)
    sums = {name: values.copy() for name, values in contributions.sums.items()}
    for _ in range(data.draw(st.integers(1, 6))):
        place = tuple(data.draw(st.integers(0, size - 1)) for size in sums["norm"].shape)
        for values in sums.values():
            values[place] = data.draw(st.sampled_from([math.nan, math.inf, 3.9e18]))
    assert not np.isnan(scores(with_sums(contributions, **sums), recipe.but(outliers=mode))).any()


def test_too_high_a_count_unknown_classes_and_no_class_at_all_are_refused(analysis: Analysis) -> None:
    contributions = analysis()
    with pytest.raises(InputError, match="Dropping 7 of 8 experts keeps 1, and the router uses 2"):
        make_map(contributions, preset("98e-v3", drop=7))
    with pytest.raises(InputError, match=r"no class 'cooking'.*math, code, creative"):
        make_map(contributions, preset("98e-v3", drop=1, class_weights={"cooking": 1.0}))
    with pytest.raises(InputError, match="every class the weight 0"):
        make_map(contributions, preset("98e-v3", drop=1, class_weights=dict.fromkeys(contributions.classes, 0.0)))
    nobody = {"class_weights": {"code": 0.0}, "protect_class_weights": {"math": 0.0, "creative": 0.0}}
    with pytest.raises(InputError, match="Every class that counts"):
        make_map(contributions, Recipe(drop=1, protect_top=2, protect_aggregate="max", **nobody))


@pytest.mark.parametrize(
    "fields",
    [
        {"alpha": 1e308},
        {"alpha": 1e100, "aggregate": "lp4"},
        {"class_weights": {"math": 1e308, "code": 1e308}},
        {"breadth_bonus": 1e308},
        {"protect_top": 2, "protect_aggregate": "sum", "protect_class_weights": {"*": 1e308}},
        {"alpha": 1e308, "criterion": "reap"},
        {"pool_classes": True, "class_weights": {"*": 1e308}},
        {"outliers": "drop", "alpha": 1e308},
    ],
    ids=str,
)
def test_scores_that_outgrow_a_float_are_refused_and_not_ranked_by_id(
    analysis: Analysis, fields: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="too large"):
        make_map(analysis(), Recipe(drop=3, **fields))


def test_a_criterion_that_the_analysis_cannot_give_is_refused_by_the_missing_sum(analysis: Analysis) -> None:
    contributions = analysis()
    sums = {"weighted_norm_squared": contributions.sum("weighted_norm_squared")}
    imported = dataclasses.replace(contributions, sums=sums)
    with pytest.raises(InputError, match="no sum 'weighted_norm'"):
        make_map(imported, Recipe(criterion="reap", drop=1))
    with pytest.raises(InputError, match="no sum 'tokens'"):
        make_map(imported, preset("98e-v3", drop=1))
    make_map(imported, preset("109e-v3", drop=1))


def test_presets_scale_to_other_numbers_of_experts(analysis: Analysis) -> None:
    shape = analysis(experts=32, top_k=4).shape
    assert [entry.drop_for(shape) for entry in PRESETS.values()] == [8, 8, 5, 8, 8]
    assert PRESETS["98e-v3"].drop_for(analysis(experts=8, top_k=8).shape) == 0


def test_class_values_are_computed_once_and_forgotten_with_their_analysis(analysis: Analysis) -> None:
    contributions = analysis()
    first = class_values(contributions, Measure())
    assert class_values(contributions, Measure()) is first
    assert class_values(analysis(), Measure()) is not first
    gone = weakref.ref(contributions)
    del contributions
    gc.collect()
    assert gone() is None
