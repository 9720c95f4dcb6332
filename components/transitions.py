"""From one state of a tab to the next, wherever that takes what lies open: `StudioState` alone cannot tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.library import Library
from components.state import StudioState
from components.strokes import Action, Stroke
from studio.errors import InputError
from studio.families import MoeShape
from studio.jobs.needs import require_room
from studio.quantize.imatrix_file import read_imatrix
from studio.quantize.writer import fitting_imatrix, kept_experts
from studio.recipes.criteria import fitting
from studio.recipes.dropmap import DropMap
from studio.recipes.floors import with_layer_floors
from studio.recipes.overrule import overrule
from studio.recipes.permalink import Permalink
from studio.recipes.presets import PRESETS, preset, scaled
from studio.recipes.recipe import Recipe
from studio.recipes.weights import by_name, within
from studio.shelf import Shelf
from studio.staging import staged

MAX_CHOICE_BYTES = 16 << 20
"""Published maps have some kilobytes."""


FLOORS_KEY = "floor_per_layer"
"""What a published file of floors has, and neither a recipe nor a map."""


def is_recipe(text: bytes) -> bool:
    """Whether JSON is a recipe rather than a map; what is neither is left to the reader of maps, which says why."""
    return any(isinstance(_object(text).get(count), int) for count in ("drop", "keep"))


def _object(text: bytes) -> dict[str, Any]:
    """The object that JSON holds; an empty one where it holds none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


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
        require_room(library.workspace, path.stat().st_size)
        with staged(kept, overwrite=True) as partial:
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


def shelved(library: Library, state: StudioState, shelf: Shelf, name: str) -> tuple[StudioState, str]:
    """`state` with the recipe that is kept under `name`, and with the second analysis that it was kept with; and what
    has to be known where that is another one now.

    Raises as `Shelf.read` and `by_name` do, and `InputError` where its floors have nothing to go by.
    """
    recipe, kept = shelf.read(name), shelf.second(name)
    if not recipe.needs_second_analysis:
        return cooking(library, state, recipe), ""
    if kept is not None:
        with suppress(InputError):
            second = library.find_analysis(kept, library.reference_of(state))
            return cooking_with(library, second, state, recipe), ""
    why = (
        f"was kept with the second analysis {kept[:12]}, which is not in this workspace any more"
        if kept
        else "was kept before it was noted which second analysis its floors go by"
    )
    if state.second is None:
        raise InputError(
            f"The recipe {name!r} {why}.",
            "Add it in the first station and open the recipe again, or first choose another one under “Fine-tune the "
            "recipe”.",
        )
    open_now = library.analysis_path(state.second).stem
    return cooking(library, state, recipe), f"The recipe {name!r} {why}. Its floors go by {open_now} now."


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


def read_choice(library: Library, state: StudioState, *paths: Path) -> StudioState:
    """`state` with the map or recipe in the file at a path, or with a recipe and its floors per layer in two of them;
    they are looked at to tell which is which.

    Raises what `Recipe.from_json`, `DropMap.from_json` and `with_layer_floors` do, and `InputError` for other files.
    """
    texts = {path.name: _choice_text(path) for path in paths}
    recipes = [name for name, text in texts.items() if is_recipe(text)]
    floors = [name for name, text in texts.items() if FLOORS_KEY in _object(text)]
    others = [name for name in texts if name not in (*recipes, *floors)]
    if (len(recipes), len(floors), len(others)) == (0, 0, 1):
        model = library.reference(state.reference) if state.reference else library.analysis(state.analysis or "")
        return state.showing(DropMap.from_json(texts[others[0]], shape=model.shape, name=others[0]))
    if others or len(recipes) != 1 or len(floors) > 1:
        together = "are no recipe with its floors" if len(texts) > 1 else "has floors per layer, and no recipe"
        raise InputError(
            f"{' and '.join(texts)} {together}.",
            "Choose a recipe or a map; where the recipe takes its floors from a file, choose that one with it.",
        )
    recipe = Recipe.from_json(texts[recipes[0]], recipes[0])
    if floors:
        if recipe.floor_layers_from != "file":
            raise InputError(f"The recipe {recipes[0]} takes no floors from a file.", "Choose the recipe alone.")
        recipe = with_layer_floors(recipe, texts[floors[0]], floors[0])
    return cooking(library, state, recipe)


def _choice_text(path: Path) -> bytes:
    if path.stat().st_size > MAX_CHOICE_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size:,} bytes, too many for a map or a recipe.")
    return path.read_bytes()


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
