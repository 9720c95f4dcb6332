"""What is said by hand about experts, and how it is typed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InputError, MismatchError
from studio.families import MoeShape
from studio.recipes.overrule import Fate, overrule, overruled
from studio.recipes.recipe import Recipe
from studio.recipes.selection import parse_ids

SHAPE = MoeShape("gemma4", (2, 5, 7), 8, 2, 64, 32)
RECIPE = Recipe(drop=3)

strokes = st.tuples(
    st.sets(st.integers(0, 2), min_size=1),
    st.sets(st.integers(0, 7), min_size=1),
    st.sampled_from(["keep", "drop", "release"]),
)


@given(st.lists(strokes, max_size=6))
def test_the_last_word_about_every_expert_counts(said: list[tuple[set[int], set[int], Fate]]) -> None:
    recipe, expected = RECIPE, np.full((3, 8), "release", dtype="<U7")
    for rows, experts, fate in said:
        recipe = overrule(recipe, SHAPE, sorted(rows), sorted(experts), fate)
        for row, expert in product(rows, experts):
            expected[row, expert] = fate
    keep, drop = overruled(recipe, SHAPE)
    np.testing.assert_array_equal(keep, expected == "keep")
    np.testing.assert_array_equal(drop, expected == "drop")
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_an_expert_of_all_layers_is_said_once_and_can_be_released_in_one() -> None:
    column = overrule(RECIPE, SHAPE, range(3), [4], "keep")
    assert column.force_keep == {"all": [4]}
    assert overrule(column, SHAPE, [1], [4], "drop").force_keep == {"2": [4], "7": [4]}
    assert overrule(column, SHAPE, range(3), [4], "release") == RECIPE


def test_where_all_layers_drop_the_same_a_word_about_one_is_about_all() -> None:
    recipe = overrule(RECIPE.but(scope="model"), SHAPE, [1], [4], "drop")
    assert recipe.force_drop == {"all": [4]}


@pytest.mark.parametrize(("rows", "experts"), [([3], [0]), ([0], [8]), ([-1], [0]), ([0], [-1])])
def test_a_cell_that_the_map_has_not_is_refused(rows: list[int], experts: list[int]) -> None:
    with pytest.raises(InputError, match="The map has no"):
        overrule(RECIPE, SHAPE, rows, experts, "keep")


def test_a_word_about_a_layer_of_another_model_is_refused() -> None:
    with pytest.raises(MismatchError, match="layer 3"):
        overrule(RECIPE.but(force_keep={"3": [1]}), SHAPE, [0], [0], "drop")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("3", (3,)),
        ("1,2,250..255", (1, 2, *range(250, 256))),
        (" 7 , 5 .. 6,5", (5, 6, 7)),
        ("ALL", tuple(range(256))),
        ("0..255", tuple(range(256))),
    ],
)
def test_numbers_and_ranges_are_read_as_typed(text: str, ids: tuple[int, ...]) -> None:
    assert parse_ids(text, range(256), "expert") == ids


def test_a_range_of_layers_skips_those_without_experts() -> None:
    assert parse_ids("2..7", SHAPE.layer_ids, "layer") == (2, 5, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No layer is named"),
        ("1,,2", "Between two commas"),
        ("two", "'two' is no layer's number"),
        ("-1", "'-1' is no layer's number"),
        ("1.5", "'1.5' is no layer's number"),
        ("1..", "lacks an end"),
        ("5..2", r"runs backwards. Write 2\.\.5"),
        ("8", "There is no layer 8. They go from 0 to 5"),
        ("1..9999999", "is no layer's number"),
        ("all,1", "'all' is no layer's number"),
    ],
)
def test_every_mistake_has_a_sentence(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_ids(text, range(6), "layer")


@given(st.text(max_size=20))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    try:
        assert set(parse_ids(text, range(6), "layer")) <= set(range(6))
    except InputError as error:
        assert error.remedy
