"""A search is drawn as it was measured, offered where it belongs, and what is clicked becomes one step."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from components import transitions
from components.library import Library, Opened
from components.search import drops_of, extended, found_of, parameters, points_of, searches_of, status_html
from components.search_figure import Found, found_json, found_title, list_html, unseen_html
from components.state import ALL, StudioState
from studio.errors import InputError
from studio.evaluate.divergence import Divergence
from studio.evaluate.search_points import Journal, Point, Stage
from studio.evaluate.search_run import Unseen
from studio.evaluate.virtual import Measurement
from studio.families import MoeShape
from studio.jobs.store import JobStore
from studio.recipes.presets import preset
from studio.recipes.recipe import Recipe

ATTACK = "<img src=x onerror=alert(1)>"
ASKED: list[Any] = [[0.25, 0.5], "", 60, 0, [], 8, None, "", "", ""]


@pytest.fixture
def opened(library: Library) -> Opened:
    reference = library.reference("pear")
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", reference)
    return library.open(StudioState.opening("pear", key, reference.shape))


def measured(math: float, code: float, name: str = "") -> Measurement:
    def one(kl: float) -> Divergence:
        return Divergence(100, kl, 0.01, kl, kl, kl, 0.9, 2.0, 2.0)

    return Measurement(name, "s", 8, 1.0, one(math), {"math": one(math), "code": one(code)})


def point(number: int, stage: Stage, drop: int, *kl: float, label: str = "REAP") -> Point:
    recipe = Recipe(drop=drop, criterion="frequency")
    return Point(number, stage, label, drop, recipe, measured(kl[0], kl[-1], f"map {number}"), 1.0)


POINTS = (
    point(0, "fixed", 2, 0.10, 0.30),
    point(1, "fixed", 4, 0.50, 0.90),
    point(2, "refined", 2, 0.05, 0.05, label="swaps, 2 dropped"),
    point(3, "optimised", 4, 0.60, 0.40),
)
FOUND = Found(POINTS, 8, None, "", {}, "map 2")


def test_the_figure_has_every_point_at_its_place() -> None:
    figure = json.loads(found_json(FOUND))
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert [round(place) for place in traces["Fixed criterion"]["x"]] == [6, 4]
    assert traces["Fixed criterion"]["y"] == pytest.approx([0.2, 0.7]) and figure["layout"]["meta"]["points"] == 4
    assert traces["Swaps of experts"]["customdata"] == [2] and traces["Shown"]["y"] == pytest.approx([0.05])
    assert len(traces["Best for its size"]["x"]) == 2
    assert figure["layout"]["yaxis"]["type"] == "log" and 0.1 in figure["layout"]["yaxis"]["tickvals"]
    of_math = json.loads(found_json(replace(FOUND, klass="math")))
    assert next(trace for trace in of_math["data"] if trace["name"] == "Optimiser")["y"] == [0.60]


def test_sizes_take_the_place_of_counts() -> None:
    figure = json.loads(found_json(replace(FOUND, tier="Q4_K_M", sizes={2: 3 << 30, 4: 2 << 30})))
    assert figure["layout"]["xaxis"]["ticktext"] == ["3 GiB<br>6 kept", "2 GiB<br>4 kept"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "Size as Q4_K_M"


def test_the_title_says_what_was_gained() -> None:
    assert found_title(FOUND).endswith("75.0 % with 2 dropped, 28.6 % with 4 dropped")
    assert "No recipe is closer" in found_title(replace(FOUND, points=POINTS[:2]))
    assert "for math" in found_title(replace(FOUND, klass="math"))


def test_what_has_no_place_on_a_logarithmic_axis_is_in_the_list_only() -> None:
    points = (*POINTS, point(4, "optimised", 2, float("nan")), point(5, "optimised", 2, 0.0, 0.0))
    assert json.loads(found_json(replace(FOUND, points=points)))["layout"]["meta"]["points"] == 4
    assert "data-point='4'" in list_html(replace(FOUND, points=points))
    assert found_json(replace(FOUND, points=points[-1:])) == ""


def test_the_list_has_a_button_for_every_point_and_marks_the_one_that_is_shown() -> None:
    html = list_html(FOUND)
    assert all(f"data-point='{number}'" in html for number in range(4)) and "All 4 recipes" in html
    assert html.count("data-point='2' aria-current='true'") == 2
    assert list_html(replace(FOUND, points=())) == ""


def test_the_end_is_told_by_prompts_that_were_not_seen() -> None:
    rows = [Unseen(4, "random", measured(0.1, 0.1)), Unseen(4, "REAP", measured(0.4, 0.4))]
    assert "no recipe is closer" in unseen_html(rows)
    assert "75.0 % with 4 dropped" in unseen_html([*rows, Unseen(4, "refined", measured(0.1, 0.1))])


def test_names_are_never_markup() -> None:
    evil = (point(0, "fixed", 2, 0.1, label=ATTACK),)
    rows = [Unseen(2, ATTACK, replace(measured(0.1, 0.1), classes={ATTACK: measured(0.1, 0.1).overall}))]
    told = found_json(replace(FOUND, points=evil)) + list_html(replace(FOUND, points=evil)) + unseen_html(rows)
    assert "<img" not in told


def test_shares_and_numbers_become_counts_that_the_router_allows() -> None:
    shape = MoeShape("gemma4", (0, 1), 32, 4, 8, 8)
    assert drops_of(shape, [0.5, 0.25], "8, 12;3") == [3, 8, 12, 16]
    assert drops_of(replace(shape, groups=8, groups_per_token=2), [0.375], "") == [8]
    with pytest.raises(InputError, match="'x' is no number"):
        drops_of(shape, [], "x")


def test_a_job_is_asked_under_a_name_that_is_free(library: Library, opened: Opened) -> None:
    asked = parameters(library, opened, ASKED, ["pear-2-4", "pear-2-4-2"])
    assert (asked["name"], asked["drops"], asked["seed"], asked["budget"]) == ("pear-2-4-3", [2, 4], 0, 60.0)
    assert asked["contributions"] == opened.analysis_path and asked["prompts"] == []
    for wrong, words in (([*ASKED[:2], None, *ASKED[3:]], "budget"), ([[], "x", *ASKED[2:]], "no number")):
        with pytest.raises(InputError, match=words):
            parameters(library, opened, wrong, [])
    with pytest.raises(InputError, match="model and an analysis"):
        parameters(library, replace(opened, contributions=None), ASKED, [])


def test_only_searches_of_the_open_analysis_are_offered(library: Library, opened: Opened) -> None:
    store = JobStore(library.workspace)
    assert opened.state.analysis is not None
    for name, analysis in (("mine", opened.state.analysis), ("other", "0" * 64)):
        journal = Journal(library.workspace.searches / name, {"contributions": analysis})
        for one in POINTS:
            journal.add(one)
    store.add("search", "Search", {"name": "waiting", "contributions": opened.analysis_path})
    store.add("search", "Search", {"name": "other", "contributions": "elsewhere"})
    found = searches_of(library, store, opened.state)
    assert [(one.name, one.job is None) for one in found] == [("waiting", False), ("mine", True)]
    assert [one.number for one in points_of(found[1])] == [0, 1, 2, 3] and points_of(found[0]) == ()
    drawn = found_of(library, opened, points_of(found[1]), "math", "Q4_K_M")
    assert drawn.klass == "math" and drawn.sizes[2] > drawn.sizes[4]
    assert found_of(library, opened, points_of(found[1]), ALL, "").sizes == {}
    assert "4 recipes measured" in status_html(found[1], store, drawn)
    cancelled = replace(found[0], job=store.finish(found[0].job.id, "cancelled", when=("queued",)))  # type: ignore[union-attr]
    assert "Go on" in status_html(cancelled, store, drawn)


def test_what_was_found_is_one_step_with_its_words(library: Library, opened: Opened) -> None:
    state = transitions.finding(library, opened.state, preset("REAP", 3), "found by search: REAP")
    assert state.recipe.drop == 3 and state.history.steps == ("found by search: REAP",)
    assert transitions.finding(library, state, state.recipe, "found by search: REAP").history == state.history
    assert state.undone().recipe == opened.state.recipe


def test_a_finished_search_goes_on_for_so_many_more_seconds() -> None:
    told = extended({"name": "mine", "budget": 120.0}, 60)
    assert told == {"name": "mine", "budget": 180.0, "extend": True}
    for wrong in (None, 0):
        with pytest.raises(InputError, match="“Seconds” cannot be"):
            extended(told, wrong)
