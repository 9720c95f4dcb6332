"""Station 4, Build: outputs and tiers with their sizes, the job that makes them, and the files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components.jobs import IDLE_S, NOTHING_YET, WATCH_S, job_choices, job_html
from components.library import Library, Opened
from components.markup import failure, station_head
from components.outputs import (
    command_html,
    first_outputs,
    output_choices,
    parameters,
    sizes_html,
    suggested_name,
    ticked,
)
from components.page import Studio
from components.sizes import SizesPart, sizes_part, wire_sizes
from components.state import StudioState
from components.theme import panel
from studio.errors import EspalierError, InputError, OutputExistsError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore

_LEAD = (
    "Cut the dropped experts out of the weights and, for GGUF, quantize what stays. The build runs on its own: "
    "you can close this page and come back."
)


@dataclass(frozen=True)
class BuildStation:
    """What other stations and the wiring need of this one."""

    name: gr.Textbox
    outputs: gr.CheckboxGroup
    tiers: SizesPart
    """All other tiers, with their sizes."""
    sizes: gr.HTML
    start: gr.Button
    command: gr.HTML
    problem: gr.HTML
    job: gr.Dropdown
    panel: gr.HTML
    cancel: gr.Button
    retry: gr.Button
    log: gr.HTML
    timer: gr.Timer
    finished: gr.Number
    """How many jobs are over; changes when something new may have been built. Not a `gr.State`, whose changes gradio
    tells only of events that went through its queue."""
    seen: gr.State
    """What the panel shows now, so that a look that finds nothing new changes nothing."""

    @property
    def asked(self) -> list[Any]:
        """What a build is told: its name, the outputs, and more tiers."""
        return [self.name, self.outputs, self.tiers.more]


def build_station(library: Library, opened: Opened) -> BuildStation:
    """Lay the station out."""
    chosen = first_outputs(opened)
    name = suggested_name(opened)
    with gr.Column(elem_id="build", elem_classes="station"):
        panel(station_head(4, "Build the smaller model", _LEAD))
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=300):
                outputs = gr.CheckboxGroup(
                    output_choices(opened), value=chosen, label="What to make", elem_id="outputs"
                )
                sizes = panel(sizes_html(library, opened, chosen), elem_id="sizes")
                name_box = gr.Textbox(name, label="Name", max_lines=1, elem_id="build-name")
                problem = panel(visible=False)
                start = gr.Button("Start the build", variant="primary", elem_id="build-start")
                with gr.Accordion("The same as commands", open=False):
                    command = panel(command_html(library, opened, name, chosen), elem_id="command")
            with gr.Column(min_width=300):
                job = gr.Dropdown([], label="Job", elem_id="job", visible=False)
                job_panel = panel(NOTHING_YET, elem_id="job-panel")
                with gr.Row():
                    cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="job-cancel")
                    retry = gr.Button("Retry", visible=False, elem_id="job-retry")
                with gr.Accordion("Log", open=False, visible=True, elem_id="job-log"):
                    log = panel("<p class='quiet'>No job has written anything.</p>")
        tiers = sizes_part(library, opened)
        timer = gr.Timer(IDLE_S)
        finished = gr.Number(0, visible="hidden")
        seen = gr.State("")
    return BuildStation(
        name=name_box,
        outputs=outputs,
        tiers=tiers,
        sizes=sizes,
        start=start,
        command=command,
        problem=problem,
        job=job,
        panel=job_panel,
        cancel=cancel,
        retry=retry,
        log=log,
        timer=timer,
        finished=finished,
        seen=seen,
    )


def watch_build(store: JobStore, station: BuildStation, chosen: str | None, seen: str) -> dict[Any, Any]:
    """What a look at the jobs changes on the page. `chosen` is the job looked at, if any."""
    jobs = runner.refresh(store)
    job = next((one for one in jobs if one.id == chosen), jobs[0] if jobs else None)
    tail = store.log_tail(job.id) if job else ""
    digest = hashlib.sha256(repr((job, [(one.id, one.status) for one in jobs], tail)).encode()).hexdigest()
    if job is None or digest == seen:
        return {station.problem: gr.skip()}
    return {
        station.seen: digest,
        station.finished: sum(one.is_finished for one in jobs),
        station.job: _job_selector(jobs, None if job.id == chosen else job.id),
        station.panel: job_html(job, store.workspace, tail),
        station.cancel: gr.Button(visible=not job.is_finished),
        station.retry: gr.Button(visible=job.can_retry),
        station.log: f"<pre class='log'>{escape(tail)}</pre>",
        station.timer: gr.Timer(WATCH_S if any(not one.is_finished for one in jobs) else IDLE_S),
    }


def _job_selector(jobs: Sequence[Job], select: str | None) -> gr.Dropdown:
    """The selector of jobs. What is selected stays unless `select` says otherwise: this look may have begun before a
    person started or chose another job."""
    choices = job_choices(jobs)
    return gr.Dropdown(choices, visible=True) if select is None else gr.Dropdown(choices, value=select, visible=True)


def wire_build(page: gr.Blocks, studio: Studio, state: gr.State, station: BuildStation) -> list[Callable[..., Any]]:
    """What the buttons of the station do. The work itself is a process of its own; a timer looks at its record.

    Returns as `wire_sizes` does.
    """
    library, store = studio.library, studio.store
    watched = [
        station.seen,
        station.finished,
        station.job,
        station.panel,
        station.cancel,
        station.retry,
        station.log,
        station.timer,
        station.problem,
    ]
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def told(action: Callable[[], str]) -> dict[Any, Any]:
        """Do `action`, which gives the id of the job to look at; a person's mistake is said beside the button."""
        try:
            job_id = action()
            selected = {station.job: _job_selector(store.list(), job_id), station.problem: gr.HTML(visible=False)}
            return {**watch_build(store, station, job_id, ""), **selected}
        except OutputExistsError as error:
            taken = InputError(error.what, "Choose another name.")
            return {station.problem: gr.HTML(failure(taken), visible=True)}
        except EspalierError as error:
            return {station.problem: gr.HTML(failure(error), visible=True)}

    def on_start(now: StudioState, again: bool, name: str, outputs: list[str], more: list[str]) -> dict[Any, Any]:
        def start() -> str:
            asked = parameters(library, library.open(now), name, ticked(outputs, more))
            return runner.start(store, "build", {**asked, "requantize": again}).id

        return told(start)

    def on_cancel(chosen: str) -> dict[Any, Any]:
        return told(lambda: runner.cancel(store, chosen).id)

    def on_retry(chosen: str) -> dict[Any, Any]:
        return told(lambda: runner.retry(store, chosen).id)

    def on_look(chosen: str | None, seen: str) -> dict[Any, Any]:
        return watch_build(store, station, chosen, seen)

    def on_outputs(now: StudioState, name: str, outputs: list[str], more: list[str]) -> dict[Any, Any]:
        opened, chosen = library.open(now), ticked(outputs, more)
        return {
            station.sizes: sizes_html(library, opened, chosen),
            station.command: command_html(library, opened, name, chosen),
        }

    asked = [state, *station.asked]
    aimed = wire_sizes(studio, state, station.tiers, asked=station.asked, sizes=station.sizes, command=station.command)
    station.start.click(on_start, [state, station.tiers.again, *station.asked], watched, **live)
    station.cancel.click(on_cancel, station.job, watched, **live)
    station.retry.click(on_retry, station.job, watched, **live)
    station.job.input(on_look, [station.job, gr.State("")], watched, **live)
    gr.on([page.load, station.timer.tick], on_look, [station.job, station.seen], watched, **live)
    for control in (station.outputs, station.tiers.more, station.name):
        control.input(on_outputs, asked, [station.sizes, station.command], trigger_mode="always_last", **live)
    return aimed
