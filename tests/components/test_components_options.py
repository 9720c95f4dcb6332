"""The form of all options shows the recipe, and what comes back makes the map that the engine makes."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components import transitions
from components.library import Library, Opened
from components.option_table import OPTIONS, SECOND
from components.options import form_json, second_choices
from components.outputs import command_text, parameters
from components.recipe import permalink_html
from components.sessions import Sessions
from components.state import OWN, StudioState
from components.tuning import sent_of, tuned
from studio.cli.app import main
from studio.contributions import file
from studio.contributions.model import Contributions, Question
from studio.errors import EspalierError, InputError
from studio.jobs.build import Build
from studio.recipes.apply import make_map
from studio.recipes.explain import explain
from studio.recipes.permalink import PREFIX, Permalink
from studio.recipes.presets import PRESETS
from studio.recipes.recipe import Recipe
from studio.shelf import Shelf

LAYERS, EXPERTS = 3, 8
ELSEWHERE = {"version", "drop", "keep", "class_weights", "force_keep", "force_drop"}
"""Fields that the page asks for with other controls."""


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", library.reference("pear"))
    return library.open(StudioState.opening("pear", key, contributions.shape))


@pytest.fixture
def generic(library: Library, contributions: Contributions) -> Contributions:
    """Another analysis of the model: its experts 3 and 4 matter most, and its only class is prose."""
    near = EXPERTS - np.abs(np.arange(EXPERTS) - 3.5)
    values = np.tile(near, (1, LAYERS, 1))
    questions = (Question("q1", "prose"),)
    sums = dict.fromkeys(contributions.sums, values)
    other = Contributions(contributions.shape, "tiny", questions, sums, "made for a test")
    file.save(other, library.workspace.contributions / "generic.safetensors")
    return other


def generic_path(library: Library) -> str:
    return str(library.workspace.contributions / "generic.safetensors")


def shown(library: Library, state: StudioState) -> dict[str, Any]:
    """Field → entry of the form."""
    groups = json.loads(form_json(library, library.open(state)))["groups"]
    return {entry["how"]["field"]: entry for group in groups for entry in group["options"]}


def test_every_field_has_one_place_on_the_page_and_every_choice_of_the_engine() -> None:
    assert {*OPTIONS} - {SECOND} == {*Recipe.model_fields} - ELSEWHERE - {"floor_analysis"}
    for field, option in OPTIONS.items():
        if option.kind == "choice" and field != SECOND:
            allowed = Recipe.json_schema()["properties"][field]
            allowed = allowed.get("enum") or allowed["anyOf"][0]["enum"]
            missing = {*allowed} ^ {value for _, value in option.choices if value}
            assert missing == ({"file"} if field == "floor_layers_from" else set()), field


CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "criterion": ("frequency", {"criterion": "frequency"}),
    "add_tokens": (False, {"add_tokens": False, "alpha": 1.0}),
    "alpha": (3, {"alpha": 3.0}),
    "outliers": ("zero", {"outliers": "zero"}),
    "outlier_threshold": (5, {"outlier_threshold": 5.0}),
    "classes": (["code"], {"classes": ["code"]}),
    "normalise": ("rank", {"normalise": "rank"}),
    "aggregate": ("geomean", {"aggregate": "geomean"}),
    "breadth_bonus": (0.5, {"breadth_bonus": 0.5}),
    "protect_top": (3, {"protect_top": 3}),
    "protect_top_per_class": (2, {"protect_top_per_class": 2}),
    "floor": (2, {"floor": 2, "floor_analysis": "same"}),
    "floor_layers_from": (
        "importance",
        {"floor_layers_from": "importance", "floor_clamp": (1, 2), "floor_analysis": "same"},
    ),
    "layer_floors": ("0..1: 3; 2: 1", {"layer_floors": {"0": 3, "1": 3, "2": 1}, "floor_analysis": "same"}),
    "class_minimums": ({"math": 2, "code": 0}, {"class_minimums": [("math", 2)], "floor_analysis": "same"}),
    "scope": ("model", {"scope": "model"}),
    "arithmetic": ("published", {"arithmetic": "published"}),
}
"""Field → what the browser sends, and what changes in the recipe."""


@pytest.mark.parametrize("field", CHANGES)
def test_an_option_changes_the_map_as_the_engine_says_and_can_be_taken_back(
    library: Library, opened: Opened, contributions: Contributions, field: str
) -> None:
    sent, fields = CHANGES[field]
    state = tuned(library, opened.state, {field: sent})
    assert state.recipe == opened.state.recipe.but(**fields) and state.preset == OWN
    assert library.open(state).drop == make_map(contributions, state.recipe)
    assert state.undone().choice == opened.state.choice and state.undone().redone().choice == state.choice
    again = tuned(library, state, {field: shown(library, state)[field]["value"]})
    assert again is state or again.recipe == state.recipe, "what is shown says the same when it is sent back"


def test_options_that_make_a_published_recipe_get_its_name(library: Library, opened: Opened) -> None:
    state = tuned(library, opened.state, {"normalise": "none"})
    assert state.preset == OWN
    assert tuned(library, state, {"aggregate": "sum"}).preset == "98e-v3"
    assert tuned(library, state, {"normalise": "mean"}).preset == "98e-v4"


def test_a_choice_that_rules_out_another_puts_that_back_and_says_why(library: Library, opened: Opened) -> None:
    state = tuned(library, opened.state, {"criterion": "coverage", "protect_top_per_question": 4})
    assert (state.recipe.add_tokens, state.recipe.protect_top_per_question) == (False, 4)
    assert "no sum" in shown(library, state)["add_tokens"]["idle"]
    state = tuned(library, state, {"protect_top": 2, "protect_aggregate": "sum"})
    state = tuned(library, state, {"protect_class_weights": {"math": 1, "code": 2.5}})
    assert state.recipe.protect_class_weights == {"code": 2.5}
    pooled = tuned(library, state, {"pool_classes": True}).recipe
    assert (pooled.protect_aggregate, pooled.protect_class_weights) == (None, {})


def test_classes_that_do_not_take_part_have_no_weight(library: Library, opened: Opened) -> None:
    weighed = transitions.choosing(library, opened.state, "98e-v4", 2, {"code": 2.0, "math": 3.0})
    state = tuned(library, weighed, {"classes": ["code"]})
    assert state.recipe.class_weights == {"code": 2.0} and library.open(state).taking_part == ("code",)
    chosen = transitions.choosing(library, state, OWN, 3, {"code": 1.5, "math": 3.0})
    assert chosen.recipe.class_weights == {"code": 1.5}
    assert tuned(library, state, {"classes": ["math", "code"]}).recipe.classes is None


def test_criteria_that_the_analysis_has_no_sums_for_cannot_be_chosen(library: Library, opened: Opened) -> None:
    there = {value: there for _, value, there in shown(library, opened.state)["criterion"]["how"]["choices"]}
    assert there["contribution"] and there["coverage"] and not there["ean"]
    with pytest.raises(InputError):
        library.open(tuned(library, opened.state, {"criterion": "ean"}))


@pytest.mark.parametrize(
    ("field", "sent", "said"),
    [
        ("alpha", -1, "alpha is -1"),
        ("alpha", None, "alpha is None"),
        ("protect_top", 1.5, "protect_top is 1.5"),
        ("protect_top", True, "cannot be true"),
        ("criterion", "beauty", "criterion is 'beauty'"),
        ("criterion", ["reap"], "Criterion"),
        ("classes", [], "No class takes part"),
        ("classes", [["math"]], "No class takes part"),
        ("floor_clamp", [3], "floor_clamp"),
        ("layer_floors", "0: many", "'many' is no floor"),
        ("layer_floors", '{"floor_per_layer": {"0": "x"}}', "not a number"),
        ("layer_floors", "7: 2", "no layer 7"),
        ("class_minimums", {"verse": 1}, "no class 'verse'"),
        ("class_minimums", {"math": "1"}, "cannot be"),
        ("protect_class_weights", {"math": -1}, "protect_class_weights"),
        ("outliers", "", "outliers is ''"),
        (SECOND, "/etc/passwd", "not in the workspace"),
    ],
)
def test_what_no_recipe_can_have_is_refused_in_a_sentence(
    library: Library, opened: Opened, field: str, sent: Any, said: str
) -> None:
    base = tuned(
        library, opened.state, {"protect_top": 2, "protect_aggregate": "sum", "floor_layers_from": "importance"}
    )
    if field == "layer_floors":
        base = opened.state
    with pytest.raises(EspalierError, match=r"\.") as refused:
        library.open(tuned(library, base, {field: sent}))
    assert said in str(refused.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["math", "0", "x"]), inner, max_size=3),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from([*OPTIONS]), json_values, max_size=3))
def test_whatever_comes_back_makes_a_map_or_an_error_for_people(
    library: Library, opened: Opened, fields: dict[str, Any]
) -> None:
    try:
        _, sent = sent_of({"ask": 1, "fields": fields})
        assert library.open(tuned(library, opened.state, sent)).drop is not None
    except EspalierError as error:
        assert str(error)


@pytest.mark.parametrize(
    "data",
    [None, "", [], {}, {"ask": 1}, {"ask": "1", "fields": {}}, {"ask": 1, "fields": {"drop": 3}}],
)
def test_a_message_that_is_none_is_refused(data: object) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        sent_of(data)


def test_a_text_of_megabytes_is_refused(library: Library, opened: Opened) -> None:
    with pytest.raises(InputError, match="Floors"):
        tuned(library, opened.state, {"layer_floors": "0: 1, " * 200_000})


def with_floor(library: Library, state: StudioState) -> StudioState:
    return tuned(library, state, {"floor": 3, SECOND: generic_path(library)})


def test_floors_by_a_second_analysis_are_the_engines_everywhere(
    library: Library, opened: Opened, contributions: Contributions, generic: Contributions
) -> None:
    assert second_choices(library, opened) == [("generic", generic_path(library))]
    state = with_floor(library, opened.state)
    now = library.open(state)
    assert state.recipe.floor_analysis == "second" and now.second is not None
    assert now.drop == make_map(contributions, state.recipe, generic) != make_map(contributions, opened.state.recipe)
    assert shown(library, state)["class_minimums"]["how"]["classes"] == [["prose", "Prose"]]
    assert explain(contributions, state.recipe, 0, 3, now.second).protected_by == ("floor",)
    same = tuned(library, state, {SECOND: ""})
    assert (same.second, same.recipe.floor_analysis) == (None, "same")
    assert same.undone().choice == state.choice and state.undone().choice == opened.state.choice


def test_a_second_analysis_survives_a_restart_and_goes_into_the_link(
    library: Library, opened: Opened, generic: Contributions
) -> None:
    state = with_floor(library, replace(opened.state, user="ann"))
    sessions = Sessions(library)
    sessions.keep(state)
    sessions.flush()
    again = Library(library.workspace)
    back, problem = Sessions(again).coming_back(StudioState.opening("pear", None, None), "ann", "")
    assert problem is None and back.second == generic.content_hash
    assert again.open(back).drop == library.open(state).drop
    link = Permalink.from_text(permalink_html(state).partition("?recipe=")[2].partition('"')[0])
    assert link.floor_contributions == generic.content_hash
    other = Library(library.workspace)
    followed, problem = Sessions(other).coming_back(replace(opened.state, analysis=None), "bob", link.to_text())
    assert problem is None and other.open(followed).drop == library.open(state).drop
    assert permalink_html(opened.state).startswith("<a") and PREFIX not in permalink_html(opened.state)


def test_a_recipe_that_needs_a_second_analysis_says_where_to_choose_it(
    library: Library, opened: Opened, generic: Contributions, tmp_path: Any
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"drop": 2, "floor": 2}')
    with pytest.raises(InputError, match="Fine-tune the recipe"):
        library.open(transitions.read_choice(library, opened.state, path))
    ready = tuned(library, opened.state, {SECOND: generic_path(library)})
    assert ready.preset == "98e-v4", "an analysis that nothing goes by makes it no other recipe"
    assert library.open(transitions.read_choice(library, ready, path)).drop is not None


def test_the_build_and_the_command_give_the_map_that_is_shown(
    library: Library,
    opened: Opened,
    generic: Contributions,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = with_floor(library, opened.state)
    now = library.open(state)
    assert now.drop is not None
    told = parameters(library, now, "small", ["safetensors"])
    Build(**told).check(library.workspace)  # it makes the map again, and compares
    with pytest.raises(EspalierError):
        Build(**{name: value for name, value in told.items() if name != "floor_contributions"}).check(library.workspace)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.json").write_text(state.recipe.to_json())
    command = command_text(library, now, "small", ["safetensors"]).splitlines()[0]
    assert "--floor-contributions" in command
    assert main(shlex.split(command)[3:]) == 0
    assert json.loads((tmp_path / "map.json").read_text()) == json.loads(now.drop.to_json())


@pytest.mark.parametrize("name", PRESETS)
def test_the_form_of_every_preset_says_the_same_when_it_is_sent_back(
    library: Library, opened: Opened, name: str
) -> None:
    state = transitions.choosing(library, opened.state, name, 2, {})
    sent = {field: entry["value"] for field, entry in shown(library, state).items()}
    again = tuned(library, state, json.loads(json.dumps(sent)))
    assert again.preset == name and library.open(again).drop == library.open(state).drop


def test_a_recipe_kept_under_a_name_brings_its_second_analysis_back(
    library: Library, opened: Opened, generic: Contributions
) -> None:
    state = with_floor(library, opened.state)
    shelf = Shelf(library.workspace.recipes)
    shelf.save("floored", state.recipe, state.second)
    library._analyses.pop(generic.content_hash)  # as after a restart
    assert opened.state.second is None
    back, remark = transitions.shelved(library, opened.state, shelf, "floored")
    assert (back.second, remark) == (generic.content_hash, "")
    assert library.open(back).drop == library.open(state).drop
    shelf.save("plain", opened.state.recipe)
    assert transitions.shelved(library, back, shelf, "plain")[0].recipe == opened.state.recipe


def test_a_second_analysis_that_is_gone_is_said_and_another_one_that_is_open_is_named(
    library: Library, opened: Opened, generic: Contributions
) -> None:
    state = with_floor(library, opened.state)
    shelf = Shelf(library.workspace.recipes)
    shelf.save("floored", state.recipe, "ab" * 32)
    with pytest.raises(InputError, match="'floored' was kept with the second analysis abababababab, which is not in"):
        transitions.shelved(library, opened.state, shelf, "floored")
    shown_now, remark = transitions.shelved(library, state, shelf, "floored")
    assert shown_now.second == generic.content_hash and "Its floors go by generic now." in remark
    shelf.save("older", state.recipe)
    assert "before it was noted" in transitions.shelved(library, state, shelf, "older")[1]


def test_a_recipe_and_its_file_of_floors_are_opened_together(library: Library, opened: Opened, tmp_path: Path) -> None:
    recipe, floors, chosen = tmp_path / "recipe.json", tmp_path / "floors.json", tmp_path / "map.json"
    recipe.write_text('{"drop": 2, "floor_analysis": "same", "floor_layers_from": "file"}')
    floors.write_text('{"floor_per_layer": {"0": 3, "1": 1, "2": 2}, "description": "published"}')
    with pytest.raises(InputError, match="Choose both files at once"):
        library.open(transitions.read_choice(library, opened.state, recipe))
    state = transitions.read_choice(library, opened.state, floors, recipe)
    assert state.recipe.layer_floors == {"0": 3.0, "1": 1.0, "2": 2.0}
    assert library.open(state).drop == make_map(library.analysis(state.analysis or ""), state.recipe)
    with pytest.raises(InputError, match=r"floors\.json has floors per layer, and no recipe"):
        transitions.read_choice(library, opened.state, floors)
    chosen.write_text(opened.drop.to_json() if opened.drop else "")
    with pytest.raises(InputError, match="no recipe with its floors"):
        transitions.read_choice(library, opened.state, recipe, chosen)
    recipe.write_text('{"drop": 2}')
    with pytest.raises(InputError, match="takes no floors from a file"):
        transitions.read_choice(library, opened.state, recipe, floors)
