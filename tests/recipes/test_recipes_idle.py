"""What a recipe says for nothing: whatever stands in an idle field, the map is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.apply import make_map
from studio.recipes.idle import idle, without_idle
from studio.recipes.layer_floors import layer_floors_text, parse_layer_floors
from studio.recipes.presets import PRESETS, preset, preset_named, scaled
from studio.recipes.recipe import Aggregate, Arithmetic, Criterion, Normalise, Outliers, Recipe

Analysis = Callable[..., Contributions]
EXPERTS = 12

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "criterion": st.sampled_from(get_args(Criterion)),
    "protect_top_per_question": st.integers(1, 8),
    "add_tokens": st.booleans(),
    "alpha": st.sampled_from([0.5, 1.0, 4.0]),  # a power of two rounds nothing
    "outliers": st.sampled_from(get_args(Outliers)),
    "outlier_threshold": st.sampled_from([None, 50.0]),
    "pool_classes": st.booleans(),
    "normalise": st.sampled_from(get_args(Normalise)),
    "aggregate": st.sampled_from(get_args(Aggregate)),
    "arithmetic": st.sampled_from(get_args(Arithmetic)),
    "breadth_bonus": st.sampled_from([0.0, 0.5]),
    "protect_top": st.integers(0, 4),
    "protect_aggregate": st.sampled_from([None, "sum", "geomean"]),
    "protect_class_weights": st.sampled_from([{}, {"code": 3.0}]),
    "floor_analysis": st.sampled_from(["same", "second"]),
    "floor": st.integers(0, 4),
    "layer_floors": st.sampled_from([{}, {"0": 5.0}]),
    "floor_layers_from": st.sampled_from(["recipe", "importance"]),
    "floor_clamp": st.sampled_from([None, (1, 4)]),
    "class_minimums": st.sampled_from([[], [("code", 3)]]),
    "scope": st.sampled_from(["layer", "model"]),
    "drop": st.integers(0, 10),
}


def agreeing(fields: dict[str, Any]) -> Recipe | None:
    try:
        return Recipe(**fields)
    except InputError:
        return None


recipes = st.fixed_dictionaries(FIELDS).map(agreeing).filter(bool)


@given(seed=st.integers(0, 1000), recipe=recipes, other=st.fixed_dictionaries(FIELDS))
def test_an_idle_field_changes_no_map(analysis: Analysis, seed: int, recipe: Recipe, other: dict[str, Any]) -> None:
    contributions, second = analysis(seed=seed, experts=EXPERTS), analysis(seed=seed + 1, experts=EXPERTS)
    expected = make_map(contributions, recipe, second)
    assert make_map(contributions, without_idle(recipe), second) == expected
    for field in idle(recipe):
        changed = agreeing({**recipe.model_dump(exclude={"version"}), field: other[field]})
        if changed is not None:  # else it contradicts what makes it idle
            assert make_map(contributions, changed, second) == expected, field


@given(recipe=recipes)
def test_a_recipe_without_idle_fields_has_none_to_lose(recipe: Recipe) -> None:
    plain = without_idle(recipe)
    assert without_idle(plain) == plain


@pytest.mark.parametrize("experts", [8, 32, 128])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_recognised_on_layers_of_any_size(name: str, experts: int) -> None:
    recipe = scaled(preset(name, 3, {"code": 2.0}), experts)
    assert preset_named(recipe.but(force_drop={"0": [1]}), experts) == name
    assert preset_named(recipe.but(protect_top_per_class=2), experts) is None


def test_an_idle_field_makes_no_other_recipe_of_a_preset() -> None:
    assert preset_named(preset("98e-v4", 3).but(protect_top_per_question=5, floor_analysis="same"), 32) == "98e-v4"


def test_what_contradicts_the_choice_that_makes_it_idle_goes_back_to_its_default() -> None:
    undecided = Recipe.model_construct(criterion="reap", add_tokens=True, alpha=2.0, drop=3)
    assert without_idle(undecided) == Recipe(criterion="reap", drop=3)


@given(st.dictionaries(st.integers(0, 40).map(str), st.integers(0, 99).map(float) | st.floats(-9, 9), max_size=12))
def test_floors_of_layers_are_read_as_they_are_written(floors: dict[str, float]) -> None:
    assert parse_layer_floors(layer_floors_text(floors), range(41)) == floors


def test_neighbours_with_the_same_floor_are_written_together() -> None:
    assert layer_floors_text({"0": 24, "1": 24, "2": 24, "5": 20.5, "4": 24}) == "0..2: 24; 4: 24; 5: 20.5"


@pytest.mark.parametrize("text", ["3", "3:", "3: x", ": 4", "0..9: 2", "1: 2; 1: 3", "2..1: 4", "a: 1", "1:2:3"])
def test_floors_that_cannot_be_read_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"\.$"):
        parse_layer_floors(text, range(4))
