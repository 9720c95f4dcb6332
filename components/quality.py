"""Station 6, Measure: what the built files lose, on questions with known answers or on text, and all results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from components.jobs import WATCH_S, job_html
from components.kept_values import KeptValues
from components.library import Library
from components.markup import failure
from components.page import Studio, opening
from components.quality_asked import (
    Asked,
    adopt_ground,
    adopt_task,
    command_text,
    configuration_choices,
    ground_choices,
    jobs_of,
    subjects,
    task_choices,
    task_html,
    task_of,
)
from components.quality_parts import NO_JOBS, QualityStation
from components.results_figure import figures_html
from components.results_view import Sorting, measured, results_html
from components.state import StudioState
from studio.errors import EspalierError, InputError
from studio.evaluate.file_results import KIND as DIVERGENCE
from studio.evaluate.harness import KIND as HARNESS
from studio.evaluate.runner import KIND as TASK
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.jobs.tasks import check
from studio.workspace import Workspace

Updates = dict[Any, Any]
Adopt = Callable[[Workspace, Path], str]
Choices = Callable[[Workspace], list[tuple[str, str]]]

_LIVE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_SLOW: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
_KINDS = ("evaluate", "diverge", "harness")
_JOBS_SHOWN = 5
"""The latest of those that are over; all that are not are shown."""


def jobs_html(jobs: Sequence[Job], store: JobStore) -> str:
    """The jobs that measure files, the newest first, each with its button."""
    ours = [job for job in jobs if job.kind in _KINDS]
    over = [job.id for job in ours if job.is_finished][:_JOBS_SHOWN]
    shown = [job for job in ours if not job.is_finished or job.id in over]
    return "".join(_job(job, store) for job in shown) or NO_JOBS


def _job(job: Job, store: JobStore) -> str:
    tail = store.log_tail(job.id) if job.status == "failed" else ""
    action = "cancel" if not job.is_finished else "retry" if job.can_retry else ""
    label = f"{action.capitalize()}: {escape(job.title)}"
    button = (
        f"<button type='button' data-action='{action}' data-job='{job.id}' aria-label=\"{label}\">"
        f"{action.capitalize()}</button>"
        if action
        else ""
    )
    return f"<article data-job='{job.id}'>{job_html(job, store.workspace, tail)}{button}</article>"


def ticked(keys: Sequence[str], before: Sequence[str], known: Sequence[str]) -> list[str]:
    """Which of the models `keys` are ticked: those of `before`, and what came to those that were `known`.

    At first the reference and the newest file; and so for another reference.
    """
    if not set(keys) & set(known):
        return list(keys[:2])
    return [key for key in keys if key in before or key not in known]


def seen_for(station: QualityStation, what: str) -> Updates:
    """What has to be said to measure `what`."""
    return {
        station.on_task: gr.Column(visible=what == TASK),
        station.on_text: gr.Column(visible=what == DIVERGENCE),
        station.on_harness: gr.Column(visible=what == HARNESS),
        station.drawn: gr.Row(visible=what != HARNESS),
        station.configuration: gr.Dropdown(visible=what != DIVERGENCE),
    }


def remembered(kept: KeptValues, now: StudioState, asked: Asked) -> tuple[Asked, Sequence[str]]:
    """(what was chosen before a reload, the models that were known then), else `asked` and none."""
    try:
        found = dict(kept.read(now.user, now.reference) or {})
        known = tuple(str(key) for key in found.pop("known", ()))
        models = tuple(str(key) for key in found.pop("models", asked.models))
        return Asked(**{**asdict(asked), **found, "models": models}), known
    except (TypeError, ValueError):  # of another version
        return asked, ()


def _kept(choices: Sequence[tuple[str, str]], before: str | None) -> str:
    """What stays chosen: the first where `before` is no longer there."""
    values = [value for _, value in choices]
    return before if before in values else values[0]


def command_html(library: Library, now: StudioState, asked: Asked) -> str:
    """The same work as commands; nothing while nothing could be started."""
    try:
        text = command_text(library.workspace, now.reference, subjects(library, now.reference), asked)
    except EspalierError:  # said when somebody starts it
        return ""
    return f"<code class='command'>{escape(text)}</code>"


def facts_html(library: Library, asked: Asked) -> str:
    """Categories and counts of the chosen task; nothing while the numbers beside it are none."""
    if asked.what != TASK:
        return ""
    try:
        each = asked.questions_each
    except InputError:  # said when somebody starts it
        return ""
    try:
        return task_html(task_of(library.workspace, asked.task), each)
    except EspalierError as error:
        return failure(error)


def follows(library: Library, station: QualityStation, now: StudioState, asked: Asked) -> Updates:
    """What changes with every choice."""
    return {station.command: command_html(library, now, asked), station.facts: facts_html(library, asked)}


def shown(library: Library, station: QualityStation, now: StudioState, against: str | None, order: Sorting) -> Updates:
    """The results, sorted."""
    try:
        found = measured(library, now.reference)
        return {
            station.against: gr.Dropdown(found.choices, value=found.against(against), visible=len(found.choices) > 1),
            station.table: results_html(found, against, order),
            station.figure: figures_html(found.table(against)),
        }
    except EspalierError as error:
        return {station.table: failure(error), station.figure: ""}


def wire_quality(
    studio: Studio,
    state: gr.State,
    station: QualityStation,
    timer: gr.Timer,
    *,
    opened: Callable[..., Any],
    renewed: Sequence[Any],
) -> gr.events.Dependency:
    """What its controls do. `timer` is that of the jobs; `opened` comes when the page opens, and after each of the
    events `renewed` there may be other models or results. Returns the event that shows what there is then."""
    library, store = studio.library, studio.store
    kept = KeptValues(library.workspace.sessions, "measure")

    def on_renewed(
        now: StudioState, against: str | None, order: Sorting, known: Sequence[str], *values: Any
    ) -> Updates:
        before, opening_now = Asked(*values), not known
        if opening_now:
            before, known = remembered(kept, now, before)
        models = [(one.label, one.key) for one in subjects(library, now.reference)]
        keys = [key for _, key in models]
        family = library.reference(now.reference).shape.family if now.reference else ""
        configurations, tasks = configuration_choices(family), task_choices(library.workspace)
        grounds = ground_choices(library.workspace)
        asked = replace(
            before,
            models=ticked(keys, before.models or (), known),
            task=_kept(tasks, before.task),
            ground=_kept(grounds, before.ground),
            configuration=_kept(configurations, before.configuration),
        )
        seen = {station.jobs: jobs_html(store.list(), store), **shown(library, station, now, against, order)}
        if list(known) == keys and not opening_now:  # what is chosen just now is not taken back
            return seen
        return {
            **seen,
            station.known: keys,
            station.models: gr.CheckboxGroup(models, value=list(asked.models)),
            station.what: asked.what,
            **seen_for(station, asked.what),
            station.task: gr.Dropdown(tasks, value=asked.task),
            station.ground: gr.Dropdown(grounds, value=asked.ground),
            station.per_category: asked.per_category,
            station.seed: asked.seed,
            station.configuration: gr.Dropdown(
                configurations, value=asked.configuration, visible=asked.what != DIVERGENCE
            ),
            station.harness: asked.harness,
            station.limit: asked.limit,
            station.shots: asked.shots,
            station.thinking: asked.thinking,
            **follows(library, station, now, asked),
        }

    def on_sort(now: StudioState, against: str | None, event: gr.EventData) -> Updates:
        order = Sorting(str(event.key), bool(event.descending))
        return {station.sorting: order, **shown(library, station, now, against, order)}

    def on_against(now: StudioState, against: str | None, order: Sorting) -> Updates:
        return shown(library, station, now, against, order)

    results = [state, station.against, station.sorting]
    given = [*results, station.known, *station.asked]
    shown_first: gr.events.Dependency = opened(*opening(on_renewed, given), station.changing, **_LIVE)
    for event in renewed:
        event(on_renewed, given, station.changing, **_LIVE)
    station.against.input(on_against, results, station.results, **_LIVE)
    station.table.click(on_sort, [state, station.against], [station.sorting, *station.results], **_LIVE)
    _wire_choices(library, state, station, kept)
    _wire_jobs(library, store, state, station, timer)
    return shown_first


def _wire_choices(library: Library, state: gr.State, station: QualityStation, kept: KeptValues) -> None:
    """What is chosen, and what is uploaded to be chosen."""

    def on_asked(now: StudioState, known: Sequence[str], *values: Any) -> Updates:
        asked = Asked(*values)
        kept.write(now.user, now.reference, {"known": list(known), **asdict(asked)})
        return {
            **seen_for(station, asked.what),
            station.problem: gr.HTML(visible=False),
            **follows(library, station, now, asked),
        }

    def take(adopt: Adopt, choices: Choices, selector: gr.Dropdown, upload: gr.File) -> Callable[..., Updates]:
        """A handler of `upload` that keeps the file and chooses it in `selector`."""

        def on_file(path: str | None) -> Updates:
            if path is None:
                return {station.problem: gr.skip()}
            again = {upload: None}  # so that another file can follow
            try:
                key = adopt(library.workspace, Path(path))
            except EspalierError as error:
                return {**again, station.problem: gr.HTML(failure(error), visible=True)}
            chosen = gr.Dropdown(choices(library.workspace), value=key)
            return {**again, selector: chosen, station.problem: gr.HTML(visible=False)}

        return on_file

    def on_taken(now: StudioState, *values: Any) -> Updates:
        return follows(library, station, now, Asked(*values))

    asked = [state, *station.asked]
    parts = [*station.optional, station.command, station.facts, station.problem]
    for control in station.asked:
        control.input(on_asked, [state, station.known, *station.asked], parts, trigger_mode="always_last", **_LIVE)
    uploads: list[tuple[Adopt, Choices, gr.Dropdown, gr.File]] = [
        (adopt_task, task_choices, station.task, station.task_file),
        (adopt_ground, ground_choices, station.ground, station.ground_file),
    ]
    for adopt, choices, selector, upload in uploads:
        taken = upload.upload(
            take(adopt, choices, selector, upload), upload, [selector, upload, station.problem], **_SLOW
        )
        taken.then(on_taken, asked, [station.command, station.facts], **_LIVE)


def _wire_jobs(library: Library, store: JobStore, state: gr.State, station: QualityStation, timer: gr.Timer) -> None:
    """Starting, watching, cancelling."""

    def listed() -> Updates:
        return {station.jobs: jobs_html(store.list(), store)}

    def told(error: EspalierError) -> Updates:
        return {station.problem: gr.HTML(failure(error), visible=True)}

    def on_start(now: StudioState, *values: Any) -> Updates:
        try:
            wanted = jobs_of(now.reference, subjects(library, now.reference), Asked(*values))
            for kind, parameters in wanted:  # none starts unless all can
                check(kind, parameters, library.workspace)
            for kind, parameters in wanted:
                runner.start(store, kind, parameters)
        except EspalierError as error:
            return told(error)
        return {**listed(), station.problem: gr.HTML(visible=False), timer: gr.Timer(WATCH_S)}

    def on_job(event: gr.EventData) -> Updates:
        acts = {"cancel": runner.cancel, "retry": runner.retry}
        try:
            if event.action not in acts:
                raise InputError("The page asked for what no job can do.", "Reload the page.")
            acts[event.action](store, str(event.job))
        except EspalierError as error:
            return {**told(error), **listed()}
        return {**listed(), timer: gr.Timer(WATCH_S)}

    def on_tick(before: str) -> Any:
        html = jobs_html(store.list(), store)
        return gr.skip() if html == before else html

    changed = [station.jobs, station.problem, timer]
    station.start.click(on_start, [state, *station.asked], changed, **_SLOW)
    station.jobs.click(on_job, None, changed, **_LIVE)
    timer.tick(on_tick, station.jobs, station.jobs, **_LIVE)
