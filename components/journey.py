"""The stations one after the other, and what happens between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from components import heatmap, outputs, recipe, reference, sizes, transitions, why
from components.build import BuildStation, build_station, wire_build
from components.chat import ChatStation, chat_station
from components.cleanup import cleanup_part, wire_cleanup
from components.compare import wire_compare
from components.counts import possible, wire_counts
from components.heatmap import SeeStation, see_station
from components.insights import wire_insights
from components.library import Library, Opened
from components.markup import failure
from components.masthead import masthead
from components.measure import wire_measure
from components.options import form_json, wire_options
from components.page import Studio, opening
from components.publish import wire_publish
from components.publish_parts import publish_station
from components.quality import wire_quality
from components.quality_parts import quality_station
from components.recipe import ChooseStation, choose_station
from components.reference import LoadStation, load_station
from components.search import wire_search
from components.sessions import LOCAL
from components.shown import map_json, meaning_html
from components.sources import chat_sources
from components.state import StudioState, weights_from_json, weights_json
from components.trial import wire_trial
from components.why import shown_cell, wire_why
from components.wiring import Updates, Wiring
from components.work import wire_map, wire_shelf, wire_steps
from studio.errors import EspalierError, InputError
from studio.limits import require_upload
from studio.quantize.fit import this_gpu
from studio.shelf import Shelf

_LIVE: dict[str, Any] = {
    "queue": False,  # the queue would add its round trip to every move of a slider
    "trigger_mode": "always_last",
    "show_progress": "hidden",
    "api_visibility": "private",
}
_MANY: dict[str, Any] = {**_LIVE, "trigger_mode": "multiple"}
"""Where `always_last` would send the last event with the data of the first."""

_OPENED = """() => {{
  const page = document.querySelector('.gradio-container');
  page.opened = (page.opened || 0) + 1;
  page.inert = page.opened < {events};
}}"""
"""Lets the page be used, which assets/page.js keeps from that until it shows what its person chose last."""

_USABLE = "() => { document.querySelector('.gradio-container').inert = false; }"
"""The same, where opening it failed, and what should have followed does not."""

_WITHOUT_LINK = """() => {
  const address = new URL(location.href);
  if (!address.searchParams.has('recipe')) return;
  address.searchParams.delete('recipe');
  history.replaceState(history.state, '', address);
}"""
"""Takes the recipe out of the address once it is open: after a reload, what was changed since counts."""


@dataclass(frozen=True)
class Stations:
    """The parts of the page that change."""

    state: gr.State
    load: LoadStation
    see: SeeStation
    choose: ChooseStation
    build: BuildStation

    @property
    def looks(self) -> list[Any]:
        """What follows from another view of the same choice."""
        return [self.state, self.see.plot, self.see.problem, self.choose.problem]

    @property
    def results(self) -> list[Any]:
        """What follows from a choice."""
        choose, build = self.choose, self.build
        return [
            *self.looks,
            choose.meaning,
            choose.saves,
            choose.when,
            choose.options.form,
            build.sizes,
            build.tiers.table,
            build.command,
            build.name,
        ]

    @property
    def chosen(self) -> list[Any]:
        """What is different whenever the map, the recipe, the analysis or the model is: panels follow these."""
        return [self.choose.saves, self.load.analysis_facts, self.load.reference_facts]

    @property
    def everything(self) -> list[Any]:
        """What follows from opening another model, analysis, map or recipe."""
        tiers = self.build.tiers
        building = [
            self.build.outputs,
            tiers.card,
            tiers.context,
            tiers.more,
            tiers.imatrix,
            tiers.coverage,
            tiers.problem,
        ]
        controls = [*self.see.controls, *self.choose.controls, *building, self.see.cell]
        return [*self.results, *controls, *self.load.changing]


def journey(studio: Studio, page: gr.Blocks) -> None:
    """Lay out and wire `page`, inside of it."""
    masthead()
    opened = studio.library.open(studio.first)
    stations = Stations(
        state=gr.State(studio.first),
        load=load_station(studio.library, opened),
        see=see_station(opened, map_text(opened)),
        choose=choose_station(
            opened, meaning_text(studio.library, opened), Shelf(studio.library.workspace.recipes).names()
        ),
        build=build_station(studio.library, opened),
    )
    aimed = wire_build(page, studio, stations.state, stations.build)
    _wire(studio, stations, aimed)
    opened_page = _wire_opening(studio, stations, page)
    talk = chat_station(chat_sources(studio, stations.state))
    quality = quality_station()
    publish = publish_station(studio.library.workspace.access)
    wire_measure(studio, stations.state, stations.load.measure, stations.build.timer)
    opened_anew = [stations.load.analysis_facts, stations.load.reference_facts]
    wire_insights(studio, stations.state, stations.see.insights, opened_anew, stations.build.finished)
    opened_talk = _keep_talk_fresh(opened_page, talk, stations)
    renewed = [stations.load.reference.change, stations.build.finished.change]
    opened_quality = wire_quality(
        studio, stations.state, quality, stations.build.timer, opened=opened_page.then, renewed=renewed
    )
    opened_publish = wire_publish(studio, publish, stations.build.timer, opened=opened_page.then, renewed=renewed)
    wire_cleanup(studio, cleanup_part())
    events = [opened_page, opened_talk, opened_quality, opened_publish]
    for event in events:
        event.then(None, js=_OPENED.format(events=len(events)))
        event.failure(None, js=_USABLE)


def _keep_talk_fresh(opened_page: gr.events.Dependency, talk: ChatStation, stations: Stations) -> gr.events.Dependency:
    """The chat knows its models once the page has opened for its user, after a job, and for another reference.

    Returns the first of these events.
    """
    settings: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    for event in (stations.load.reference.change, stations.build.finished.change):
        event(talk.refresh, talk.inputs, talk.changing, **settings)
    first: gr.events.Dependency = opened_page.then(*opening(talk.refresh, talk.inputs), talk.changing, **settings)
    return first


def map_text(opened: Opened) -> str:
    """The heatmap as JSON; empty without an analysis."""
    if opened.contributions is None:
        return ""
    return map_json(opened.contributions, opened.state.view)


def _map(opened: Opened, *, coloured: bool) -> gr.HTML:
    """The map after a change; its colours are sent only where they may be others."""
    state = opened.state
    marks, work = heatmap.marks_text(opened), heatmap.work_json(state, opened.shape)
    return gr.HTML(map_text(opened), marks=marks, work=work) if coloured else gr.HTML(marks=marks, work=work)


def meaning_text(library: Library, opened: Opened) -> str:
    """What the choice means, as HTML; empty without a map."""
    if opened.drop is None:
        return ""
    return meaning_html(opened.drop, opened.preview, opened.reference, outputs.foretold_sizes(library, opened))


def _looks(studio: Studio, stations: Stations, opened: Opened, *, coloured: bool = True) -> Updates:
    """New values of `Stations.looks`; the state is kept for when its user comes back."""
    studio.sessions.keep(opened.state)
    return {
        stations.state: opened.state,
        stations.see.plot: _map(opened, coloured=coloured),
        stations.see.problem: gr.HTML(visible=False),
        stations.choose.problem: gr.HTML(visible=False),
    }


def _results(
    studio: Studio, stations: Stations, opened: Opened, name: str, ticked: list[str], *, coloured: bool = False
) -> Updates:
    """New values of `Stations.results`; `name` and `ticked` outputs are those of the build."""
    library, choose, building = studio.library, stations.choose, stations.build
    name = outputs.following_name(opened, name)
    return {
        **_looks(studio, stations, opened, coloured=coloured),
        choose.meaning: meaning_text(library, opened),
        choose.saves: recipe.saves_html(opened),
        choose.when: recipe.when_html(opened.state),
        **({choose.options.form: form_json(library, opened)} if opened.state.tuning else {}),
        building.sizes: outputs.sizes_html(library, opened, ticked),
        building.tiers.table: sizes.table_html(library, opened),
        building.command: outputs.command_html(library, opened, name, ticked),
        building.name: name,
    }


def _everything(studio: Studio, stations: Stations, opened: Opened) -> Updates:
    """New values of `Stations.everything`."""
    state, see, choose, load = opened.state, stations.see, stations.choose, stations.load
    library, classes, ticked = studio.library, opened.classes, outputs.first_outputs(opened)
    return {
        **_results(studio, stations, opened, "", ticked, coloured=True),
        stations.build.outputs: gr.CheckboxGroup(outputs.output_choices(opened), value=ticked),
        **sizes.renewed(library, stations.build.tiers, opened),
        see.klass: gr.Dropdown(heatmap.class_choices(classes), value=state.view.klass),
        see.minus: gr.Dropdown(heatmap.minus_choices(classes), value=state.view.minus or heatmap.NOBODY),
        see.scale: state.view.scale,
        see.cell: shown_cell(opened),
        choose.preset: gr.Radio(recipe.preset_choices(state), value=state.preset),
        choose.drop: gr.Slider(maximum=opened.most, step=opened.step, value=min(state.recipe.drop or 0, opened.most)),
        choose.weights: weights_json(opened.taking_part, state.recipe.class_weights),
        load.reference: gr.Dropdown(reference.reference_choices(library), value=state.reference or None),
        load.reference_facts: reference.reference_html(opened.reference),
        load.analysis: gr.Dropdown(reference.analysis_choices(library), value=opened.analysis_path),
        load.analysis_facts: reference.analysis_html(opened.contributions),
        load.problem: gr.HTML(visible=False),
    }


def _told(problem: gr.HTML) -> Callable[[Callable[..., Updates]], Callable[..., Updates]]:
    """A handler whose errors are shown in `problem`, with everything else left as it was."""

    def decorate(handler: Callable[..., Updates]) -> Callable[..., Updates]:
        @wraps(handler)
        def handle(*values: Any) -> Updates:
            try:
                return handler(*values)
            except EspalierError as error:
                return {problem: gr.HTML(failure(error), visible=True)}

        return handle

    return decorate


def _wire(studio: Studio, stations: Stations, aimed: Sequence[Callable[..., Any]]) -> None:
    wiring = _wiring(studio, stations)
    _wire_see(studio, stations, wiring)
    _wire_choose(studio, stations, aimed, wiring)
    _wire_load(studio, stations)


def _wiring(studio: Studio, stations: Stations) -> Wiring:
    choose = stations.choose

    def rendered(opened: Opened, name: str, chosen: Any, more: Any) -> Updates:
        """The page after a choice that was not made with the controls of the third station, which follow."""
        now = opened.state
        return {
            **_results(studio, stations, opened, name, outputs.ticked(chosen, more)),
            choose.preset: gr.Radio(recipe.preset_choices(now), value=now.preset),
            choose.drop: min(now.recipe.drop or 0, opened.most),
            choose.weights: weights_json(opened.taking_part, now.recipe.class_weights),
        }

    return Wiring(
        library=studio.library,
        state=stations.state,
        render=rendered,
        asked=stations.build.asked,
        outputs=[*stations.results, *choose.controls],
        changed=stations.chosen,
        problem=choose.problem,
        calls=_MANY,
    )


def _wire_see(studio: Studio, stations: Stations, wiring: Wiring) -> None:
    library, state, see, choose = studio.library, stations.state, stations.see, stations.choose

    @_told(choose.problem)
    def on_look(now: StudioState, klass: str, minus: str, scale: str) -> Updates:
        view = heatmap.view_of(klass, minus, scale)
        shown = _looks(studio, stations, library.open(now.looking(view)))
        return {**shown, see.minus: view.minus or heatmap.NOBODY}

    @_told(choose.problem)
    def on_cell(now: StudioState, event: gr.EventData) -> Updates:
        opened = library.open(now.pointing(event.row, event.expert))
        html = why.cell(opened)
        studio.sessions.keep(opened.state)
        return {state: opened.state, see.cell: gr.HTML(html, visible=True)}

    for control in see.controls:
        control.input(on_look, [state, *see.controls], [*stations.looks, see.minus], **_LIVE)
    see.plot.click(on_cell, state, [state, see.cell, choose.problem], **_MANY)
    wire_why(library, state, see.why, see.cell, stations.chosen)
    wire_map(see, wiring)


def _wire_choose(studio: Studio, stations: Stations, aimed: Sequence[Callable[..., Any]], wiring: Wiring) -> None:
    library, state, choose = studio.library, stations.state, stations.choose

    @_told(choose.problem)
    def on_choose(now: StudioState, *values: Any) -> Updates:
        preset, drop, weights, name, chosen_outputs, more = values
        if drop is None:  # the field is empty while another number is typed
            return {choose.problem: gr.skip()}
        sent = weights_from_json(weights, library.classes(now))
        chosen = transitions.choosing(library, now, preset, drop, sent)
        opened = library.open(chosen)
        results = _results(studio, stations, opened, name, outputs.ticked(chosen_outputs, more))
        if chosen.recipe.class_weights != sent or chosen.recipe.classes != now.recipe.classes:  # the preset has its own
            results[choose.weights] = weights_json(opened.taking_part, chosen.recipe.class_weights)
        return results

    @_told(choose.problem)
    def on_drop_left(now: StudioState, drop: float | None) -> Updates:
        """A number that cannot be dropped goes back to the one that counts, once its field is left."""
        if drop in possible(library.open(now)):
            return {choose.drop: gr.skip()}
        return {choose.drop: now.recipe.drop}

    @_told(choose.problem)
    def on_choice_file(now: StudioState, paths: list[str] | None) -> Updates:
        if not paths:
            return {choose.problem: gr.skip()}
        chosen = transitions.read_choice(library, now, *map(Path, paths))
        return _everything(studio, stations, library.open(chosen))

    choosing: dict[str, Any] = {
        "inputs": [state, *choose.controls, *stations.build.asked],
        "outputs": [*stations.results, choose.weights],
        "preprocess": False,  # gradio's slider would answer a wrong number with an error of its own, which says nothing
        **_LIVE,
    }
    for control in choose.controls:
        control.input(on_choose, **choosing)
    left = {**_LIVE, "preprocess": False}
    choose.drop.release(on_drop_left, [state, choose.drop], [choose.drop, choose.problem], **left)
    wire_compare(studio, state, choose.compare, stations.chosen)
    wire_trial(studio, state, choose.trial, stations.chosen)
    then = wire_counts(library, state, choose.counts, changed=stations.chosen, aimed=aimed, drop=choose.drop)
    then(on_choose, **choosing)
    wire_steps(choose.steps, wiring)
    wire_search(studio, choose.search, wiring, stations.build.timer)
    wire_shelf(choose.shelf, wiring)
    wire_options(choose.options, wiring)
    _wire_file(choose.upload, on_choice_file, [state], stations.everything)


_SLOW: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


def _wire_file(upload: gr.File, handler: Callable[..., Updates], before: list[Any], outputs: list[Any]) -> None:
    """Give an uploaded file to `handler`, after the values of `before`, and empty the field: another one can follow."""

    def taken(*values: Any) -> Updates:
        return {**handler(*values), upload: None}

    upload.upload(taken, [*before, upload], [*outputs, upload], **_SLOW)


def _wire_load(studio: Studio, stations: Stations) -> None:
    library, state, load = studio.library, stations.state, stations.load

    @_told(load.problem)
    def on_reference(now: StudioState, name: str) -> Updates:
        if name == now.reference:  # gradio also tells when a list was opened and closed again
            return {load.problem: gr.skip()}
        return _everything(studio, stations, library.open(transitions.with_reference(library, now, name)))

    @_told(load.problem)
    def on_analysis(now: StudioState, path: str | None) -> Updates:
        if path is not None and path not in map(str, library.analysis_paths()):
            raise InputError("This analysis is not in the workspace.", "Choose one of the list, or upload it.")
        return shown(now, path)

    def shown(now: StudioState, path: str | None) -> Updates:
        chosen = now if path is None else transitions.with_analysis(library, now, Path(path))
        if chosen is now:
            return {load.problem: gr.skip()}
        return _everything(studio, stations, library.open(chosen))

    @_told(load.problem)
    def on_upload(now: StudioState, add: bool, path: str | None) -> Updates:
        if path is not None:
            require_upload(Path(path))
        if path is None or not add:
            return shown(now, path)
        return _everything(studio, stations, library.open(transitions.with_added(library, now, Path(path))))

    load.reference.input(on_reference, [state, load.reference], stations.everything, **_SLOW)
    load.analysis.input(on_analysis, [state, load.analysis], stations.everything, **_SLOW)
    _wire_file(load.upload, on_upload, [state, load.add], stations.everything)


def _wire_opening(studio: Studio, stations: Stations, page: gr.Blocks) -> gr.events.Dependency:
    """What happens when a browser opens the page, and when a job has put something into the workspace.

    Returns the event after which the state is that of the browser's user.
    """
    library, state, load, choose = studio.library, stations.state, stations.load, stations.choose

    def on_open(now: StudioState, request: gr.Request) -> Updates:
        """Where this person left the page, or what the link in the address says."""
        user, link = request.username or LOCAL, request.query_params.get("recipe", "")
        back, problem = studio.sessions.coming_back(now, user, link)
        listed = {choose.shelf.saved: gr.Dropdown(Shelf(library.workspace.recipes).names())}
        if back == replace(now, user=user) and problem is None:  # what the page shows anyway
            return {state: back, **listed}
        updates = {**_everything(studio, stations, library.open(back)), **listed}
        updates[choose.counts.room] = sizes.chosen_card(back.target.card, this_gpu())[0]
        if problem:
            updates[load.problem] = gr.HTML(failure(problem), visible=True)
        return updates

    def on_page(now: StudioState) -> Updates:
        """What was put into the workspace since the page was built can be chosen after a reload."""
        return {
            load.reference: gr.Dropdown(reference.reference_choices(library), value=now.reference or None),
            load.analysis: gr.Dropdown(
                reference.analysis_choices(library),
                value=str(library.analysis_path(now.analysis)) if now.analysis else None,
            ),
        }

    lists = [load.reference, load.analysis]
    opened = page.load(on_open, state, [*stations.everything, choose.shelf.saved, choose.counts.room], **_LIVE)
    opened.then(on_page, state, lists, **_LIVE).then(None, js=_WITHOUT_LINK)
    stations.build.finished.change(on_page, state, lists, **_LIVE)
    return opened
