"""Why an expert stays or leaves, in words and figures that say what the engine found."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from components import transitions
from components.library import Library, Opened
from components.state import StudioState
from components.why import (
    cell,
    chosen_layer,
    curve_html,
    expert_html,
    layer_choices,
    layer_html,
    losses_html,
    map_html,
    ties_html,
)
from studio.contributions import file
from studio.contributions.model import Contributions, Question
from studio.errors import InputError
from studio.families import MoeShape
from studio.recipes.apply import make_map
from studio.recipes.boundary import ScoreCurves, score_curves
from studio.recipes.explain import explain
from studio.recipes.presets import preset
from studio.recipes.preview import preview
from studio.recipes.recipe import Recipe

ATTACK = "<img src=x onerror=alert(1)>"


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    reference = library.reference("pear")
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", reference)
    return library.open(StudioState.opening("pear", key, reference.shape))


@pytest.mark.parametrize(
    ("fields", "expert", "said"),
    [
        ({}, 7, "stays: its score is among the highest"),
        ({}, 0, "leaves: its score is among the lowest"),
        ({"force_keep": {"0": [0]}}, 0, "stays: you keep it"),
        ({"force_keep": {"0": [0]}}, 2, "leaves: its score alone would keep it"),
        ({"force_drop": {"0": [7]}}, 7, "leaves: you drop it"),
        ({"force_drop": {"0": [7]}}, 1, "stays: its score alone would drop it, but others"),
        ({"protect_top_per_class": 1}, 0, "stays: its score alone would drop it, but it is protected"),
    ],
)
def test_the_rule_is_said_in_words(
    contributions: Contributions, fields: dict[str, object], expert: int, said: str
) -> None:
    recipe = Recipe(drop=2, class_weights={"math": 3.0}, **fields)
    told = explain(contributions, recipe, 0, expert)
    html = expert_html(contributions, told, 2)
    assert f"Layer 0, expert {expert} {said}" in html
    assert f"{told.place} of 8" in html and "6 are kept" in html
    assert f"the cut is at {told.boundary:.4g}" in html
    for name in told.protected_by:
        assert name in html
    for one in told.classes:
        assert f"<td class=number>{one.weight:g}</td><td class=number>{one.normalised:.4g}</td>" in html


def test_bars_are_the_sorted_scores_and_the_fallen_are_marked(contributions: Contributions) -> None:
    recipe = Recipe(drop=3, class_weights={"math": 3.0})
    found = score_curves(contributions, recipe)
    html = layer_html(found, 1, 7)
    stays, leaves = (re.search(rf"class='{kind}'[^>]*d='([^']*)'", html)[1].count("M") for kind in ("bar", "bar gone"))
    assert (stays, leaves) == (5, 3)
    assert html.index("expert 7") and "of those that leave, 2, 1, 0" in html
    assert "Layer 1: the cut is clear" in html


@pytest.mark.parametrize(
    "values", [[1.0, 1.0], [0.0, 0.0], [-3.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [np.nan, np.nan]]
)
def test_scores_of_any_kind_can_be_drawn(contributions: Contributions, values: list[float]) -> None:
    found = score_curves(contributions, Recipe(drop=3))
    scores = np.sort(np.resize(values, found.scores.shape), axis=1)
    html = layer_html(replace(found, scores=scores, boundaries=np.full(3, np.nan)), 0, 2)
    assert "nobody leaves by score" in html
    assert "nan" not in html and "inf" not in html


def test_a_close_cut_is_counted(contributions: Contributions) -> None:
    found = score_curves(contributions, Recipe(drop=3))  # both classes together rank experts 1 and 6 alike
    assert "the cut is close, 1 expert stays by less than 1 % of the score" in layer_html(found, 0, 0)
    assert "The cut is close in 3 of 3 layers, closest in layer 0" in ties_html(found)
    clear = score_curves(contributions, Recipe(drop=3, class_weights={"math": 3.0}))
    assert "Every cut is clear" in ties_html(clear)


def test_the_grid_is_darkest_where_most_is_lost(contributions: Contributions) -> None:
    seen = preview(contributions, make_map(contributions, Recipe(drop=3, class_weights={"math": 3.0})))
    html = losses_html(seen)
    assert "Code is hurt most; layer 0 loses most" in html and "Hurt most: Code (41.7 % kept)" in html
    assert "58.3 % of what a layer gives a class is lost" in html
    assert html.count("M") >= 6


def test_a_map_that_drops_nothing_hurts_nobody(contributions: Contributions) -> None:
    seen = preview(contributions, make_map(contributions, Recipe(drop=0)))
    assert "class='loss'" not in losses_html(seen) and "No class loses anything" in losses_html(seen)


@pytest.mark.parametrize(("layers", "experts", "classes"), [(61, 384, 16), (1, 2, 1)])
def test_large_and_small_grids_are_drawn(layers: int, experts: int, classes: int) -> None:
    shape = MoeShape("gemma4", tuple(range(layers)), experts, 1, 8, 8)
    values = np.random.default_rng(0).lognormal(size=(classes, layers, experts))
    questions = tuple(Question(f"q{index}", f"a class of some length {index}") for index in range(classes))
    large = Contributions(shape, "m", questions, {"weighted_norm_squared": values})
    recipe = Recipe(drop=experts // 2)
    html = losses_html(preview(large, make_map(large, recipe))) + layer_html(score_curves(large, recipe), 0, 1)
    below = re.search(r"<div class='counts'[^>]*>(.*?)</div>", html)
    assert below is not None and below[1].count("<span") <= 12
    assert ties_html(score_curves(large, recipe))


def test_a_cell_is_explained_by_the_recipe_and_an_imported_map_is_not(library: Library, opened: Opened) -> None:
    assert cell(opened) == ""
    pointed = library.open(opened.state.pointing(1, 7))
    assert "Layer 1, expert 7 stays" in cell(pointed) and "Layer 1: " in cell(pointed)
    imported = library.open(pointed.state.showing(opened.drop))
    assert "does not say why" in cell(imported) and "Layer 1, expert 7: kept" in cell(imported)
    assert "does not say why" in map_html(imported) and "is hurt most" in map_html(imported)
    assert "No analysis is open" in map_html(library.open(replace(opened.state, analysis=None)))


@pytest.mark.parametrize("at", [(-1, 0), (0, -1), (3, 0), (0, 8)])
def test_a_cell_that_is_not_there_is_refused(library: Library, opened: Opened, at: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        cell(library.open(opened.state.pointing(*at)))


def test_names_are_never_markup(contributions: Contributions) -> None:
    questions = tuple(replace(one, klass=f"{ATTACK}{one.klass}") for one in contributions.questions)
    strange = replace(contributions, questions=questions)
    recipe = preset("98e-v4", 3).but(protect_top_per_class=2)
    html = expert_html(strange, explain(strange, recipe, 0, 7), 3)
    assert "<img" not in html + losses_html(preview(strange, make_map(strange, recipe)))


def test_the_cut_of_a_layer_is_shown_without_a_cell(library: Library, opened: Opened) -> None:
    assert layer_choices(opened) == [0, 1, 2] and chosen_layer(opened, None) == 0 and chosen_layer(opened, 2) == 2
    assert "Layer 2: " in curve_html(opened, 2) and "expert 7<" not in curve_html(opened, 2)
    pointed = library.open(opened.state.pointing(1, 7))
    assert chosen_layer(pointed, None) == chosen_layer(pointed, 9) == 1
    assert "expert 7<" in curve_html(pointed, 1) and "expert 7<" not in curve_html(pointed, 0)
    with pytest.raises(InputError, match="no layer 9"):
        curve_html(opened, 9)
    imported = library.open(opened.state.showing(opened.drop))
    assert chosen_layer(imported, 1) is None and curve_html(imported, 1) == ""


def test_the_cut_of_a_layer_goes_by_the_second_analysis_too(
    library: Library, opened: Opened, contributions: Contributions
) -> None:
    second = replace(contributions, sums={name: values[:, :, ::-1] for name, values in contributions.sums.items()})
    path = library.workspace.contributions / "second.safetensors"
    file.save(second, path)
    key = library.open_analysis(path, library.reference("pear"))
    recipe = Recipe(drop=2, floor=3, floor_analysis="second")
    going_by = library.open(transitions.cooking_with(library, key, opened.state, recipe))
    assert curve_html(going_by, 1) == f"<div class='insights'>{layer_html(_curves(going_by), 1)}</div>"


def _curves(opened: Opened) -> ScoreCurves:
    assert opened.contributions is not None
    return score_curves(opened.contributions, opened.state.recipe, opened.second)
