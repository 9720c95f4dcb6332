"""Fine-tune the recipe: a form of all its options (components/option_table.py), drawn by assets/options.js.

The browser is sent the whole form as JSON while it is open, and sends back what was changed (components/tuning.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

from components.library import DEMO_ANALYSIS, Library, Opened
from components.markup import class_label
from components.option_table import GROUPS, SECOND, Option
from components.state import StudioState
from components.theme import script
from components.tuning import sent_of, tuned
from components.wiring import Updates, Wiring
from studio.contributions.file import shape_of
from studio.contributions.model import Contributions
from studio.errors import EspalierError, InputError
from studio.families import MoeShape
from studio.recipes.criteria import fitting
from studio.recipes.idle import idle
from studio.recipes.layer_floors import layer_floors_text
from studio.recipes.recipe import Recipe


@dataclass(frozen=True)
class OptionsPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    form: gr.HTML


def form_json(
    library: Library, opened: Opened, answered: int = 0, problem: tuple[str, EspalierError] | None = None
) -> str:
    """The form as the browser draws it; empty without an analysis.

    `answered` is the number of the message that this answers (0: something else changed the recipe), and `problem` is
    what was wrong in it: the field, and why.
    """
    contributions = opened.contributions
    if contributions is None:
        return ""
    nothing = idle(opened.state.recipe)
    groups = [
        {"title": title, "options": [_entry(library, opened, contributions, option, nothing) for option in options]}
        for title, options in GROUPS
    ]
    told = None if problem is None else {"field": problem[0], "text": str(problem[1])}
    return json.dumps({"groups": groups, "answered": answered, "problem": told})


def _entry(
    library: Library, opened: Opened, contributions: Contributions, option: Option, nothing: Mapping[str, str]
) -> dict[str, Any]:
    """An option with its value; `how` is what does not change while the same analyses are open."""
    choices: Sequence[tuple[str, str, bool]] = [(label, value, True) for label, value in option.choices]
    if option.field == SECOND:
        choices = [
            ("This analysis", "", True),
            *((label, path, True) for label, path in second_choices(library, opened)),
        ]
    if option.field == "criterion":
        choices = [(label, value, _has(contributions, value)) for label, value in option.choices]
    how = {
        "field": option.field,
        "label": option.label,
        "info": option.info,
        "kind": option.kind,
        "choices": choices,
        "classes": [(klass, class_label(klass)) for klass in _classes(opened, option)],
        "step": option.step,
        "least": option.least,
        "unset": option.unset,
    }
    return {"how": how, "value": _value(opened, option), "idle": nothing.get(option.field, "")}


def _has(contributions: Contributions, criterion: str) -> bool:
    """Whether the analysis has the sums for a criterion."""
    asked = Recipe(criterion=criterion, drop=0)
    return fitting(asked, contributions) == asked


def second_choices(library: Library, opened: Opened) -> list[tuple[str, str]]:
    """(name, path) of the other analyses of the same grid."""
    shape, found = opened.shape, []
    for path in library.analysis_paths():
        if str(path) != opened.analysis_path and shape is not None:
            status = path.stat()
            other = _shape(path, status.st_mtime_ns, status.st_size)
            if other is not None and other.same_grid(shape):
                found.append(("Demo: made from the demo model" if path == DEMO_ANALYSIS else path.stem, str(path)))
    return found


@lru_cache(256)
def _shape(path: Path, changed: int, size: int) -> MoeShape | None:
    """The grid of the analysis at `path`, None for a damaged one; read again once the file is another."""
    try:
        return shape_of(path)
    except InputError:
        return None


def _second(opened: Opened) -> Contributions | None:
    """The second analysis, where the recipe would go by it."""
    return opened.second if opened.state.recipe.floor_analysis == "second" else None


def _classes(opened: Opened, option: Option) -> tuple[str, ...]:
    """The classes that an option has something for."""
    if option.field == "class_minimums":
        second = _second(opened)
        return second.classes if second else opened.classes
    return opened.classes if option.kind == "ticks" else opened.taking_part if option.kind == "numbers" else ()


def _value(opened: Opened, option: Option) -> Any:
    recipe = opened.state.recipe
    if option.field == SECOND:
        return opened.second_path if _second(opened) else ""
    value = getattr(recipe, option.field)
    if option.kind == "ticks":
        return opened.taking_part
    if option.kind == "text":
        return layer_floors_text(value)
    if option.kind == "numbers":
        given, usual = (dict(value), 0) if option.field == "class_minimums" else (value, 1)
        return {klass: given.get(klass, usual) for klass in _classes(opened, option)}
    return "" if option.kind == "choice" and value is None else value


def options_part() -> OptionsPart:
    """Lay the part out, closed: no browser is sent the form until somebody looks."""
    with gr.Accordion("Fine-tune the recipe", open=False, elem_id="options") as accordion:
        form = gr.HTML(
            "",
            html_template='<div class="options" data-empty="Open an analysis first."></div>',
            js_on_load=script("options.js"),
            elem_id="options-form",
            apply_default_css=False,
        )
    return OptionsPart(accordion, form)


def wire_options(part: OptionsPart, wiring: Wiring) -> None:
    """Wire the form."""
    library, state, calls = wiring.library, wiring.state, wiring.calls

    def on_change(now: StudioState, name: str, chosen: Any, more: Any, event: gr.EventData) -> Updates:
        number = 0
        sent: dict[str, Any] = {}
        try:
            number, sent = sent_of(event._data)
            opened = library.open(tuned(library, now, sent))
            return {**wiring.render(opened, name, chosen, more), part.form: form_json(library, opened, number)}
        except EspalierError as error:
            return {part.form: form_json(library, library.open(now), number, (next(reversed(sent), ""), error))}

    def on_fold(now: StudioState, tuning: bool) -> Updates:
        now = replace(now, tuning=tuning)
        return {state: now, part.form: form_json(library, library.open(now)) if tuning else gr.skip()}

    part.form.input(on_change, [state, *wiring.asked], wiring.outputs, **calls)
    part.accordion.expand(lambda now: on_fold(now, True), state, [state, part.form], **calls)
    part.accordion.collapse(lambda now: on_fold(now, False), state, [state, part.form], **calls)
