"""Recipes: canonical JSON, and every wrong value refused by the name of its field."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import FormatError, InputError, UnsupportedError
from studio.recipes.presets import PRESETS, preset
from studio.recipes.recipe import MOST, VERSION, Aggregate, Arithmetic, Criterion, Normalise, Outliers, Recipe
from tests.recipes.conftest import recipes_of

recipes = recipes_of(
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
extended = recipes_of(
    classes=st.none() | st.lists(st.text(max_size=3), min_size=1, max_size=3, unique=True),
    pool_classes=st.booleans(),
    normalise=st.sampled_from(get_args(Normalise)),
    arithmetic=st.sampled_from(get_args(Arithmetic)),
    class_weights=st.dictionaries(st.sampled_from(["a*", "#1", "code"]), st.floats(0, 1e6)),
    breadth_bonus=st.floats(0, 10),
    protect_top=st.integers(0, 9),
    protect_top_per_class=st.integers(0, 9),
    floor_analysis=st.sampled_from(["second", "same"]),
    floor=st.integers(0, 9),
    layer_floors=st.dictionaries(st.sampled_from(["0", "12"]), st.floats(-5, 50)),
    floor_clamp=st.none() | st.just((2, 7)),
    class_minimums=st.lists(
        st.tuples(st.text(max_size=3), st.integers(1, 9)), max_size=2, unique_by=lambda one: one[0]
    ),
    force_keep=st.dictionaries(st.sampled_from(["all", "3"]), st.lists(st.integers(0, 4)), max_size=2),
    force_drop=st.dictionaries(st.sampled_from(["all", "3"]), st.lists(st.integers(5, 9)), max_size=2),
    keep=st.integers(1, 500),
)
"""Recipes that only version 2 can say: all of these keep a count."""


@given(recipes | extended)
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
        ({"drop": MOST + 1}, "drop is 1048577"),
        ({"drop": 1, "protect_top": 10**400}, "protect_top is 1000"),
        ({"drop": 1, "force_keep": {"all": [10**400]}}, "force_keep.all.0 is 1000"),
        ({"drop": 1, "criterion": "reap", "add_tokens": True}, "tokens cannot be added to reap"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Recipe(**fields)
    with pytest.raises(FormatError, match=reason):
        Recipe.from_json(fields, name="recipe.json")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"drop": 1, "keep": 2}, "both 'drop' and 'keep'"),
        ({"keep": 0}, "keep is 0"),
        ({"drop": 1, "normalise": "zscore", "aggregate": "geomean"}, "geomean needs positive values"),
        ({"drop": 1, "normalise": "zscore", "protect_aggregate": "geomean"}, "geomean needs positive values"),
        ({"drop": 1, "normalise": "zscore", "aggregate": "lp4"}, "lp4 needs positive values"),
        ({"drop": 1, "normalise": "zscore", "protect_aggregate": "lp4"}, "lp4 needs positive values"),
        ({"drop": 1, "classes": ["a", "", ""]}, "classes name '' twice"),
        ({"drop": 1, "pool_classes": True, "protect_aggregate": "max"}, "pooled"),
        ({"drop": 1, "classes": []}, "classes is"),
        ({"drop": 1, "classes": ["a", "a"]}, "classes name 'a' twice"),
        ({"drop": 1, "breadth_bonus": -0.1}, "breadth_bonus is -0.1"),
        ({"drop": 1, "protect_top": -1}, "protect_top is -1"),
        ({"drop": 1, "floor_clamp": [9, 2]}, r"floor_clamp is \[9, 2\]"),
        ({"drop": 1, "floor_clamp": [2]}, r"floor_clamp(\.1)? is"),
        ({"drop": 1, "floor_layers_from": "importance"}, "importance need a floor_clamp"),
        ({"drop": 1, "floor_layers_from": "file", "layer_floors": {"0": 1}}, "takes them from file"),
        ({"drop": 1, "layer_floors": {"01": 1}}, r"layer_floors\.01 is '01'"),
        ({"drop": 1, "class_minimums": [["a", 1], ["a", 2]]}, "class_minimums name 'a' twice"),
        ({"drop": 1, "class_minimums": [["a", 0]]}, r"class_minimums\.0\.1 is 0"),
        ({"drop": 1, "class_minimums": [["a", "1"]]}, r"class_minimums\.0\.1 is '1'"),
        ({"drop": 1, "force_keep": {"3": [1]}, "force_drop": {"all": [1]}}, "Expert 1 of layer 3 is in force_keep and"),
        (
            {"drop": 1, "force_keep": {"some": [1]}},
            "force_keep.some is 'some', which is no layer. Write a layer's number",
        ),
        ({"drop": 1, "force_keep": {"0": [-1]}}, "force_keep.0.0 is -1"),
        ({"drop": 1, "scope": "model", "force_keep": {"3": [1]}}, "can only be 'all'"),
        ({"drop": 1, "scope": "model", "layer_floors": {"3": 1}}, "they have the same floor"),
        ({"version": 1, "drop": 1, "breadth_bonus": 0.5}, "version 1 has no field 'breadth_bonus'"),
    ],
)
def test_fields_that_do_not_agree_are_named(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        Recipe.from_json(fields)


def test_a_recipe_is_written_in_the_oldest_version_that_can_say_it() -> None:
    old = {"version": 1, "drop": 3, "class_weights": {"code": 3}, "normalise": "mean"}
    recipe = Recipe.from_json(old)
    assert recipe.version == 1 and Recipe.from_json({**old, "version": 2}) == recipe
    assert "breadth_bonus" not in json.loads(recipe.to_json())
    for change in (
        {"breadth_bonus": 0.5},
        {"normalise": "zscore"},
        {"class_weights": {"code*": 3}},
        {"class_weights": {"#1": 3}},
        {"keep": 3},
        {"force_keep": {"all": [1]}},
    ):
        newer = recipe.but(**change)
        assert newer.version == 2 and set(json.loads(newer.to_json())) == set(Recipe.model_fields)
        assert newer.but(**{name: getattr(recipe, name) for name in change} | {"drop": 3}) == recipe


def test_a_new_count_replaces_the_old_one_however_it_was_given() -> None:
    assert (Recipe(keep=5).but(drop=3).keep, Recipe(drop=5).but(keep=3).drop) == (None, None)
    assert Recipe(keep=98).drop_of(128) == 30
    with pytest.raises(InputError, match="keeps 98 experts in every layer, and there are 64"):
        Recipe(keep=98).drop_of(64)


def test_the_schema_describes_what_is_written() -> None:
    schema = Recipe.json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False


def test_the_recipe_of_the_readme_is_one() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    recipe = Recipe.from_json(readme.partition("## Recipes")[2].partition("```json")[2].partition("```")[0])
    assert recipe.version == 2 and recipe.keep == 98


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('["--target", "98"]', "a list, and not a recipe.*`recipe import` makes one"),
        ('{"args": {"target": 98}}', "a generator's summary.*`recipe import` makes one of it"),
        ('{"recipe": {"drop": 1}, "recipe_hash": "00"}', "the story of a map.*field 'recipe' holds is one"),
        ('{"0": [1, 2]}', "a drop map.*story beside"),
        ('{"original_experts": 8, "per_layer_drop": {"0": [1]}}', "a drop map"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"drop": "' + "x" * 10_000 + '"}',
        '{"' + "x" * 10_000 + '": 1}',
        '{"drop": 1, "class_weights": {"' + "x" * 10_000 + '": -1}}',
        '{"drop": 1, "drop' + "x" * 10_000 + '": 1, "drop' + "x" * 10_000 + '": 2}',
        '{"drop": ' + "[" * 900 + "]" * 900 + "}",
        '{"drop": 1' + "0" * 4000 + "}",
        '{"version": 1' + "0" * 4000 + "}",
    ],
    ids=range(7),
)
def test_whatever_a_file_says_the_message_is_one_that_a_person_reads(text: str) -> None:
    with pytest.raises(InputError) as refused:
        Recipe.from_json(text)
    assert len(str(refused.value)) < 700


@given(st.integers(850, 1100))
def test_a_file_of_any_depth_is_refused(depth: int) -> None:
    with pytest.raises(FormatError):
        Recipe.from_json('{"drop": ' + "[" * depth + "]" * depth + "}")


def test_many_keys_of_which_the_last_comes_twice_are_refused_at_once() -> None:
    keys = [f'"{number}": 1' for number in range(200_000)]
    with pytest.raises(FormatError, match="the key '199999' appears twice"):
        Recipe.from_json("{" + ", ".join([*keys, keys[-1]]) + "}")


def test_half_a_surrogate_pair_is_refused_before_anything_is_written() -> None:
    for text in ('{"drop": 1, "class_weights": {"\\ud800*": 2}}', '{"drop": 1, "classes": ["\\udfff"]}'):
        with pytest.raises(FormatError, match="surrogate"):
            Recipe.from_json(text)
    assert Recipe.from_json('{"drop": 1, "classes": ["\\ud83c\\udf33"]}').classes == ["🌳"]


def test_minus_0_is_0() -> None:
    one, other = (
        Recipe(drop=1, class_weights={"a": zero}, breadth_bonus=zero, layer_floors={"0": zero}) for zero in (-0.0, 0.0)
    )
    assert one.to_json() == other.to_json()
