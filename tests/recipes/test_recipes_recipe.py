"""Recipes: canonical JSON, and every wrong value refused by the name of its field."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import FormatError, InputError, UnsupportedError
from studio.recipes.presets import PRESETS, preset
from studio.recipes.recipe import VERSION, Aggregate, Criterion, Normalise, Outliers, Recipe

recipes = st.builds(
    Recipe,
    criterion=st.sampled_from(get_args(Criterion)),
    alpha=st.floats(1e-6, 1e6),
    protect_top_per_question=st.integers(1, 500),
    outliers=st.sampled_from(get_args(Outliers)),
    outlier_threshold=st.none() | st.floats(1e-3, 1e30),
    normalise=st.sampled_from(get_args(Normalise)),
    class_weights=st.dictionaries(st.text(max_size=6), st.floats(0, 1e6), max_size=4),
    aggregate=st.sampled_from(get_args(Aggregate)),
    drop=st.integers(0, 500),
)


@given(recipes)
def test_json_gives_the_same_recipe_and_the_same_bytes(recipe: Recipe) -> None:
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.to_json() == recipe.to_json()
    assert again.content_hash == recipe.content_hash


def test_the_order_of_fields_and_of_class_weights_does_not_count() -> None:
    one = Recipe(drop=3, class_weights={"math": 1, "code": 2.0}, normalise="rank")
    other = Recipe(normalise="rank", class_weights={"code": 2, "math": 1.0}, drop=3)
    assert one.content_hash == other.content_hash
    assert one.but(drop=4).content_hash != one.content_hash


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "lacks 'drop'"),
        ({"drop": -1}, "drop is -1"),
        ({"drop": 1.5}, "drop is 1.5"),
        ({"drop": "3"}, "drop is '3'"),
        ({"drop": True}, "drop is True"),
        ({"drop": 1, "criterion": "vibes"}, "criterion is 'vibes'"),
        ({"drop": 1, "aggregate": None}, "aggregate is None"),
        ({"drop": 1, "class_weights": {"code": -1.0}}, r"class_weights\.code is -1.0"),
        ({"drop": 1, "class_weights": {"code": math.nan}}, r"class_weights\.code is nan"),
        ({"drop": 1, "class_weights": {"code": math.inf}}, r"class_weights\.code is inf"),
        ({"drop": 1, "class_weights": {"code": "3"}}, r"class_weights\.code is '3'"),
        ({"drop": 1, "class_weights": [1, 2]}, "class_weights is"),
        ({"drop": 1, "alpha": 0.0}, "alpha is 0.0"),
        ({"drop": 1, "outlier_threshold": math.inf}, "outlier_threshold is inf"),
        ({"drop": 1, "protect_top_per_question": 0}, "protect_top_per_question is 0"),
        ({"drop": 1, "weights": {}}, "no field 'weights'.*class_weights"),
        ({"drop": 1, "version": 0}, "version is 0"),
        ({"drop": 1, "criterion": "reap", "add_tokens": True}, "tokens cannot be added to reap"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Recipe(**fields)
    with pytest.raises(FormatError, match=reason):
        Recipe.from_json(fields, name="recipe.json")


def test_changing_a_recipe_is_checked_like_making_one() -> None:
    with pytest.raises(InputError, match="drop is -3"):
        preset("98e-v4").but(drop=-3)


def test_a_recipe_of_a_newer_version_is_not_guessed_at() -> None:
    newer = json.dumps({"version": VERSION + 1, "drop": 3, "something_new": True})
    with pytest.raises(UnsupportedError, match=f"version {VERSION + 1}"):
        Recipe.from_json(newer)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"drop": 1, "drop": 2}', b"\xff", '"98e-v4"'])
def test_text_that_is_not_a_recipe_is_refused(text: str | bytes) -> None:
    with pytest.raises(FormatError):
        Recipe.from_json(text)


def test_presets_are_named_and_take_drop_and_weights() -> None:
    assert list(PRESETS) == ["98e-v3", "98e-v4", "109e-v3", "98e-v5-coder", "REAP"]
    assert [entry.recipe.drop for entry in PRESETS.values()] == [30, 30, 19, 30, 30]
    recipe = preset("98e-v4", drop=7, class_weights={"code": 3})
    assert (recipe.drop, recipe.class_weights) == (7, {"code": 3.0})
    assert recipe.aggregate == PRESETS["98e-v4"].recipe.aggregate
    assert preset("98e-v4", drop=0).drop == 0
    with pytest.raises(InputError, match=r"'98e-v5'.*98e-v3, 98e-v4, 109e-v3"):
        preset("98e-v5")
