"""Whoever comes back finds what they left; what cannot be found is said, and the page opens all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components import transitions
from components.library import Library, Opened
from components.sessions import Sessions
from components.state import Kept, StudioState, Target, View
from components.strokes import Stroke
from studio.contributions.model import Contributions
from studio.errors import FormatError, InputError
from studio.recipes.permalink import Permalink


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", library.reference("pear"))
    return library.open(StudioState.opening("pear", key, contributions.shape))


def worked(library: Library, state: StudioState, user: str) -> StudioState:
    changed = transitions.overruling(library, replace(state, user=user), Stroke("keep", [1], [0]))
    changed = replace(changed, aside=Kept("the first", library.open(state).drop))
    return changed.looking(View("code", "math", "rank")).targeting(Target("24", 4096)).pointing(2, 3)


def test_a_reload_finds_everything_with_its_history(library: Library, opened: Opened) -> None:
    sessions = Sessions(library)
    state = worked(library, opened.state, "ann")
    sessions.keep(state)
    assert sessions.coming_back(opened.state, "ann", "") == (state, None)
    assert sessions.coming_back(opened.state, "bob", "") == (replace(opened.state, user="bob"), None)


@pytest.mark.parametrize("imported", [False, True])
def test_a_restart_finds_everything_with_its_history(library: Library, opened: Opened, imported: bool) -> None:
    sessions = Sessions(library)
    state = worked(library, opened.state, "ann/../x")
    if imported:
        state = state.showing(opened.drop)
    sessions.keep(state)
    sessions.flush()
    again = Library(library.workspace)
    back, problem = Sessions(again).coming_back(StudioState.opening("pear", None, None), "ann/../x", "")
    assert problem is None
    assert back == replace(state, history=back.history) and back.history.steps == state.history.steps
    assert back.undone().choice == state.undone().choice and back.undone().redone().choice == state.choice
    assert again.open(back).drop == library.open(state).drop
    assert sessions.path("ann/../x").parent == library.workspace.sessions
    fresh = Sessions(again, fresh=True).coming_back(opened.state, "ann/../x", "")
    assert fresh[0].recipe == opened.state.recipe, "a page that was told what to open opens that"


@pytest.mark.parametrize(
    "change", [{"reference": "gone"}, {"reference": "../.."}, {"analysis": "0" * 64}, {"view": {}, "recipe": 3}]
)
def test_what_is_gone_or_damaged_is_said_and_the_page_opens(
    library: Library, opened: Opened, change: dict[str, Any]
) -> None:
    sessions = Sessions(library)
    sessions.keep(worked(library, opened.state, "ann"))
    sessions.flush()
    path = sessions.path("ann")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    back, problem = Sessions(library).coming_back(opened.state, "ann", "")
    assert back == replace(opened.state, user="ann") and isinstance(problem, InputError)
    path.write_text("{")
    assert isinstance(Sessions(library).coming_back(opened.state, "ann", "")[1], FormatError)


def test_a_link_is_one_more_step(library: Library, opened: Opened) -> None:
    sessions = Sessions(library)
    recipe = opened.state.recipe.but(drop=5, force_drop={"all": [7]})
    link = Permalink(recipe, opened.state.analysis or "").to_text()
    state, problem = sessions.coming_back(opened.state, "ann", link)
    assert problem is None and state.recipe == recipe and state.preset == "98e-v4"
    assert state.undone().recipe == opened.state.recipe
    elsewhere = Permalink(recipe, "0" * 64).to_text()
    for wrong in ("rubbish", elsewhere, Permalink(recipe.but(drop=7), opened.state.analysis or "").to_text()):
        state, problem = sessions.coming_back(opened.state, "ann", wrong)
        assert problem is not None and state.recipe == opened.state.recipe


def test_undo_gives_up_classes_that_another_analysis_lacks(library: Library, opened: Opened) -> None:
    weighed = transitions.choosing(library, opened.state, "98e-v3", 2, {"code": 2.0})
    changed = transitions.choosing(library, weighed, "98e-v4", 2, {})
    alien = replace(changed.history.past[-1].choice, recipe=weighed.recipe.but(class_weights={"verse": 2.0}))
    past = (*changed.history.past[:-1], replace(changed.history.past[-1], choice=alien))
    state = transitions.working(library, replace(changed, history=replace(changed.history, past=past)), ["undo"])
    assert state.recipe.class_weights == {}


def test_a_link_opens_the_model_and_analysis_that_it_was_made_for(
    library: Library, opened: Opened, make_model: Callable[..., Path]
) -> None:
    make_model(library.workspace.references / "quince", experts=4)
    another = transitions.with_reference(library, replace(opened.state, user="ann"), "quince")
    elsewhere = replace(another, target=Target("24", 4096))
    assert elsewhere.user == "ann" and elsewhere.analysis is None
    recipe = opened.state.recipe.but(drop=5)
    for model, found in (("pear", "pear"), ("gone", ""), ("", "")):
        link = Permalink(recipe, opened.state.analysis or "", model=model)
        state = transitions.following(library, elsewhere, Permalink.from_text(link.to_text()))
        assert (state.reference, state.analysis, state.recipe) == (found, opened.state.analysis, recipe)
        assert state.user == "ann" and state.target == elsewhere.target
    with pytest.raises(InputError, match="for an analysis of plum that is not in this workspace: 000000000000"):
        transitions.following(library, elsewhere, Permalink(recipe, "0" * 64, model="plum"))
