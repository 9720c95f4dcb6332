"""The published generator's arguments as recipes: every option, its default, and what is refused by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import EspalierError, FormatError, InputError
from studio.recipes.floors import with_layer_floors
from studio.recipes.generator import recipe_of_arguments
from studio.recipes.recipe import Recipe
from studio.recipes.weights import weights_of


def read(*arguments: str) -> Recipe:
    return recipe_of_arguments(json.dumps(["--target", "98", *arguments]))


def test_defaults_are_the_generators() -> None:
    recipe = read()
    assert (recipe.keep, recipe.drop, recipe.drop_of(128)) == (98, None, 30)
    assert (recipe.criterion, recipe.alpha, recipe.add_tokens) == ("weighted_norm", 2.0, True)
    assert (recipe.normalise, recipe.aggregate, recipe.protect_top) == ("rank", "max", 16)
    assert (recipe.outliers, recipe.arithmetic, recipe.protect_aggregate) == ("keep", "published", None)
    assert not recipe.needs_second_analysis
    classes = ["generic_math", "targeted_humaneval", "targeted_lcb_medium_55", "targeted_gpqa"]
    assert weights_of(classes, recipe.class_weights) == dict(zip(classes, [1, 3, 3, 1], strict=True))
    assert weights_of(["math", "code"], recipe.class_weights) == {"math": 1, "code": 1}


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["--alpha=0.5", "--score-mode", "mean"], {"alpha": 0.5, "add_tokens": False}),
        (["--strategy", "lp4", "--strategy", "second"], {"aggregate": "second"}),
        (["--class-weights", "1", "3"], {"class_weights": {"#1": 1.0, "#2": 3.0}}),
        (
            ["--classes", "b", "a", "--class-weights", "1", "0"],
            {"classes": ["b", "a"], "class_weights": {"b": 1.0, "a": 0.0}},
        ),
        (["--protect-strategy", "same", "--protect-class-weights", "2"], {"protect_class_weights": {}}),
        (
            ["--protect-strategy", "sum", "--protect-class-weights", "2"],
            {"protect_aggregate": "sum", "protect_class_weights": {"#1": 2.0}},
        ),
        (["--class-protect-floor", "3"], {"protect_top_per_class": 3}),
        (["--breadth-bonus", "-1"], {"breadth_bonus": 0.0}),
        (["--v4-floor-top", "5", "--v4-floor-clamp", "2", "9"], {"floor": 5, "floor_clamp": (2, 9)}),
        (["--v4-floor-map", "floors.json"], {"floor_layers_from": "file"}),
        (["--protect-class-min", "logic:4", "code: 2", "math:0"], {"class_minimums": [("logic", 4), ("code", 2)]}),
        (["--outlier-mode", "median"], {"outliers": "median", "outlier_threshold": sys.float_info.max}),
        (["--outlier-mode", "drop", "--outlier-wnorm-thresh", "1e6"], {"outlier_threshold": 1e6}),
        (["--outlier-wnorm-thresh", "1e6"], {"outliers": "keep", "outlier_threshold": None}),
        (["--data", "a.json", "--output", "b.json", "--v4-floor-data", "c.json"], {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_option_becomes_its_field(arguments: list[str], fields: dict[str, Any]) -> None:
    recipe = read(*arguments)
    assert {name: getattr(recipe, name) for name in fields} == fields
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--colour", "red"], "--colour: the generator has no such option"),
        (["--strategy", "median"], "--strategy: it is 'median', and has to be one of max"),
        (["--alpha", "two"], "--alpha: 'two' is not a number"),
        (["--protect-top", "1.5"], "--protect-top: '1.5' is not a whole number"),
        (["--protect-top", "-3"], "protect_top is -3"),
        (["--protect-top", "3", "4"], "--protect-top: it has 2 values"),
        (["--protect-top"], "--protect-top: it has no value"),
        (["--classes", "a", "b", "--class-weights", "1"], "--class-weights: there are 1 weights for 2 classes"),
        (["--class-weights", "1", "-2"], "class_weights.#2 is -2.0"),
        (["--v4-floor-clamp", "9", "2"], r"floor_clamp is \[9, 2\]"),
        (["--v4-floor-clamp", "9"], "it has 1 values, and takes the lowest and highest"),
        (["--protect-class-min", "logic"], "--protect-class-min: '' is not a whole number"),
        (["-x"], "'-x' belongs to no option"),
    ],
)
def test_what_the_generator_would_refuse_is_refused_by_name(arguments: list[str], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read(*arguments)


@pytest.mark.parametrize(
    "text", ["", "[]", "[1]", "{}", '{"args": 3}', '["98"]', '["--strategy", "max"]', '{"args": {"target": [1, 2]}}']
)
def test_what_is_no_list_of_arguments_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        recipe_of_arguments(text, "file.json")


@pytest.mark.parametrize("used", ["3", "[[1]]", '"math"', "[null]", "{}"])
def test_names_of_classes_that_are_none_are_refused(used: str) -> None:
    with pytest.raises(FormatError, match=r"classes_used: .* is not a list of the names of classes"):
        recipe_of_arguments(f'{{"args": {{"target": 9, "class_weights": ["1"]}}, "classes_used": {used}}}')


def test_letters_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(FormatError, match="surrogate"):
        recipe_of_arguments('["--target", "9", "--classes", "\\ud800"]')


@given(st.lists(st.sampled_from(["--target", "--classes", "--v4-floor-clamp", "-1", "98", "a", "", "--=", "=", "nan"])))
def test_any_list_at_all_gives_a_recipe_or_an_error_for_people(arguments: list[str]) -> None:
    try:
        recipe_of_arguments(json.dumps(arguments))
    except EspalierError as error:
        assert str(error)


def test_a_published_summary_is_read_with_the_names_of_its_classes(data: Path) -> None:
    summary = data / "published" / "v7coder_C6v3lcb_drop_map.json.summary.json"
    recipe = recipe_of_arguments(summary.read_bytes(), summary.name)
    assert recipe.keep == 98 and recipe.breadth_bonus == 0.5 and recipe.outlier_threshold == 10000.0
    assert recipe.class_weights["generic_code"] == 3.0 and recipe.class_weights["targeted_humaneval"] == 0.0
    assert recipe.classes is not None and recipe.classes[-1] == "targeted_lcb_medium_55"
    assert recipe.floor_layers_from == "file" and recipe.needs_second_analysis
    floors = data / "published" / "v4_layer_floor_map_v7.json"
    complete = with_layer_floors(recipe, floors.read_bytes())
    assert complete.layer_floors["0"] == 25 and complete.floor_layers_from == "recipe"
    stretched = with_layer_floors(recipe.but(floor_clamp=(15, 25)), floors.read_bytes())
    assert stretched.layer_floors["0"] == pytest.approx(26.096143451364984)


def test_a_summary_without_classes_tells_them_by_those_it_used() -> None:
    summary: dict[str, Any] = {
        "args": {"target": 9, "classes": None, "class_weights": ["1", "2"]},
        "classes_used": ["math", "code"],
    }
    recipe = recipe_of_arguments(json.dumps(summary))
    endless = {**summary["args"], "outlier_wnorm_thresh": float("inf"), "outlier_mode": "zero"}
    assert recipe_of_arguments(json.dumps({"args": endless})).outlier_threshold == sys.float_info.max
    assert recipe.classes is None and recipe.class_weights == {"math": 1.0, "code": 2.0}


@pytest.mark.parametrize(
    ("floors", "reason"),
    [
        ("[]", "list"),
        ("{}", "not an object with one floor per layer"),
        ('{"floor_per_layer": 3}', "floor_per_layer: it is not an object"),
        ('{"0": [1, 2]}', "floor of layer 0 is"),
        ('{"0": true}', "floor of layer 0 is True"),
        ('{"zero": 3}', "layer_floors.zero"),
        ('{"0": 1e999}', "layer_floors.0 is inf"),
        ('{"0": 1' + "0" * 400 + "}", "layer_floors.0 is 1000"),
        ('{"0": NaN}', "layer_floors.0 is nan"),
    ],
)
def test_what_is_no_map_of_floors_is_refused(floors: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        with_layer_floors(read(), floors)


def test_weights_go_by_name_then_by_the_longest_pattern_and_positions_are_complete() -> None:
    classes = ("math", "generic_code", "code")
    assert list(weights_of(classes, {"*code": 3.0, "code": 2.0, "generic_*": 5.0}).values()) == [1.0, 5.0, 2.0]
    assert list(weights_of(classes, {"#1": 1.0, "#2": 2.0, "#3": 3.0}).values()) == [1.0, 2.0, 3.0]
    with pytest.raises(InputError, match="2 weights by position, and there are 3 classes"):
        weights_of(classes, {"#1": 1.0, "#2": 2.0})
    with pytest.raises(InputError, match="every class the weight 0"):
        weights_of(classes, {"*": 0.0})
