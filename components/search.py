"""Search for a better recipe: a job measures one after the other, and each can be opened as soon as it is measured."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from components import forecast, transitions
from components.follow import follow, open_accordion
from components.jobs import WATCH_S, job_html
from components.library import Library, Opened
from components.markup import class_label, failure, notice
from components.outputs import FIRST, OFFERED
from components.page import Studio
from components.prompts import AskedPrompts, PromptsPart, prompts_part
from components.search_figure import Found, found_json, list_html, unseen_html
from components.state import ALL, StudioState
from components.theme import panel, plotly_script, script, static_url
from components.wiring import Updates, Wiring
from studio.checkpoints.reference import Reference
from studio.errors import EspalierError, InputError, OutputExistsError
from studio.evaluate.search_points import JOURNAL, Point, read_journal
from studio.evaluate.search_run import PER_CLASS, read_unseen
from studio.evaluate.trials import require_virtual
from studio.families import MoeShape
from studio.jobs import runner
from studio.jobs.store import Job, JobStore

KIND = "search"
SHARES = (("25 %", 0.25), ("37.5 %", 0.375), ("50 %", 0.5))
FIRST_SHARES = [0.25, 0.5]
BUDGET_S = 120
EXPERTS = ""
"""The choice of sizes in experts rather than as a tier."""

_PLOT = '<h3 class="plot-title" hidden></h3><div class="points" hidden></div>'
_CLICKS = """
element.addEventListener('click', (event) => {
  const chosen = event.target.closest('button[data-point]');
  if (chosen) trigger('click', { point: Number(chosen.dataset.point) });
});
"""
_LEAD = (
    "<p class='quiet'>Recipes are measured one after the other as above: the fixed criteria, each with one class "
    "weighted, then an optimiser and swaps of single experts in turn. Half of the prompts are kept for the end. "
    "The search runs on its own: close this page and come back.</p>"
)
_NOTHING = notice(
    "Nothing was searched for this analysis.", "Choose how many experts may leave, and how long it may take."
)


@dataclass(frozen=True)
class SearchPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    shares: gr.CheckboxGroup
    counts: gr.Textbox
    budget: gr.Number
    seed: gr.Number
    prompts: PromptsPart
    start: gr.Button
    cancel: gr.Button
    again: gr.Button
    problem: gr.HTML
    searches: gr.Dropdown
    klass: gr.Dropdown
    size: gr.Dropdown
    status: gr.HTML
    plot: gr.HTML
    listed: gr.HTML
    seen: gr.State
    """What the part shows now, so that a look that finds nothing new changes nothing."""

    @property
    def asked(self) -> list[Any]:
        """What a search is told."""
        return [self.shares, self.counts, self.budget, self.seed, *self.prompts.asked]

    @property
    def looked(self) -> list[Any]:
        """What is looked at, and how."""
        return [self.searches, self.klass, self.size, self.seen]

    @property
    def shown(self) -> list[Any]:
        """What a look changes."""
        buttons = [self.start, self.cancel, self.again]
        return [*buttons, self.problem, *self.looked, self.status, self.plot, self.listed]


@dataclass(frozen=True)
class Search:
    """One search of the open analysis."""

    name: str
    folder: Path
    job: Job | None
    """The last job that worked on it; None where none is known."""

    @property
    def title(self) -> str:
        return f"{self.name} · {self.job.status}" if self.job else self.name


def drops_of(shape: MoeShape, shares: Sequence[float], typed: str) -> list[int]:
    """The drop counts that shares and typed numbers say, the least first; `InputError` for what is no number."""
    counts = {round(share * shape.experts) // shape.groups * shape.groups for share in shares}
    for word in re.split(r"[\s,;]+", typed.strip()):
        if word and not word.isdecimal():
            raise InputError(f"{word!r} is no number of experts.", "Write, for instance, 8, 12.")
        counts |= {int(word)} if word else set()
    return sorted(counts)


def parameters(library: Library, opened: Opened, asked: Sequence[Any], taken: Sequence[str]) -> dict[str, Any]:
    """The parameters of the job that is asked for; `taken` are names of other searches.

    Raises `InputError` where no model or analysis is open, as `require_virtual` and `drops_of` do.
    """
    shares, counts, budget, seed, *prompts = asked
    reference = _require(opened)
    drops = drops_of(reference.shape, shares, counts or "")
    if budget is None or seed is None or budget < 1:
        raise InputError("A search needs a budget of at least a second, and a seed.", "Write both as numbers.")
    chosen = AskedPrompts(*prompts)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", opened.name)[:32].strip("-.") + "-" + "-".join(map(str, drops))[:20]
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
    return {
        "reference": opened.state.reference,
        "contributions": opened.analysis_path,
        "name": next(name for name in names if name not in taken),
        "drops": drops,
        "budget": float(budget),
        "prompts": chosen.sources(library.workspace),
        **{name: value for name, value in chosen.reading.items() if name != "seed"},
        "seed": int(seed),
    }


def extended(before: Mapping[str, Any], seconds: float | None) -> dict[str, Any]:
    """The parameters of a job that goes on with a finished search for so many more seconds."""
    if seconds is None or seconds < 1:
        raise InputError(f"“Seconds” cannot be {seconds}.", "Write how much longer to search, 1 or more.")
    return {**before, "budget": float(before["budget"]) + float(seconds), "extend": True}


def _again_label(job: Job | None) -> str:
    return "Go on for the seconds above" if job is not None and job.status == "done" else "Go on"


def _require(opened: Opened) -> Reference:
    """The open reference, as something that can be searched."""
    if opened.reference is None or opened.contributions is None:
        raise InputError("A search needs a model and an analysis of it.", "Open both in the first station.")
    require_virtual(opened.reference)
    return opened.reference


def searches_of(library: Library, store: JobStore, state: StudioState) -> list[Search]:
    """The searches that went by the open analysis, the latest first."""
    if state.analysis is None:
        return []
    folder, path = library.workspace.searches, str(library.analysis_path(state.analysis))
    jobs: dict[str, Job] = {}
    for job in store.list():
        if job.kind == KIND and job.parameters.get("contributions") == path:
            jobs.setdefault(str(job.parameters["name"]), job)
    known = {str(job.parameters["name"]) for job in store.list() if job.kind == KIND}
    others = [one for one in sorted(folder.glob(f"*/{JOURNAL}")) if one.parent.name not in known]
    found = [Search(name, folder / name, job) for name, job in jobs.items()]
    return found + [Search(one.parent.name, one.parent, None) for one in others if _goes_by(one, state.analysis)]


def _goes_by(journal: Path, analysis: str) -> bool:
    try:
        return bool(read_journal(journal.parent).asked.get("contributions") == analysis)
    except EspalierError:
        return False


def points_of(search: Search) -> tuple[Point, ...]:
    """What was measured so far; raises as `read_journal` does."""
    path = search.folder / JOURNAL
    return _points(search.folder, path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else ()


@lru_cache(4)
def _points(folder: Path, _changed: int, _bytes: int) -> tuple[Point, ...]:
    return read_journal(folder).points


def found_of(library: Library, opened: Opened, points: Sequence[Point], klass: str, tier: str) -> Found:
    """What is drawn of `points`."""
    assert opened.contributions is not None, "whoever has searched has an analysis"
    classes = points[0].measurement.classes if points else {}
    drops = {point.drop for point in points} if tier else ()
    sizes = {drop: forecast.bytes_with(library, opened, tier, drop) for drop in drops}
    return Found(
        points,
        opened.contributions.shape.experts,
        klass if klass in classes else None,
        tier,
        sizes,
        opened.drop.content_hash if opened.drop else "",
    )


def status_html(search: Search, store: JobStore, found: Found) -> str:
    """How far a search is."""
    job, count = search.job, len(found.points)
    unseen = unseen_html(read_unseen(search.folder))
    if job is None or job.status == "done":
        where = f"<code>{escape(str(search.folder))}</code>"
        return f"{unseen}<p>{count} recipes measured; recipes and maps of the best are in {where}.</p>"
    if job.status == "cancelled":
        return notice(f"Cancelled after {count} recipes.", "They are kept, and “Go on” continues from there.")
    return job_html(job, store.workspace, store.log_tail(job.id))


def search_part() -> SearchPart:
    """Lay the part out, closed."""
    seen = gr.State("")
    with gr.Accordion("Search for a better recipe", open=False, elem_id="search") as accordion:
        panel(_LEAD)
        with gr.Row(elem_classes="controls"):
            shares = gr.CheckboxGroup(
                list(SHARES), value=FIRST_SHARES, label="Experts to drop", elem_id="search-shares", min_width=290
            )
            counts = gr.Textbox(
                "", label="Other numbers", placeholder="8, 12", max_lines=1, elem_id="search-counts", min_width=110
            )
            budget = gr.Number(BUDGET_S, label="Seconds", minimum=1, precision=0, elem_id="search-budget", min_width=90)
            seed = gr.Number(0, label="Seed", precision=0, elem_id="search-seed", min_width=80)
        prompts = prompts_part(PER_CLASS, "search")
        problem = panel(visible=False, elem_id="search-problem")
        with gr.Row(elem_classes="controls trial-controls"):
            start = gr.Button("Start the search", variant="primary", elem_id="search-start", min_width=180, scale=0)
            cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="search-cancel", scale=0)
            again = gr.Button("Go on", visible=False, elem_id="search-again", scale=0)
        status = panel(elem_id="search-status")
        with gr.Row(elem_classes="controls"):
            searches = gr.Dropdown(
                [], value=None, label="Search", visible=False, elem_id="search-name", min_width=200, filterable=False
            )
            klass = gr.Dropdown(
                [("All classes", ALL)],
                value=ALL,
                label="Quality of",
                elem_id="search-class",
                min_width=140,
                visible=False,
            )
            size = gr.Dropdown(
                [("Experts kept", EXPERTS), *((f"Size as {tier}", tier) for tier in OFFERED)],
                value=FIRST,
                label="Against",
                elem_id="search-size",
                min_width=160,
                visible=False,
                filterable=False,
            )
        plot = gr.HTML(
            "",
            html_template=_PLOT,
            js_on_load=script("colours.js") + script("search.js"),
            head=f'<script src="{static_url(plotly_script())}"></script>',
            elem_id="search-plot",
            apply_default_css=False,
        )
        listed = gr.HTML(js_on_load=_CLICKS, apply_default_css=False, elem_id="search-list")
    return SearchPart(
        accordion, shares, counts, budget, seed, prompts, start, cancel, again, problem, searches, klass, size, status,
        plot, listed, seen,
    )  # fmt: skip


def rendered(studio: Studio, part: SearchPart, now: StudioState, name: str | None, *looked: str) -> Updates:
    """The part as it is now, looking at the search called `name`, else the latest."""
    klass, tier, seen = looked
    library, store = studio.library, studio.store
    runner.refresh(store)
    opened = library.open(now)
    try:
        _require(opened)
        why = None
    except EspalierError as error:
        why = error
    every = searches_of(library, store, now)
    search = next((one for one in every if one.name == name), every[0] if every else None)
    if search is None or opened.contributions is None:
        return {
            part.start: gr.Button(interactive=why is None),
            **{
                one: gr.update(visible=False) for one in (part.cancel, part.again, part.searches, part.klass, part.size)
            },
            part.status: failure(why) if why else _NOTHING,
            part.plot: "",
            part.listed: "",
            part.seen: "",
        }
    found = found_of(library, opened, points_of(search), klass, tier)
    figure, listed = found_json(found), list_html(found)
    said = (failure(why) if why else "") + status_html(search, store, found)
    titles = [(one.title, one.name) for one in every]
    digest = hashlib.sha256(repr((figure, listed, said, titles, search.name)).encode()).hexdigest()
    if digest == seen:
        return {part.seen: gr.skip()}
    job = search.job
    classes = list(found.points[0].measurement.classes) if found.points else []
    return {
        part.start: gr.Button(interactive=why is None),
        part.cancel: gr.Button(visible=bool(job and not job.is_finished)),
        part.again: gr.Button(_again_label(job), visible=bool(job and job.is_finished), interactive=why is None),
        part.searches: gr.Dropdown(titles, value=search.name, visible=True),
        part.klass: gr.Dropdown(
            [("All classes", ALL), *((class_label(one), one) for one in classes)],
            value=found.klass or ALL,
            visible=bool(classes),
        ),
        part.size: gr.Dropdown(visible=bool(classes)),
        part.status: said,
        part.plot: figure,
        part.listed: listed,
        part.seen: digest,
    }


def wire_search(studio: Studio, part: SearchPart, wiring: Wiring, timer: gr.Timer) -> None:
    """Look at searches while the part is open, after each choice and at every tick of `timer`; open what is clicked."""
    library, store, state = studio.library, studio.store, wiring.state
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def look(now: StudioState, *looked: Any) -> Updates:
        try:
            return rendered(studio, part, now, *looked)
        except EspalierError as error:
            return {part.status: failure(error), part.seen: ""}

    def told(now: StudioState, looked: Sequence[Any], action: Callable[[], Job]) -> Updates:
        """Do `action` and look at the search of the job that it gives."""
        try:
            name = str(action().parameters["name"])
        except OutputExistsError as error:
            return {
                part.problem: gr.HTML(failure(InputError(error.what, "It is finished: start another.")), visible=True)
            }
        except EspalierError as error:
            return {part.problem: gr.HTML(failure(error), visible=True)}
        quick = {part.problem: gr.HTML(visible=False), timer: gr.Timer(WATCH_S)}
        return {**look(now, name, *looked[1:-1], ""), **quick}

    def on_start(now: StudioState, *values: Any) -> Updates:
        looked, told_of = values[:4], values[4:]

        def start() -> Job:
            taken = [one.name for one in library.workspace.searches.iterdir()]
            taken += [str(one.parameters["name"]) for one in store.list() if one.kind == KIND]
            return runner.start(store, KIND, parameters(library, library.open(now), told_of, taken))

        return told(now, looked, start)

    def job_of(now: StudioState, name: str) -> str:
        job = next((one.job for one in searches_of(library, store, now) if one.name == name), None)
        if job is None:
            raise InputError(f"There is no job of the search {name!r}.", "Start another.")
        return job.id

    def on_cancel(now: StudioState, *looked: Any) -> Updates:
        return told(now, looked, lambda: runner.cancel(store, job_of(now, looked[0])))

    def on_again(now: StudioState, *values: Any) -> Updates:
        *looked, seconds = values

        def go_on() -> Job:
            job = store.get(job_of(now, looked[0]))
            if job.can_retry:
                return runner.retry(store, job.id)
            return runner.start(store, KIND, extended(job.parameters, seconds))

        return told(now, looked, go_on)

    def on_point(event: gr.EventData, now: StudioState, name: str, *built: Any) -> Updates:
        try:
            search = next((one for one in searches_of(library, store, now) if one.name == name), None)
            point = next((one for one in points_of(search) if one.number == event.point), None) if search else None
            if point is None:
                raise InputError("That recipe is not there.", "Choose one of the list.")
            found = transitions.finding(library, now, point.recipe, f"found by search: {point.label}")
            return wiring.render(library.open(found), *built)
        except EspalierError as error:
            return {wiring.problem: gr.HTML(failure(error), visible=True)}

    looking = [state, *part.looked]
    part.accordion.expand(look, looking, part.shown, **live)
    events = [*(one.change for one in wiring.changed), timer.tick]
    follow(events, open_accordion("search"), look, looking, part.shown)
    for control in (part.searches, part.klass, part.size):
        control.input(look, looking, part.shown, **live)
    slow: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
    part.start.click(on_start, [*looking, *part.asked], [*part.shown, timer], **slow)
    part.cancel.click(on_cancel, looking, [*part.shown, timer], **slow)
    part.again.click(on_again, [*looking, part.budget], [*part.shown, timer], **slow)
    for clicked in (part.plot.click, part.listed.click):
        clicked(on_point, [state, part.searches, *wiring.asked], wiring.outputs, **wiring.calls)
