"""What a tab shows, and how it changes."""

from __future__ import annotations

import json

import pytest

from components.state import ALL, OWN, StudioState, View, weights_from_json, weights_json
from studio.errors import InputError
from studio.families import MoeShape
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset

CLASSES = ("math", "code")


def opening() -> StudioState:
    return StudioState.opening("pear", "hash", MoeShape("gemma4", (0,), 32, 4, 1, 1))


def imported() -> DropMap:
    return DropMap("gemma4", 4, ((0,), (1,)), (0, 1))


def test_a_tab_opens_with_a_quarter_dropped() -> None:
    assert opening().recipe.drop == 8


def test_choosing_replaces_the_recipe_and_leaves_an_imported_map_behind() -> None:
    chosen = opening().showing(imported()).choosing("98e-v3", 5, {"code": 3.0})
    assert chosen.imported is None
    assert chosen.recipe == preset("98e-v3", 5, {"code": 3.0})


def test_a_recipe_from_a_file_is_named_when_it_is_a_preset() -> None:
    assert opening().cooking(preset("109e-v3", 4, {"math": 2.0})).preset == "109e-v3"


def test_another_recipe_from_a_file_keeps_its_fields_while_drop_and_weights_change() -> None:
    own = preset("98e-v3", 4).but(aggregate="geomean")
    state = opening().cooking(own)
    assert state.preset == OWN
    changed = state.choosing(OWN, 7, {"math": 2.0}).recipe
    assert (changed.aggregate, changed.drop, changed.class_weights) == ("geomean", 7, {"math": 2.0})


def test_a_view_gives_up_classes_that_another_analysis_lacks() -> None:
    assert View("math", "code").within(CLASSES) == View("math", "code")
    assert View("math", "verse").within(CLASSES) == View("math")
    assert View("verse", "code", "rank").within(CLASSES) == View(ALL, None, "rank")


@pytest.mark.parametrize(("klass", "minus"), [(ALL, "math"), ("math", ALL)])
def test_all_classes_minus_one_is_no_view(klass: str, minus: str) -> None:
    with pytest.raises(InputError, match="two classes"):
        View(klass, minus)


def test_an_unknown_scale_is_refused() -> None:
    with pytest.raises(InputError, match="scale 'log'"):
        View(scale="log")  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", [("0", 1), (0, None), (True, 1), (0.5, 1)])
def test_only_whole_numbers_point_at_a_cell(cell: tuple[object, object]) -> None:
    with pytest.raises(InputError, match="no cell"):
        opening().pointing(*cell)


def test_weights_survive_the_way_to_the_browser_and_back() -> None:
    weights = {"code": 3.0}
    assert weights_from_json(weights_json(CLASSES, weights), CLASSES) == weights


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "[1]",
        "{}x",
        json.dumps([{"name": "math"}]),
        json.dumps([{"name": "math", "weight": -1}]),
        '[{"name": "math", "weight": NaN}]',
        json.dumps([{"name": "verse", "weight": 2}]),
    ],
)
def test_weights_that_no_recipe_can_have_are_refused(sent: str) -> None:
    with pytest.raises(InputError):
        weights_from_json(sent, CLASSES)
