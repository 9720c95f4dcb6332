"""Measuring what the experts of the open model contribute: prompts, what the model will see of them, and the job."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import gradio as gr

from components.jobs import job_html
from components.markup import class_label, failure, notice, table
from components.page import Studio
from components.prompts import MOST_PER_CLASS, AskedPrompts, PromptsPart, own_fields
from components.state import StudioState
from components.theme import panel
from studio.access import Access
from studio.contributions.preflight import Estimate, Mode, Preflight, duration
from studio.contributions.prompt_preview import PromptPreview, SeenPrompt
from studio.contributions.sources import BUILTIN_CLASSES
from studio.errors import EspalierError, InputError, OutputExistsError
from studio.jobs import runner
from studio.jobs.analyze import Analyze
from studio.units import size_text
from studio.workspace import Workspace

FIRST_CLASSES = BUILTIN_CLASSES[:5]
PER_CLASS = 24
"""There are at least so many built-in prompts of every class."""
CONTINUATION_TOKENS = 128
_ANSWERS = [("The answers that come with the prompts", "given"), ("What the model itself answers", "own")]
_MODES = [
    ("As the estimate says", "auto"),
    ("The whole model in memory", "whole"),
    ("On GPU and CPU", "offloaded"),
    ("Layer by layer, for a model larger than memory", "layered"),
]
_DTYPES = [("As they are stored", "auto"), ("Experts in four bits (NF4), for a small GPU", "nf4")]
_WHY_SHORT = (
    f"Its own answers have at most {CONTINUATION_TOKENS} tokens: the first tokens are those that the question decides. "
    "Later ones drift into generic text, and the longest answers would outweigh all others."
)
_NOT_HERE = (
    "This page is open to everybody, so it makes no analysis: it shows what a model would see, and what it would take."
)
_LONGEST_SHOWN = 1500


@dataclass(frozen=True)
class MeasurePart:
    """What the wiring needs of this part."""

    prompts: PromptsPart
    answers: gr.Radio
    thinking: gr.Checkbox
    imatrix: gr.Checkbox
    mode: gr.Dropdown
    dtype: gr.Dropdown
    name: gr.Textbox
    show: gr.Button
    start: gr.Button
    seen: gr.HTML
    problem: gr.HTML
    job: gr.HTML

    @property
    def asked(self) -> list[Any]:
        """The fields of `Asked`."""
        others = [self.answers, self.thinking, self.imatrix, self.mode, self.dtype, self.name]
        return [*self.prompts.asked, *others]


@dataclass(frozen=True)
class Asked(AskedPrompts):
    """What a person has chosen here, in the order of `MeasurePart.asked`."""

    answers: str
    thinking: bool
    imatrix: bool
    mode: str
    dtype: str
    name: str


def parameters(workspace: Workspace, reference: str, asked: Asked) -> dict[str, Any]:
    """The parameters of the job that is asked for; files are copied into the workspace, where the job finds them.

    Raises `InputError` for no model, no prompts at all, or a column mapping that is none.
    """
    if not reference:
        raise InputError("There is no model to measure.", "Open one above.")
    sources = asked.sources(workspace)
    if not sources:
        raise InputError("There are no prompts to measure on.", "Tick a class, or give a file or a data set.")
    return {
        "reference": reference,
        "name": asked.name.strip(),
        "prompts": sources,
        **asked.reading,
        "answers": asked.answers,
        "continuation": CONTINUATION_TOKENS,
        "thinking": asked.thinking,
        "imatrix": asked.imatrix,
        "mode": asked.mode,
        "dtype": asked.dtype,
    }


def seen_html(preview: PromptPreview) -> str:
    """Token counts of each class, and the first prompt of each, as the model will see it."""
    columns: list[tuple[str, list[str]]] = [("Class", []), ("Prompts", []), ("Tokens each", []), ("Together", [])]
    lengths = preview.classes.values()
    if any(one.cut for one in lengths):
        columns.append(("Cut", [str(one.cut) for one in lengths]))
    if any(one.open for one in lengths):
        columns.append(("Answered by the model", [str(one.open) for one in lengths]))
    for klass, one in preview.classes.items():
        cells = (escape(class_label(klass)), str(one.prompts), f"{one.shortest:,} – {one.longest:,}", f"{one.total:,}")
        for (_, column), cell in zip(columns, cells, strict=False):
            column.append(cell)
    first: dict[str, SeenPrompt] = {}
    for prompt in preview.prompts:
        first.setdefault(prompt.klass, prompt)
    caption = f"What the model will see: {len(preview.prompts)} prompts, {sum(one.total for one in lengths):,} tokens"
    rows = zip(*(cells for _, cells in columns), strict=True)
    numeric = range(1, len(columns))
    shown = table([name for name, _ in columns], rows, numeric=tuple(numeric), caption=caption)
    return shown + "".join(map(_prompt_html, first.values()))


def estimate_html(preflight: Preflight, mode: Mode | Literal["auto"]) -> str:
    """Every way to make the pass, with the one that will be taken and why."""
    try:
        chosen = preflight.choose(mode)
    except EspalierError as error:
        return failure(error)
    rows = [
        (
            f"<strong>{_way(way)}</strong>" if way == chosen else _way(way),
            duration(way.seconds) if way.possible else "–",
            size_text(way.ram) + (f", {size_text(way.gpu)} of the GPU" if way.gpu else ""),
        )
        for way in preflight.estimates
    ]
    shown = table(("Way", "About", "Memory"), rows, numeric=(1, 2), caption="What it takes, estimated")
    return f"{shown}<p class='quiet'><strong>{_way(chosen)}</strong>: {escape(chosen.reason)}</p>"


def _way(way: Estimate) -> str:
    return {
        "whole": f"Whole model on the {way.device.upper().replace('CUDA', 'GPU')}",
        "offloaded": "Shared by GPU and CPU",
        "layered": "Layer by layer",
    }[way.mode]


def _prompt_html(prompt: SeenPrompt) -> str:
    own = f"<i>… and up to {prompt.continuation_tokens} tokens of its own</i>" if prompt.continuation_tokens else ""
    tokens = f"{prompt.tokens:,} tokens"
    text = f"{escape(_shortened(prompt.question))}<mark>{escape(_shortened(prompt.answer))}</mark>{own}"
    label = f"{escape(class_label(prompt.klass))}: the first of them, {escape(prompt.id)}, {tokens}"
    return f"<details class='seen'><summary>{label}</summary><pre class='log'>{text}</pre></details>"


def _shortened(text: str) -> str:
    half = _LONGEST_SHOWN // 2
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]}\n[…]\n{text[-half:]}"


def measure_part(suggested: str, access: Access) -> MeasurePart:
    """Lay it out. Where no analysis may be made, it is said before somebody chooses what to make it of."""
    allowed = access.kinds is None or "analyze" in access.kinds
    with gr.Accordion("Measure this model on prompts", open=False, elem_id="measure"), gr.Row(elem_classes="halves"):
        with gr.Column(min_width=300):
            classes = gr.CheckboxGroup(
                [(class_label(klass), klass) for klass in BUILTIN_CLASSES],
                value=list(FIRST_CLASSES),
                label="Prompts that come with Espalier",
                elem_id="measure-classes",
            )
            per_class = gr.Slider(1, MOST_PER_CLASS, value=PER_CLASS, step=1, label="Prompts of each class, at most")
            with gr.Accordion("Prompts of your own", open=False):
                own = own_fields("measure")
            answers = gr.Radio(_ANSWERS, value="given", label="Observe it on", info=_WHY_SHORT)
            thinking = gr.Checkbox(False, label="Chat template with thinking")
            imatrix = gr.Checkbox(False, label="Also write an importance matrix, from the same pass")
            mode = gr.Dropdown(_MODES, value="auto", label="How the model is run", elem_id="measure-mode")
            dtype = gr.Dropdown(_DTYPES, value="auto", label="Weights", elem_id="measure-dtype")
            name = gr.Textbox(suggested, label="Name of the analysis", max_lines=1, elem_id="measure-name")
            problem = panel(visible=False)
            with gr.Row():
                show = gr.Button("Show what it will see", elem_id="measure-show")
                start = gr.Button("Measure", variant="primary", elem_id="measure-start", interactive=allowed)
            if not allowed:
                panel(f"<p class='quiet'>{_NOT_HERE}</p>")
        with gr.Column(min_width=300):
            job = panel(visible=False, elem_id="measure-job")
            seen = panel(
                notice(
                    "Nothing is read yet.",
                    "“Show what it will see” reads prompts, tokenizer and headers only, and says what it would take.",
                ),
                elem_id="measure-seen",
            )
    return MeasurePart(
        PromptsPart(classes, per_class, *own), answers, thinking, imatrix, mode, dtype, name,
        show, start, seen, problem, job,
    )  # fmt: skip


def wire_measure(studio: Studio, state: gr.State, part: MeasurePart, timer: gr.Timer) -> None:
    """What its buttons do; `timer` is that of the jobs."""
    library, store = studio.library, studio.store

    def told(error: EspalierError) -> dict[Any, Any]:
        remedy = "Choose another name." if isinstance(error, OutputExistsError) else error.remedy
        return {part.problem: gr.HTML(failure(InputError(error.what, remedy)), visible=True)}

    def on_show(now: StudioState, *asked: Any) -> dict[Any, Any]:
        try:
            task = Analyze(**parameters(library.workspace, now.reference, Asked(*asked)))
            preview, ways = task.foresee(library.workspace)
        except EspalierError as error:
            return told(error)
        return {part.seen: estimate_html(ways, task.mode) + seen_html(preview), part.problem: gr.HTML(visible=False)}

    def on_start(now: StudioState, *asked: Any) -> dict[Any, Any]:
        try:
            job = runner.start(store, "analyze", parameters(library.workspace, now.reference, Asked(*asked)))
        except EspalierError as error:
            return told(error)
        return {
            part.job: gr.HTML(job_html(job, store.workspace, ""), visible=True),
            part.problem: gr.HTML(visible=False),
        }

    def on_tick(shown: str) -> Any:
        job = next((one for one in store.list() if one.kind == "analyze"), None)
        html = job_html(job, store.workspace, store.log_tail(job.id)) if job else ""
        return gr.skip() if html == shown else gr.HTML(html, visible=bool(html))

    asked = [state, *part.asked]
    slow: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
    part.show.click(on_show, asked, [part.seen, part.problem], **slow)
    part.start.click(on_start, asked, [part.job, part.problem], **slow)
    timer.tick(on_tick, part.job, part.job, queue=False, show_progress="hidden", api_visibility="private")
