"""The parts of station 7, Publish, and how they are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.job_list import job_list
from components.markup import station_head
from components.publish_card import CardPart, card_part
from components.publish_manifest import NOTHING
from components.theme import panel, script
from studio.access import Access

_LEAD = (
    "What leaves this machine is complete: the weights, a card that says what they are and what was lost, and a "
    "manifest from which anybody can make them again."
)
_CARD = (
    "<h3 class='part-title'>The model card</h3><p class='quiet'>It lies beside the weights on the Hub, and is what "
    "people read first.</p>"
)
_RUN = "<h3 class='part-title'>Run it here</h3><p class='quiet'>Lines to copy, for the files where they lie now.</p>"
_HUB = (
    "<h3 class='part-title'>Send it to the Hugging Face Hub</h3><p class='quiet'>Private unless you say otherwise. All "
    "files are read back and compared with the manifest first; a stopped upload goes on where it was. Questions and "
    "answers of benchmarks and paths of this machine stay here.</p>"
)


@dataclass(frozen=True)
class PublishStation:
    """What the wiring needs of this station."""

    artifact: gr.Dropdown
    format: gr.Radio
    nothing: gr.HTML
    body: gr.Column
    """All that is about the chosen artifact; not shown while there is none."""
    facts: gr.HTML
    manifest: gr.HTML
    problem: gr.HTML
    verify: gr.Button
    replay: gr.Button
    checks: gr.HTML
    card: CardPart
    tier: gr.Dropdown
    snippets: gr.HTML
    ollama: gr.HTML
    write: gr.Button
    create: gr.Button
    handed: gr.HTML
    """What came of handing it to Ollama."""
    handing: gr.HTML
    """The jobs that do."""
    repository: gr.Textbox
    public: gr.Checkbox
    missing: gr.HTML
    plan: gr.Button
    send: gr.Button
    said: gr.HTML
    uploads: gr.HTML
    planned: gr.HTML
    command: gr.HTML
    seen: gr.State
    """What the lists of jobs show now, so that a look that finds nothing new changes nothing."""

    @property
    def chosen(self) -> list[Any]:
        """What a person has chosen."""
        return [self.artifact, self.format, self.tier, self.repository, self.public]

    @property
    def lists(self) -> list[Any]:
        """The lists of jobs."""
        return [self.checks, self.handing, self.uploads, self.seen]

    @property
    def running(self) -> list[Any]:
        """What follows from another file of the artifact."""
        return [self.snippets, self.ollama, self.handed]

    @property
    def changing(self) -> list[Any]:
        """What follows from another artifact."""
        what = [*self.chosen, self.nothing, self.body, self.facts, self.manifest, self.problem]
        hub = [self.missing, self.said, self.planned, self.command]
        return [*what, *self.card.changing, *self.running, self.write, self.create, *hub, *self.lists]


def publish_station(access: Access) -> PublishStation:
    """Lay the station out, without the Hub for whom `access` does not let there; it is filled when a browser opens the
    page."""
    with gr.Column(elem_id="publish", elem_classes="station"):
        panel(station_head(7, "Publish what was built", _LEAD))
        nothing = panel(NOTHING, elem_id="publish-nothing")
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=300):
                artifact = gr.Dropdown(
                    [], value=None, label="What to publish", elem_id="publish-artifact", visible=False, filterable=False
                )
                part = gr.Radio(
                    [], value=None, label="Files", elem_id="publish-format", visible=False,
                    info="a repository on the Hub takes one format, and each has a card of its own",
                )  # fmt: skip
            with gr.Column(min_width=300):
                problem = panel(visible=False, elem_id="publish-problem")
        with gr.Column(visible=False, elem_id="publish-body") as body:
            facts = panel(elem_id="publish-facts")
            with gr.Accordion("The whole manifest", open=False, elem_id="publish-story"):
                manifest = panel(elem_id="publish-manifest")
            with gr.Row(elem_classes="trial-controls"):
                verify = gr.Button("Verify", elem_id="publish-verify")
                replay = gr.Button("Build it again and compare", elem_id="publish-replay", visible=access.is_full)
            checks = job_list(elem_classes="job-list", elem_id="publish-checks")
            panel(_CARD)
            card = card_part()
            panel(_RUN)
            with gr.Row(elem_classes="halves"):
                with gr.Column(min_width=300):
                    tier = gr.Dropdown([], value=None, label="GGUF file", elem_id="publish-tier", filterable=False)
                    snippets = _copies("publish-snippets")
                with gr.Column(min_width=300):
                    panel("<h3 class='panel-title'>Ollama</h3>")
                    ollama = _copies("publish-ollama")
                    with gr.Row(elem_classes="trial-controls"):
                        write = gr.Button("Write these files", elem_id="publish-write")
                        create = gr.Button("Give it to Ollama", elem_id="publish-create", visible=False)
                    handed = panel(elem_id="publish-handed")
                    handing = job_list(elem_classes="job-list", elem_id="publish-handing")
            with gr.Column(visible=access.hub, elem_id="publish-hub"):
                panel(_HUB)
                with gr.Row(elem_classes="halves"):
                    with gr.Column(min_width=300):
                        repository = gr.Textbox(
                            label="Repository", placeholder="OWNER/NAME", max_lines=1, elem_id="publish-repository"
                        )
                        public = gr.Checkbox(False, label="Public: everybody can see it", elem_id="publish-public")
                        missing = panel(elem_id="publish-missing")
                        with gr.Row():
                            plan = gr.Button("List what would be sent", elem_id="publish-plan")
                            send = gr.Button("Upload", variant="primary", elem_id="publish-send")
                        said = panel(visible=False, elem_id="publish-said")
                        uploads = job_list(elem_classes="job-list", elem_id="publish-uploads")
                    with gr.Column(min_width=300):
                        planned = panel(elem_id="publish-planned")
            with gr.Accordion("The same as commands", open=False):
                command = _copies("publish-command")
        seen = gr.State("")
    return PublishStation(
        artifact, part, nothing, body, facts, manifest, problem, verify, replay, checks, card, tier, snippets, ollama,
        write, create, handed, handing, repository, public, missing, plan, send, said, uploads, planned, command, seen,
    )  # fmt: skip


def _copies(element: str) -> gr.HTML:
    """Texts with buttons that copy them."""
    return gr.HTML(js_on_load=script("copy.js"), apply_default_css=False, elem_id=element)
