"""From one state of a tab to the next, wherever that takes what lies open: `StudioState` alone cannot tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from components.library import Library
from components.state import StudioState
from components.strokes import Action, Stroke
from studio.errors import InputError
from studio.families import MoeShape
from studio.quantize.imatrix_file import read_imatrix
from studio.quantize.writer import fitting_imatrix, kept_experts
from studio.recipes.criteria import fitting
from studio.recipes.dropmap import DropMap
from studio.recipes.overrule import overrule
from studio.recipes.permalink import Permalink
from studio.recipes.presets import PRESETS, preset, scaled
from studio.recipes.recipe import Recipe
from studio.recipes.weights import by_name, within
from studio.staging import staged

MAX_CHOICE_BYTES = 16 << 20
"""Published maps have some kilobytes."""


def is_recipe(text: bytes) -> bool:
    """Whether JSON is a recipe rather than a map; what is neither is left to the reader of maps, which says why."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and any(isinstance(content.get(count), int) for count in ("drop", "keep"))


def with_reference(library: Library, state: StudioState, name: str) -> StudioState:
    """`state` with another model; what was chosen stays where the analysis fits it."""
    shape = library.reference(name).shape
    if state.analysis is not None and library.analysis(state.analysis).shape.same_grid(shape):
        return replace(state, reference=name, imatrix=None)
    return state.opening_another(name, None, shape)


def with_analysis(library: Library, state: StudioState, path: Path) -> StudioState:
    """`state` with another analysis, itself where it is open already; what was chosen stays where it fits.

    Raises as `open_analysis` does.
    """
    return _showing(library, state, library.open_analysis(path, library.reference_of(state)))


def with_added(library: Library, state: StudioState, path: Path) -> StudioState:
    """`state` with the questions of the analysis at `path` added to those that are open.

    Raises as `open_analysis` and `merge` do.
    """
    if state.analysis is None:
        return with_analysis(library, state, path)
    return _showing(library, state, library.open_added(state.analysis, path, library.reference_of(state)))


def adopt_imatrix(library: Library, state: StudioState, path: Path) -> StudioState:
    """`state` with the importance matrix at `path`, which is copied into the workspace.

    Raises what `read_imatrix` raises, and `MismatchError` for one of another model.
    """
    opened = library.open(state)
    if opened.reference is None or opened.drop is None:
        raise InputError("There is no model to use the importance matrix with.", "Open one first.")
    imatrix = read_imatrix(path)
    header = library.outline(opened.reference)
    fitting_imatrix(path, header, kept_experts(header, opened.drop))
    kept = library.workspace.imatrix / f"{path.stem}-{imatrix.content_hash[:8]}{path.suffix}"
    if not kept.exists():
        with staged(kept, overwrite=True, needed_bytes=path.stat().st_size) as partial:
            shutil.copyfile(path, partial)
    return state.weighing(kept.name)


def following(library: Library, state: StudioState, link: Permalink) -> StudioState:
    """`state` with the recipe of a permalink, on the analysis that it names.

    The model is the one that is open where the analysis fits it, else the one that the link names, else none.

    Raises `InputError` where the analysis is not here, and as `by_name` and `open` do.
    """
    state = _showing_linked(library, state, link)
    second = link.floor_contributions and library.find_analysis(link.floor_contributions, library.reference_of(state))
    state = cooking_with(library, second or state.second, state, link.recipe)
    library.open(state)
    return state


def _showing_linked(library: Library, state: StudioState, link: Permalink) -> StudioState:
    named = [link.model] if link.model != state.reference and link.model in library.reference_names() else []
    for name in (state.reference, *named, ""):
        with suppress(InputError):  # not of this model
            key = library.find_analysis(link.contributions, library.reference(name) if name else None)
            at = state if name == state.reference else replace(state, reference=name, imatrix=None)
            return _showing(library, at, key)
    of_model = f" of {link.model}" if link.model else ""
    raise InputError(
        f"The link is for an analysis{of_model} that is not in this workspace: {link.contributions[:12]}.",
        "Open the model and add the analysis in the first station, and follow the link again.",
    )


def _showing(library: Library, state: StudioState, key: str) -> StudioState:
    """`state` with the opened analysis `key`."""
    if key == state.analysis:
        return state
    contributions = library.analysis(key)
    view = state.view.within(contributions.classes)
    if state.analysis is None or not library.analysis(state.analysis).shape.same_grid(contributions.shape):
        opened = state.opening_another(state.reference, key, contributions.shape)
        return fitted(library, opened.looking(view).weighing(state.imatrix))
    return fitted(library, replace(state, analysis=key, view=view, cell=None))


def fitted(library: Library, state: StudioState) -> StudioState:
    """`state` with a recipe that its analysis has the classes and sums for: its own one wherever that can be used.

    What had to be changed is no step of the history: nobody asked for it.
    """
    if state.analysis is None or state.imported is not None:
        return state
    contributions = library.analysis(state.analysis)
    going_by = library.analysis(state.second) if state.second and state.recipe.needs_second_analysis else contributions
    known = within(state.recipe, contributions.classes, going_by.classes)
    if known != state.recipe:
        state = replace(state, recipe=known)
    recipe = fitting(state.recipe, contributions)
    if recipe == state.recipe:
        return state
    return replace(state.cooking(recipe, contributions.shape.experts), history=state.history)


def cooking(library: Library, state: StudioState, recipe: Recipe) -> StudioState:
    """`state` with a recipe from elsewhere, in the terms of the page. Raises as `by_name` does."""
    return cooking_with(library, state.second, state, recipe)


def cooking_with(library: Library, second: str | None, state: StudioState, recipe: Recipe) -> StudioState:
    """The same with another second analysis, the opened one whose content hash is `second`, or with none."""
    return state.cooking_with(second, _in_plain_terms(library, state, recipe), _shape(library, state).experts)


def finding(library: Library, state: StudioState, recipe: Recipe, what: str) -> StudioState:
    """`cooking` for what a search has found: the step of the history is called `what`."""
    return state.finding(_in_plain_terms(library, state, recipe), _shape(library, state).experts, what)


def choosing(library: Library, state: StudioState, name: str, drop: int, weights: Mapping[str, float]) -> StudioState:
    """`StudioState.choosing`; a preset that is new and brings weights of its own has those."""
    if name not in PRESETS:
        return state.choosing(name, drop, weights)
    if name != state.preset and PRESETS[name].recipe.class_weights:
        weights = _in_plain_terms(library, state, preset(name, drop)).class_weights
    chosen = state.choosing(name, drop, weights).choice
    return state.having(replace(chosen, recipe=scaled(chosen.recipe, _shape(library, state).experts)))


def read_choice(library: Library, state: StudioState, path: Path) -> StudioState:
    """`state` with the map or recipe in the file at `path`; it is looked at to tell which.

    Raises what `Recipe.from_json` and `DropMap.from_json` do.
    """
    if path.stat().st_size > MAX_CHOICE_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size:,} bytes, too many for a map or a recipe.")
    text = path.read_bytes()
    if is_recipe(text):
        return cooking(library, state, Recipe.from_json(text, path.name))
    model = library.reference(state.reference) if state.reference else library.analysis(state.analysis or "")
    return state.showing(DropMap.from_json(text, shape=model.shape, name=path.name))


def grid(library: Library, state: StudioState) -> MoeShape:
    """Of the map that can be worked in; `InputError` where there is no analysis, and so no scores to overrule."""
    if state.analysis is None:
        raise InputError("There is no analysis, so there are no scores to overrule.", "Open one first.")
    return library.analysis(state.analysis).shape


def overruling(library: Library, state: StudioState, stroke: Stroke) -> StudioState:
    """`state` after what was said by hand about some experts: one step of the history.

    Raises as `overrule` and `grid` do.
    """
    return state.overruling(overrule(state.recipe, grid(library, state), stroke.rows, stroke.experts, stroke.fate))


def working(library: Library, state: StudioState, actions: Sequence[Action]) -> StudioState:
    """`state` after what was done on the map, in order. Raises as `overruling` does."""
    for action in actions:
        if action == "undo":
            state = fitted(library, state.undone())
        elif action == "redo":
            state = fitted(library, state.redone())
        else:
            state = overruling(library, state, action)
    return state


def _in_plain_terms(library: Library, state: StudioState, recipe: Recipe) -> Recipe:
    """`recipe` with a drop count and, where an analysis is open, with weights by class, as the page shows them."""
    if state.analysis is not None:
        return by_name(recipe, library.classes(state), _shape(library, state).experts)
    return recipe.but(drop=recipe.drop_of(_shape(library, state).experts))


def _shape(library: Library, state: StudioState) -> MoeShape:
    return library.analysis(state.analysis).shape if state.analysis else library.reference(state.reference).shape
