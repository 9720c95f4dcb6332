"""Working in the map and with named recipes: what is clicked, typed or opened becomes the state of the tab."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from components import heatmap, transitions
from components.follow import follow, open_accordion
from components.heatmap import SeeStation
from components.markup import failure, notice
from components.recipe import ShelfPart
from components.state import StudioState
from components.steps import StepsPart, steps_html
from components.strokes import actions_of, message_of, typed_stroke
from components.wiring import Updates, Wiring
from studio.errors import EspalierError, InputError
from studio.recipes.overrule import Fate
from studio.shelf import Shelf


def wire_map(see: SeeStation, wiring: Wiring) -> None:
    """Wire what is clicked, dragged over and typed."""
    library, state, asked, render = wiring.library, wiring.state, wiring.asked, wiring.render

    def on_work(now: StudioState, name: str, chosen: Any, more: Any, event: gr.EventData) -> Updates:
        number, sent = message_of(event._data)
        now = replace(now, answered=number)
        try:
            actions = actions_of(sent, transitions.grid(library, now))
            return render(library.open(transitions.working(library, now, actions)), name, chosen, more)
        except EspalierError as error:
            return {
                see.plot: gr.HTML(work=heatmap.work_json(now, library.open(now).shape)),
                see.problem: gr.HTML(failure(error), visible=True),
            }

    def on_typed(fate: Fate, now: StudioState, layers: str, experts: str, *others: Any) -> Updates:
        try:
            stroke = typed_stroke(fate, layers, experts, transitions.grid(library, now))
            return render(library.open(transitions.overruling(library, now, stroke)), *others)
        except EspalierError as error:
            return {see.problem: gr.HTML(failure(error), visible=True)}

    see.plot.select(on_work, [state, *asked], wiring.outputs, **wiring.calls)
    for fate, button in see.typed.buttons.items():
        typed = [state, see.typed.layers, see.typed.experts, *asked]
        button.click(partial(on_typed, fate), typed, wiring.outputs, **wiring.calls)


def wire_steps(part: StepsPart, wiring: Wiring) -> None:
    """Wire the list of steps, which follows every choice while it is open."""
    library, state = wiring.library, wiring.state

    def listed(now: StudioState) -> str:
        return steps_html(now.history)

    def on_step(now: StudioState, name: str, chosen: Any, more: Any, event: gr.EventData) -> Updates:
        try:
            opened = library.open(transitions.fitted(library, now.at_step(event.step)))
            return wiring.render(opened, name, chosen, more)
        except EspalierError as error:
            return {wiring.problem: gr.HTML(failure(error), visible=True)}

    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    part.accordion.expand(listed, state, part.steps, **live)
    follow([one.change for one in wiring.changed], open_accordion("steps"), listed, [state], [part.steps])
    part.steps.click(on_step, [state, *wiring.asked], wiring.outputs, **wiring.calls)


def wire_shelf(part: ShelfPart, wiring: Wiring) -> None:
    """Wire recipes under a name."""
    library, state = wiring.library, wiring.state
    shelf = Shelf(library.workspace.recipes)

    def told(error: EspalierError) -> Updates:
        return {part.problem: gr.HTML(failure(error), visible=True)}

    def listed(chosen: str | None) -> Updates:
        return {part.saved: gr.Dropdown(shelf.names(), value=chosen), part.problem: gr.HTML(visible=False)}

    def on_save(now: StudioState, name: str) -> Updates:
        try:
            if now.imported is not None:
                raise InputError("An imported map is shown, and no recipe makes it.", "Save the drop map as a file.")
            return {**listed(shelf.save(name, now.recipe, now.second)), part.name: ""}
        except EspalierError as error:
            return told(error)

    def on_saved(now: StudioState, name: str | None, *others: Any) -> Updates:
        try:
            if not name:
                return {part.problem: gr.HTML(visible=False)}
            state, remark = transitions.shelved(library, now, shelf, name)
            rendered = wiring.render(library.open(state), *others)
            return {**rendered, part.problem: gr.HTML(remark and notice(remark, kind="warning"), visible=bool(remark))}
        except EspalierError as error:
            return told(error)

    def on_delete(name: str | None) -> Updates:
        try:
            if not name:
                raise InputError("No recipe is chosen.", "Choose the one to delete.")
            shelf.delete(name)
            return {**listed(None), part.name: name}
        except EspalierError as error:
            return told(error)

    own = [part.saved, part.name, part.problem]
    for event in (part.save.click, part.name.submit):
        event(on_save, [state, part.name], own, **wiring.calls)
    part.delete.click(on_delete, part.saved, own, **wiring.calls)
    chosen = [state, part.saved, *wiring.asked]
    part.saved.input(on_saved, chosen, [*wiring.outputs, part.problem], **wiring.calls)
