"""Station 1, Load: the reference model and the analysis of what its experts contribute."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components.hub import hub_part
from components.library import DEMO_ANALYSIS, Library, Opened
from components.markup import count_text, facts, notice, station_head
from components.measure import MeasurePart, measure_part
from components.theme import panel
from studio.checkpoints.reference import Reference
from studio.contributions.model import Contributions
from studio.jobs.task import DEMO
from studio.units import size_text
from studio.workspace import Workspace

_LEAD = (
    "Everything starts from a reference model and an analysis of it: how much each of its experts contributed "
    "while it answered questions of several classes."
)

_ESTIMATED = "The norms of this analysis are an estimate; nobody measured them."


@dataclass(frozen=True)
class LoadStation:
    """What other stations and the wiring need of this one."""

    reference: gr.Dropdown
    reference_facts: gr.HTML
    analysis: gr.Dropdown
    analysis_facts: gr.HTML
    add: gr.Checkbox
    """Whether what is uploaded is put together with the analysis that is open."""
    upload: gr.File
    problem: gr.HTML
    measure: MeasurePart

    @property
    def changing(self) -> list[Any]:
        """What follows from opening something else."""
        return [value for name, value in vars(self).items() if name != "measure"]


def reference_html(reference: Reference | None) -> str:
    """What is known of a model before its weights are read."""
    if reference is None:
        return notice("No model is open.", "Choose one here, or start with --reference PATH.")
    shape = reference.shape
    return facts(
        [
            ("Layers × experts", f"{shape.layers} × {shape.experts}", f"{shape.top_k} used per token"),
            ("Parameters", count_text(reference.parameters), f"{count_text(reference.expert_parameters)} in experts"),
            ("On disk", size_text(reference.bytes), reference.kind),
            ("Family", shape.family, ""),
        ]
    )


def analysis_html(contributions: Contributions | None) -> str:
    """What is known of an analysis."""
    if contributions is None:
        return notice("No analysis is open.", "Measure this model below, or upload an analysis of it.", "warning")
    prompts = sum(question.prompts for question in contributions.questions)
    pairs = [
        ("Classes", ", ".join(contributions.classes), ""),
        ("Questions", count_text(prompts), ""),
    ]
    if "tokens" in contributions.sums:
        per_token = contributions.shape.top_k * contributions.shape.layers
        routed = float(contributions.sum("tokens").sum())
        pairs.append(
            ("Tokens seen", f"about {count_text(round(routed / per_token))}", "") if per_token else ("", "", "")
        )
    estimate = notice(_ESTIMATED, "", "warning") if contributions.estimated else ""
    source = f"<p class='quiet'>{escape(contributions.source)}</p>" if contributions.source else ""
    return facts(pairs) + estimate + source


def reference_choices(library: Library) -> list[tuple[str, str]]:
    """Names of the models that can be opened."""
    return [
        ("Demo: a small Gemma 4 mixture of experts" if name == DEMO else name, name)
        for name in library.reference_names()
    ]


def analysis_choices(library: Library) -> list[tuple[str, str]]:
    """Names of the analyses that can be opened."""
    return [
        ("Demo: made from the demo model" if path == DEMO_ANALYSIS else path.stem, str(path))
        for path in library.analysis_paths()
    ]


def own_model_html(workspace: Workspace) -> str:
    """How a model that is not listed is opened; who may open none learns nothing of this machine's folders."""
    start = "with <code>python app.py --reference PATH</code>"
    if not workspace.access.models:
        told = f"This page opens the demo only. Start Espalier on a machine of your own, {start}, to open yours."
    else:
        told = (
            "Put a safetensors folder or a GGUF file, or a link to one, into "
            f"<code>{escape(str(workspace.references))}</code> and reload the page; or start {start}."
        )
    return f"<p class='quiet'>{told}</p>"


def load_station(library: Library, opened: Opened) -> LoadStation:
    """Lay the station out."""
    with gr.Column(elem_id="load", elem_classes="station"):
        panel(station_head(1, "Load a model and its analysis", _LEAD))
        problem = panel(visible=False)
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=300):
                chosen = gr.Dropdown(
                    reference_choices(library),
                    value=opened.state.reference or None,
                    label="Reference model",
                    elem_id="reference",
                )
                reference_facts = panel(reference_html(opened.reference), elem_id="reference-facts")
                with gr.Accordion("Use a model of your own", open=False):
                    panel(own_model_html(library.workspace))
                hub_part(library.workspace.access)
            with gr.Column(min_width=300):
                analysis_choice = gr.Dropdown(
                    analysis_choices(library),
                    value=opened.analysis_path,
                    label="Contribution analysis",
                    elem_id="analysis",
                )
                analysis_facts = panel(analysis_html(opened.contributions), elem_id="analysis-facts")
                with gr.Accordion("Use another analysis", open=False):
                    panel(
                        "<p class='quiet'>A published analysis (JSON, per class or per question), arrays per layer as "
                        "REAP records them (JSON, safetensors, npz), an importance matrix of llama.cpp (GGUF; of a "
                        "large model its norms are estimated by <code>python -m studio import</code> only), or one "
                        "that Espalier made.</p>"
                    )
                    add = gr.Checkbox(
                        label="Add its questions to the analysis that is open", value=False, elem_id="analysis-add"
                    )
                    upload = gr.File(
                        label="Analysis (JSON, safetensors, npz, GGUF)",
                        file_types=[".json", ".safetensors", ".npz", ".gguf", ".dat"],
                        height=110,
                        elem_id="analysis-upload",
                    )
        measure = measure_part(f"{opened.name}-own", library.workspace.access)
    return LoadStation(chosen, reference_facts, analysis_choice, analysis_facts, add, upload, problem, measure)
