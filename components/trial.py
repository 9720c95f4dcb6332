"""Try the chosen map before building: how far it is from the reference on held-out prompts, with nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from components.compare import label_of
from components.follow import follow, open_accordion
from components.kept_values import KeptValues
from components.library import Library, Opened
from components.markup import failure
from components.page import Studio
from components.prompts import AskedPrompts, PromptsPart, prompts_part
from components.state import StudioState
from components.theme import panel
from components.trial_view import Tried, other_choices, progress_html, tried_html, with_tried
from studio.contributions.sources import is_remote, prompts_of
from studio.errors import EspalierError, InputError
from studio.evaluate.held_out import PER_CLASS, overlap, own_prompts
from studio.evaluate.trials import Question, Trials, require_virtual
from studio.evaluate.virtual_server import Prompts
from studio.jobs.prompts import sources_in

Updates = dict[Any, Any]
LOOK_S = 0.4
"""How often the page looks at a trial that is under way."""
PAUSE_S = 0.6
"""A map is measured by itself when it has stayed the same for so long."""

_LEAD = (
    "<p class='quiet'>The reference answers with the dropped experts masked, which is the pruned model to the last "
    "digits. Nothing is written.</p>"
)


@dataclass(frozen=True)
class TrialPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    measure: gr.Button
    cancel: gr.Button
    always: gr.Checkbox
    """Whether a map is measured as soon as it is chosen."""
    other: gr.Dropdown
    prompts: PromptsPart
    status: gr.HTML
    text: gr.HTML
    timer: gr.Timer
    watched: gr.State
    """`Watched`, or None."""

    @property
    def shown(self) -> list[Any]:
        """What a look changes."""
        parts = [self.measure, self.cancel, self.other, self.status, self.text, self.timer]
        return [*parts, self.watched]


@dataclass(frozen=True)
class Watched:
    """The trial that a tab waits for, and what its map is called."""

    key: str
    label: str
    map_hash: str
    dropped: int
    experts: int
    warning: str


def question_of(library: Library, opened: Opened, asked: AskedPrompts) -> tuple[Question, Watched]:
    """What is measured, and how the page calls it.

    Raises `InputError` where no model or no map is open, as `require_virtual`, and as reading the prompts does; data
    sets on the Hub are read by the child.
    """
    if opened.reference is None:
        raise InputError("No model is open.", "Open one in the first station.")
    if opened.drop is None:
        raise InputError("There is no map yet.", "Open an analysis in the first station.")
    require_virtual(opened.reference)
    model = opened.reference.path
    sources = sources_in(library.workspace, asked.sources(library.workspace)) or [own_prompts(model)]
    warning = ""
    if not any(map(is_remote, sources)):
        calibration = prompts_of(sources, **asked.reading)
        warning = overlap(opened.contributions, calibration) if opened.contributions else ""
    question = Question(Path(model).resolve(), opened.drop, Prompts(tuple(sources), asked.reading, {}))
    drop = opened.drop
    called = (label_of(opened), drop.content_hash, drop.dropped_count, drop.experts)
    return question, Watched(question.key, *called, warning)


def trial_part() -> TrialPart:
    """Lay the part out, closed: no model is loaded before somebody asks for it."""
    watched = gr.State(None)
    with gr.Accordion("Try this map before building", open=False, elem_id="trial") as accordion:
        panel(_LEAD)
        with gr.Row(elem_classes="controls trial-controls"):
            measure = gr.Button("Measure this map", variant="primary", elem_id="trial-measure", min_width=200, scale=0)
            cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="trial-cancel", min_width=100, scale=0)
            always = gr.Checkbox(False, label="After every change", elem_id="trial-always", min_width=160)
            other = gr.Dropdown(
                [("The one before", 0)],
                value=0,
                label="Compare with",
                visible=False,
                elem_id="trial-other",
                min_width=220,
                filterable=False,
            )
        status = panel(elem_id="trial-status")
        text = panel(elem_id="trial-text")
        prompts = prompts_part(PER_CLASS, "trial")
        timer = gr.Timer(LOOK_S, active=False)
    return TrialPart(accordion, measure, cancel, always, other, prompts, status, text, timer, watched)


def wire_trial(studio: Studio, state: gr.State, part: TrialPart, changed: Sequence[Any]) -> None:
    """Measure when asked to, and while the part is open and its switch is on, after each of `changed`."""
    library = studio.library
    cache = library.workspace.cache
    trials = Trials(cache / "virtual", cache / "logits")
    shelf = KeptValues(library.workspace.sessions, "trials")
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def rendered(now: StudioState, watched: Watched | None, other: int) -> Updates:
        """What the part shows of the trial that it waits for."""
        trial = trials.look(watched.key) if watched else None
        kept = kept_of(shelf, now)
        if watched and trial and trial.result:
            kept = with_tried(kept, Tried(0, **_called(watched), found=trial.result))
            shelf.write(now.user, now.reference, [one.to_json() for one in kept])
        busy = trial is not None and not trial.is_over
        choices = other_choices(kept)
        chosen = other if other in [value for _, value in choices] else 0
        text = tried_html(kept, chosen, _here(library, now)) if kept or not busy else ""
        return {
            part.status: progress_html(trial) if trial else "",
            part.text: f"<div class='waiting'>{text}</div>" if busy else text,
            part.measure: gr.Button("Measure this map", interactive=not busy),
            part.cancel: gr.Button(visible=busy),
            part.other: gr.Dropdown(choices, value=chosen, visible=len(choices) > 1),
            part.timer: gr.Timer(active=busy),
            part.watched: watched if busy else None,
        }

    def begun(request: gr.Request, now: StudioState, after_s: float, *asked: Any) -> Updates:
        other, *prompts = asked
        owner = str(request.session_hash)
        try:
            question, watched = question_of(library, library.open(now), AskedPrompts(*prompts))
            trials.ask(owner, question, after_s)
            return rendered(now, watched, other)
        except EspalierError as error:
            trials.leave(owner)
            return _refused(library, part, now, kept_of(shelf, now), error)

    def on_measure(request: gr.Request, now: StudioState, *asked: Any) -> Updates:
        return begun(request, now, 0.0, *asked)

    def on_change(request: gr.Request, now: StudioState, watched: Any, always: bool, *asked: Any) -> Updates:
        """Another map: measured by itself, or else shown as far as somebody has tried it."""
        if always:
            return begun(request, now, PAUSE_S, *asked)
        other, *prompts = asked
        try:
            _, known = question_of(library, library.open(now), AskedPrompts(*prompts))
        except EspalierError as error:
            return _refused(library, part, now, kept_of(shelf, now), error)
        trial = trials.look(known.key)
        return rendered(now, watched if trial is None or trial.error else known, other)

    def on_tick(now: StudioState, watched: Any, other: int, status: str) -> Updates:
        if watched is None:  # it was cancelled while this look was on its way
            return {**rendered(now, None, other), part.status: gr.skip()}
        trial = trials.look(watched.key)
        if trial is not None and not trial.is_over:
            said = progress_html(trial)
            return {part.status: gr.skip() if said == status else said}
        return rendered(now, watched, other)

    def on_cancel(request: gr.Request, now: StudioState, watched: Any, other: int) -> Updates:
        trials.leave(str(request.session_hash))
        return rendered(now, watched, other)

    asked = [part.other, *part.prompts.asked]
    looking = [state, part.watched, part.always, *asked]
    part.accordion.expand(on_change, looking, part.shown, **live)
    follow([one.change for one in changed], open_accordion("trial"), on_change, looking, part.shown)
    part.always.input(on_change, looking, part.shown, **live)
    part.measure.click(on_measure, [state, *asked], part.shown, **live)
    part.cancel.click(on_cancel, [state, part.watched, part.other], part.shown, **live)
    part.timer.tick(on_tick, [state, part.watched, part.other, part.status], part.shown, **live)
    part.other.input(
        lambda now, other: tried_html(kept_of(shelf, now), other, _here(library, now)),
        [state, part.other],
        part.text,
        **live,
    )


def kept_of(shelf: KeptValues, now: StudioState) -> tuple[Tried, ...]:
    """The maps of the open model that this person has tried, the latest last, also before a reload."""
    try:
        return tuple(Tried.from_json(one) for one in shelf.read(now.user, now.reference) or ())
    except (KeyError, TypeError, ValueError):  # of another version
        return ()


def _refused(
    library: Library, part: TrialPart, now: StudioState, kept: tuple[Tried, ...], error: EspalierError
) -> Updates:
    """The part where a map cannot be measured."""
    return {
        part.status: failure(error),
        part.text: tried_html(kept, 0, _here(library, now)) if kept else "",
        part.measure: gr.Button(interactive=_possible(library, now)),
        part.cancel: gr.Button(visible=False),
        part.timer: gr.Timer(active=False),
        part.watched: None,
    }


def _here(library: Library, now: StudioState) -> str:
    """Content hash of the map that is shown; empty without one."""
    try:
        drop = library.open(now).drop
    except EspalierError:
        return ""
    return drop.content_hash if drop else ""


def _called(watched: Watched) -> dict[str, Any]:
    return {name: value for name, value in vars(watched).items() if name != "key"}


def _possible(library: Library, now: StudioState) -> bool:
    """Whether a map of the open model can be tried, whatever the prompts."""
    try:
        opened = library.open(now)
        if opened.reference is not None:
            require_virtual(opened.reference)
    except EspalierError:
        return False
    return opened.reference is not None and opened.drop is not None
