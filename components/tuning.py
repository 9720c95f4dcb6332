"""What the form of the recipe's options sends back: plain values, checked before they become a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components import transitions
from components.library import Library
from components.option_table import OPTIONS, SECOND, Kind, Option
from components.state import StudioState
from studio.errors import InputError
from studio.families import MoeShape
from studio.recipes.floors import with_layer_floors
from studio.recipes.idle import without_idle
from studio.recipes.layer_floors import parse_layer_floors
from studio.recipes.presets import PRESETS, scaled
from studio.recipes.recipe import Recipe

LONGEST_TEXT = 1 << 20
"""Letters; a file of floors of a model with hundreds of layers has some thousands."""
_REMEDY = "Reload the page."


def sent_of(data: object) -> tuple[int, dict[str, Any]]:
    """(number of the message, field → value) of what the browser sent; `InputError` where it cannot be read."""
    sent = data if isinstance(data, Mapping) else {}
    number, fields = sent.get("ask"), sent.get("fields")
    if type(number) is int and isinstance(fields, dict) and all(field in OPTIONS for field in fields):
        return number, fields
    raise InputError("What the page sent about the recipe cannot be read.", _REMEDY)


def tuned(library: Library, state: StudioState, sent: Mapping[str, Any]) -> StudioState:
    """`state` with the fields that were `sent`, as one step of the history.

    What no longer says anything, or contradicts what was just chosen, goes back to its default. Raises `InputError` for
    what a recipe cannot have, and as `Library.open_analysis` does.
    """
    shape, known = transitions.grid(library, state), library.classes(state)
    changes = {field: _read(OPTIONS[field], value, state.recipe, shape, known) for field, value in sent.items()}
    second = state.second
    if SECOND in changes:
        second = _opened_second(library, state, changes.pop(SECOND))
        changes["floor_analysis"] = "second" if second else "same"
    fields = {**{name: getattr(state.recipe, name) for name in Recipe.model_fields}, **changes}
    if fields["classes"] is not None:
        for weights in ("class_weights", "protect_class_weights"):
            taking_part = {klass: weight for klass, weight in fields[weights].items() if klass in fields["classes"]}
            fields[weights] = taking_part
    if second is None:
        fields["floor_analysis"] = "same"
    if fields["floor_layers_from"] == "importance" and fields["floor_clamp"] is None:
        fields["floor_clamp"] = scaled(PRESETS["98e-v5-coder"].recipe, shape.experts).floor_clamp
    recipe = without_idle(Recipe.model_construct(**fields))
    return transitions.cooking_with(library, second, state, recipe)


def _opened_second(library: Library, state: StudioState, path: str) -> str | None:
    if not path:
        return None
    if path not in map(str, library.analysis_paths()):
        raise InputError("This analysis is not in the workspace any more.", "Choose another one.")
    return library.open_analysis(Path(path), library.reference(state.reference) if state.reference else None)


_TYPES: Mapping[Kind, tuple[type, ...]] = {
    "choice": (str,),
    "number": (int, float, type(None)),
    "switch": (bool,),
    "pair": (list, type(None)),
    "ticks": (list,),
    "numbers": (dict,),
    "text": (str,),
}


def _read(option: Option, value: Any, recipe: Recipe, shape: MoeShape, known: Sequence[str]) -> Any:
    """A value from the browser as a recipe has it; what is in it is for `Recipe` to check."""
    inside = value.values() if isinstance(value, dict) else value if option.kind == "pair" and value else ()
    too_long = isinstance(value, str) and len(value) > LONGEST_TEXT
    wrong = type(value) not in _TYPES[option.kind] or any(type(number) not in (int, float) for number in inside)
    if too_long or wrong:
        raise InputError(f"“{option.label}” cannot be {json.dumps(value)[:40]}.", _REMEDY)
    match option.field:
        case "classes":
            return _chosen(value, known)
        case "protect_aggregate":
            return value or None
        case "protect_class_weights":
            return {klass: weight for klass, weight in value.items() if weight != 1}
        case "class_minimums":
            order = [*(klass for klass, _ in recipe.class_minimums if klass in value), *value]
            return [(klass, value[klass]) for klass in dict.fromkeys(order) if value[klass]]
        case "layer_floors":
            published = value.lstrip().startswith("{")
            read = with_layer_floors(recipe, value, "What you wrote").layer_floors if published else None
            return parse_layer_floors(value, shape.layer_ids) if read is None else read
        case _:
            return value


def _chosen(sent: Sequence[Any], known: Sequence[str]) -> list[str] | None:
    """The classes that take part, in the order of the analysis; None where all do."""
    chosen = [klass for klass in known if klass in sent]
    if not chosen:
        raise InputError("No class takes part.", "Leave at least one.")
    return None if len(chosen) == len(known) else chosen
