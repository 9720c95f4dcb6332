"""Station 7, Publish: what was built, verified, described, and sent to where others find it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from html import escape
from typing import Any, cast

import gradio as gr

from components.jobs import WATCH_S
from components.library import Library
from components.markup import copyable, failure
from components.page import Studio
from components.publish_card import filled, wire_card
from components.publish_hub import (
    has_token,
    last_repository,
    missing_html,
    own_token,
    parameters,
    plan,
    plan_html,
)
from components.publish_jobs import CHECKS, OLLAMA, UPLOADS, jobs_html, jobs_of
from components.publish_manifest import (
    artifact_names,
    facts_html,
    manifest_html,
    measures_of,
    opened,
)
from components.publish_parts import PublishStation
from components.publish_texts import (
    commands_text,
    gguf_of,
    ollama_folder,
    ollama_html,
    ollama_name,
    snippets_html,
    tier_choices,
)
from studio.errors import EspalierError, InputError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.publish.artifact import Artifact, Format, keep_measures, open_artifact
from studio.publish.card_kept import own_card
from studio.publish.hub import require_hub
from studio.publish.manifest import FILE_NAME
from studio.publish.ollama import write_files
from studio.publish.ollama_create import PROGRAM
from studio.workspace import Workspace

Updates = dict[Any, Any]

_LIVE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_SLOW: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
_FORMATS = {"gguf": "GGUF", "safetensors": "Safetensors"}


def kept(values: Sequence[str], before: str | None) -> str | None:
    """What stays chosen: the first where `before` is no longer there."""
    return before if before in values else next(iter(values), None)


def lists(station: PublishStation, store: JobStore, jobs: Sequence[Job], name: str | None, seen: str) -> Updates:
    """The lists of jobs about the artifact `name`, where they are others than the ones that were `seen`."""
    shown = [jobs_html(jobs_of(jobs, name or "", kinds), store) for kinds in (CHECKS, OLLAMA, UPLOADS)]
    digest = hashlib.sha256(repr((name, shown)).encode()).hexdigest()
    if digest == seen:
        return {station.seen: gr.skip()}
    return {**dict(zip(station.lists, shown, strict=False)), station.seen: digest}


def of_file(station: PublishStation, workspace: Workspace, artifact: Artifact, tier: str | None) -> Updates:
    """How the file of `tier` is run."""
    return {
        station.snippets: workspace.discreet(snippets_html(artifact, tier)),
        station.ollama: workspace.discreet(ollama_html(artifact, tier, shutil.which(PROGRAM))),
        station.handed: "",
    }


def command_html(artifact: Artifact, repository: str, part: str | None, public: bool) -> str:
    return copyable(commands_text(artifact, repository.strip(), part, public), "the commands")


def replay_parameters(library: Library, artifact: Artifact) -> dict[str, Any]:
    """What the job `replay` is told: with the analysis, where it is at hand, the recipe makes the map again too."""
    told = artifact.manifest
    asked: dict[str, Any] = {"manifest": f"artifacts/{artifact.folder.name}/{FILE_NAME}"}
    for field, key in (("contributions", told.contributions), ("floor_contributions", told.floor_contributions)):
        with suppress(EspalierError):  # without it the map is taken as it was recorded, and the outcome says so
            if key is not None and told.recipe is not None:
                asked[field] = str(library.analysis_path(library.find_analysis(key, None)))
    return asked


def shown(studio: Studio, station: PublishStation, wanted: str | None, *values: Any) -> Updates:
    """The station for the artifact `wanted`, else for the one that was worked on last; `values` are the other
    choices, which stay where it is still the same artifact."""
    part, tier, repository, public = values
    names = artifact_names(studio.library.workspace)
    name = kept(names, wanted)
    selector = gr.Dropdown(names, value=name, visible=bool(names))
    if name is None:
        hidden = {station.body: gr.Column(visible=False), station.format: gr.Radio(visible=False)}
        return {**hidden, station.artifact: selector, station.nothing: gr.HTML(visible=True)}
    jobs = studio.store.list()
    if name != wanted:
        part, tier, (repository, public) = None, None, last_repository(jobs_of(jobs, name, UPLOADS))
    choice = {station.artifact: selector, station.nothing: gr.HTML(visible=False)}
    try:
        return {**choice, **_of_artifact(studio, station, jobs, name, (part, tier, repository, public))}
    except EspalierError as error:
        told = gr.HTML(failure(error), visible=True)
        return {**choice, station.problem: told, station.body: gr.Column(visible=False)}


def _of_artifact(
    studio: Studio, station: PublishStation, jobs: Sequence[Job], name: str, values: tuple[Any, ...]
) -> Updates:
    workspace, (part, tier, repository, public) = studio.library.workspace, values
    artifact = opened(workspace, name)
    measured = measures_of(workspace, artifact)
    built, tiers = artifact.formats, tier_choices(artifact)
    part, tier = kept(sorted(built), part), kept([key for _, key in tiers], tier)
    return {
        station.problem: gr.HTML(visible=False),
        station.body: gr.Column(visible=True),
        station.format: gr.Radio([(_FORMATS[one], one) for one in sorted(built)], value=part, visible=len(built) > 1),
        station.facts: facts_html(artifact, measured),
        station.manifest: manifest_html(artifact, measured),
        **filled(station.card, workspace, artifact, part, repository),
        station.tier: gr.Dropdown(tiers, value=tier, visible=len(tiers) > 1),
        **of_file(station, workspace, artifact, tier),
        station.write: gr.Button(visible=bool(tiers)),
        station.create: gr.Button(visible=bool(tiers) and shutil.which(PROGRAM) is not None),
        station.repository: repository,
        station.public: public,
        station.said: gr.HTML(visible=False),
        station.planned: "",
        station.command: workspace.discreet(command_html(artifact, repository, part, public)),
        **lists(station, studio.store, jobs, name, ""),
    }


def _measured_since(
    studio: Studio, station: PublishStation, name: str, part: str | None, _tier: str, repository: str, _public: bool
) -> Updates:
    """What follows from measures that came while somebody looks at `name`; a text of their own stays as it is."""
    workspace = studio.library.workspace
    try:
        artifact = opened(workspace, name)
        measured = measures_of(workspace, artifact)
        told: Updates = {
            station.facts: facts_html(artifact, measured),
            station.manifest: manifest_html(artifact, measured),
        }
        if own_card(artifact, cast("Format | None", part)) is None:
            told |= filled(station.card, workspace, artifact, part, repository)
    except EspalierError as error:
        return {station.problem: gr.HTML(failure(error), visible=True)}
    return told


def wire_publish(
    studio: Studio, station: PublishStation, timer: gr.Timer, *, opened: Callable[..., Any], renewed: Sequence[Any]
) -> gr.events.Dependency:
    """What its controls do. `timer` is that of the jobs; `opened` comes when the page opens, and after each of the
    events `renewed` there may be other artifacts or measures. Returns the event that shows what there is then."""
    wire_card(studio.library.workspace, station.card)

    def on_renewed(request: gr.Request, name: str | None, *values: Any) -> Updates:
        """What was built meanwhile can be chosen; nobody loses what they look at, and no text that they write."""
        names = artifact_names(studio.library.workspace)
        if name in names:
            return {station.artifact: gr.Dropdown(names), **_measured_since(studio, station, name, *values)}
        return {**shown(studio, station, None, *values), station.missing: missing_html(request)}

    def on_artifact(name: str | None) -> Updates:
        """What an artifact was published as before is proposed again."""
        before = last_repository(jobs_of(studio.store.list(), name or "", UPLOADS))
        return shown(studio, station, name, None, None, *before)

    def on_format(name: str, *values: Any) -> Updates:
        return shown(studio, station, name, *values)

    shown_first: gr.events.Dependency = opened(on_renewed, station.chosen, station.changing, **_LIVE)
    for event in renewed:
        event(on_renewed, station.chosen, station.changing, **_LIVE)
    station.artifact.input(on_artifact, station.artifact, station.changing, **_SLOW)
    station.format.input(on_format, station.chosen, station.changing, **_SLOW)
    _wire_files(studio, station)
    _wire_hub(studio, station)
    _wire_jobs(studio, station, timer)
    return shown_first


def _wire_files(studio: Studio, station: PublishStation) -> None:
    """Which GGUF is run, and Ollama."""
    workspace = studio.library.workspace

    def on_tier(name: str, tier: str | None) -> Updates:
        try:
            return of_file(station, workspace, opened(workspace, name), tier)
        except EspalierError as error:
            return {station.handed: failure(error)}

    def on_write(name: str) -> str:
        try:
            artifact = opened(workspace, name)
            folder = ollama_folder(artifact)
            files = sorted({*write_files(artifact, folder), *(path.name for path in folder.iterdir())})
        except EspalierError as error:
            return failure(error)
        listed = ", ".join(f"<code>{escape(one)}</code>" for one in files if not one.startswith("."))
        return workspace.discreet(f"<p>{listed} lie in <code>{escape(str(folder))}</code>.</p>")

    station.tier.input(on_tier, [station.artifact, station.tier], station.running, **_LIVE)
    station.write.click(on_write, station.artifact, station.handed, **_SLOW)


def _wire_hub(studio: Studio, station: PublishStation) -> None:
    """The name of the repository, and what would be sent to it."""
    workspace = studio.library.workspace

    def on_repository(name: str | None, part: str | None, _tier: str, repository: str, public: bool) -> Updates:
        """A card that nobody wrote has lines with the repository's name in them."""
        try:
            artifact = opened(workspace, name or "")
            told: Updates = {station.command: workspace.discreet(command_html(artifact, repository, part, public))}
            if own_card(artifact, cast("Format | None", part)) is None:
                told |= filled(station.card, workspace, artifact, part, repository.strip())
        except EspalierError as error:
            return {station.said: gr.HTML(failure(error), visible=True)}
        return told

    def on_public(*values: Any) -> Updates:
        """What was listed said for whose eyes it would be."""
        return {**on_repository(*values), station.planned: ""}

    def on_plan(name: str | None, part: str | None, _tier: str, repository: str, public: bool) -> Updates:
        try:
            asked = parameters(name, repository, part, public)
            planned = plan(workspace, opened(workspace, name or ""), asked)
        except EspalierError as error:
            return {station.said: gr.HTML(failure(error), visible=True), station.planned: ""}
        return {station.planned: plan_html(planned), station.said: gr.HTML(visible=False)}

    # Leaving the field comes with a click on a button beside it: what that one says must not be wiped by this.
    follows = [station.command, station.said, *station.card.changing]
    for event in (station.repository.blur, station.repository.submit):
        event(on_repository, station.chosen, follows, trigger_mode="always_last", **_LIVE)
    station.public.input(on_public, station.chosen, [*follows, station.planned], trigger_mode="always_last", **_LIVE)
    station.plan.click(on_plan, station.chosen, [station.planned, station.said], **_SLOW)


def _wire_jobs(studio: Studio, station: PublishStation, timer: gr.Timer) -> None:
    """Starting, watching, cancelling, going on."""
    library, store = studio.library, studio.store

    def started(
        name: str | None, problem: gr.HTML, kind: str, asked: Callable[[], dict[str, Any]], request: Any = None
    ) -> Updates:
        try:
            told = asked()
            runner.start(store, kind, told, token=own_token(request))
        except EspalierError as error:
            return {problem: gr.HTML(failure(error), visible=True)}
        watched = {timer: gr.Timer(WATCH_S), problem: gr.HTML(visible=False)}
        return {**watched, **lists(station, store, store.list(), name, "")}

    def on_verify(name: str) -> Updates:
        return started(name, station.problem, "verify", lambda: {"artifact": f"artifacts/{name}"})

    def on_replay(name: str) -> Updates:
        def asked() -> dict[str, Any]:
            return replay_parameters(library, open_artifact(library.workspace.inside(f"artifacts/{name}")))

        return started(name, station.problem, "replay", asked)

    def on_create(name: str, tier: str | None) -> Updates:
        def asked() -> dict[str, Any]:
            artifact = open_artifact(library.workspace.inside(f"artifacts/{name}"))
            file = gguf_of(artifact, tier)
            if file is None:
                raise InputError("There is no GGUF file to give to Ollama.", "Build a tier.")
            return {"gguf": f"artifacts/{name}/{file.names[0]}", "model": ollama_name(artifact, file)}

        return started(name, station.handed, "ollama", asked)

    def on_send(
        request: gr.Request, name: str | None, part: str | None, _tier: str, repository: str, public: bool
    ) -> Updates:
        try:
            told = parameters(name, repository, part, public)
        except EspalierError as error:
            return {station.said: gr.HTML(failure(error), visible=True)}
        if not has_token(request):  # which stands above the button already: it is not said twice
            return {station.missing: missing_html(request, "error"), station.said: gr.HTML(visible=False)}

        def asked() -> dict[str, Any]:
            library.workspace.access.require_hub()
            plan(library.workspace, opened(library.workspace, name or ""), told)
            require_hub()
            keep_measures(open_artifact(library.workspace.inside(f"artifacts/{name}")))
            return told

        return {**started(name, station.said, "publish", asked, request), station.missing: missing_html(request)}

    def on_job(request: gr.Request, name: str | None, event: gr.EventData) -> Updates:
        def retry(store: JobStore, job_id: str) -> Job:
            kind = store.get(job_id).kind
            return runner.retry(store, job_id, token=own_token(request) if kind in UPLOADS else None)

        acts = {"cancel": runner.cancel, "retry": retry}
        told: Updates = {timer: gr.Timer(WATCH_S), station.problem: gr.HTML(visible=False)}
        try:
            if event.action not in acts:
                raise InputError("The page asked for what no job can do.", "Reload the page.")
            acts[event.action](store, str(event.job))
        except EspalierError as error:
            told = {station.problem: gr.HTML(failure(error), visible=True)}
        return {**told, **lists(station, store, store.list(), name, "")}

    def on_tick(name: str | None, seen: str) -> Updates:
        return lists(station, store, store.list(), name, seen)

    changed = [*station.lists, timer]
    station.verify.click(on_verify, station.artifact, [*changed, station.problem], **_SLOW)
    station.replay.click(on_replay, station.artifact, [*changed, station.problem], **_SLOW)
    station.create.click(on_create, [station.artifact, station.tier], [*changed, station.handed], **_SLOW)
    station.send.click(on_send, station.chosen, [*changed, station.said, station.missing], **_SLOW)
    for listed in (station.checks, station.handing, station.uploads):
        listed.click(on_job, station.artifact, [*changed, station.problem], **_LIVE)
    timer.tick(on_tick, [station.artifact, station.seen], station.lists, **_LIVE)
