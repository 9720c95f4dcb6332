"""The parts of station 6, Measure, and how they are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.job_list import job_list
from components.markup import station_head
from components.quality_asked import WHATS
from components.results_view import Sorting
from components.theme import panel
from studio.evaluate.runner import KIND as TASK
from studio.evaluate.tasks.task import PER_CATEGORY, SEED

_LEAD = (
    "Ask the files themselves, through llama.cpp as they will run, and see whether what they lose is more than chance. "
    "All get the same questions and the same locked configuration."
)
NO_JOBS = "<p class='quiet'>Nothing is being measured. What you start keeps running when this page is closed.</p>"
_FIELDS = (
    "JSON lines with <code>question</code> and <code>answer</code>, perhaps <code>category</code> and "
    "<code>id</code>. With <code>options</code>, a list, the answer is the letter of one; else the final answer has to "
    "match. <code>python -m studio tasks convert</code> makes one of MMLU-Pro."
)
_HARNESS = (
    "Any generative task of EleutherAI’s lm-evaluation-harness, which is optional: "
    "<code>pip install &quot;lm_eval[api]&quot;</code>. It fetches the task’s questions itself."
)
_TABLE_CLICKS = """
element.addEventListener('click', (event) => {
  const head = event.target.closest('button[data-sort]');
  if (head) trigger('click', { key: head.dataset.sort, descending: head.dataset.descending === '1' });
  const opens = event.target.closest('button[data-opens]');
  if (!opens) return;
  const details = element.querySelector(`tr[data-row="${opens.dataset.opens}"]`);
  details.hidden = !details.hidden;
  opens.setAttribute('aria-expanded', String(!details.hidden));
});
"""


_COMPARED = (
    "Intervals hold the true share with 95 % (Wilson). Two models are compared question by question: p is McNemar's "
    "exact test, the interval of the difference a bootstrap."
)


@dataclass(frozen=True)
class QualityStation:
    """What the wiring needs of this station."""

    models: gr.CheckboxGroup
    what: gr.Radio
    on_task: gr.Column
    task: gr.Dropdown
    task_file: gr.File
    on_text: gr.Column
    on_harness: gr.Column
    harness: gr.Textbox
    limit: gr.Number
    shots: gr.Number
    drawn: gr.Row
    ground: gr.Dropdown
    ground_file: gr.File
    per_category: gr.Number
    seed: gr.Number
    configuration: gr.Dropdown
    thinking: gr.Checkbox
    problem: gr.HTML
    start: gr.Button
    command: gr.HTML
    facts: gr.HTML
    """Categories and counts of the chosen task."""
    jobs: gr.HTML
    against: gr.Dropdown
    table: gr.HTML
    figure: gr.HTML
    sorting: gr.State
    known: gr.State
    """Keys of the models that were there at the last look, so that what was built since is ticked."""

    @property
    def asked(self) -> list[Any]:
        """The fields of `Asked`."""
        drawn = [self.per_category, self.seed, self.configuration, self.thinking]
        of_harness = [self.harness, self.limit, self.shots]
        return [self.models, self.what, self.task, self.ground, *drawn, *of_harness]

    @property
    def optional(self) -> list[Any]:
        """What is seen only for some of what can be measured."""
        return [self.on_task, self.on_text, self.on_harness, self.drawn, self.configuration]

    @property
    def results(self) -> list[Any]:
        """What shows results."""
        return [self.against, self.table, self.figure]

    @property
    def changing(self) -> list[Any]:
        """What follows from another model, and from files that came or went."""
        chosen = [self.known, *self.asked, self.on_task, self.on_text, self.on_harness, self.drawn]
        return [*chosen, self.command, self.facts, self.jobs, *self.results]


def quality_station() -> QualityStation:
    """Lay the station out; it is filled when a browser opens the page."""
    with gr.Column(elem_id="quality", elem_classes="station"):
        panel(station_head(6, "Measure what the files lose", _LEAD))
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=300):
                models = gr.CheckboxGroup([], label="Models to measure", elem_id="quality-models")
                what = gr.Radio(WHATS, value=TASK, label="What to measure", elem_id="quality-what")
                with gr.Column(visible=True) as on_task:
                    task = gr.Dropdown([], value=None, label="Task", elem_id="quality-task", filterable=False)
                    with gr.Accordion("A task of your own", open=False, elem_id="quality-own-task"):
                        panel(f"<p class='quiet'>{_FIELDS}</p>")
                        task_file = gr.File(
                            label="Task (JSON lines)", file_types=[".jsonl"], height=110, elem_id="quality-task-file"
                        )
                with gr.Column(visible=False) as on_text:
                    ground = gr.Dropdown(
                        [], value=None, label="Compared on", elem_id="quality-ground", filterable=False
                    )
                    with gr.Accordion("A text or prompts of your own", open=False):
                        ground_file = gr.File(
                            label="Text, or prompts as JSON lines or parquet",
                            file_types=[".txt", ".jsonl", ".parquet"],
                            height=110,
                            elem_id="quality-ground-file",
                        )
                with gr.Column(visible=False) as on_harness:
                    panel(f"<p class='quiet'>{_HARNESS}</p>")
                    harness = gr.Textbox(
                        "",
                        label="Task of the harness",
                        placeholder="gsm8k",
                        max_lines=1,
                        elem_id="quality-harness",
                    )
                    with gr.Row():
                        limit = gr.Number(
                            200,
                            label="Questions, at most",
                            info="0 takes all",
                            elem_id="quality-limit",
                            min_width=140,
                        )
                        shots = gr.Number(
                            None,
                            label="Examples before each question",
                            info="empty: as the task says",
                            elem_id="quality-shots",
                            min_width=140,
                        )
                configuration = gr.Dropdown(
                    [],
                    value=None,
                    label="Configuration, locked and the same for all",
                    elem_id="quality-configuration",
                    filterable=False,
                )
                with gr.Row() as drawn:
                    per_category = gr.Number(
                        PER_CATEGORY,
                        label="Of each category, at most",
                        info="0 takes all",
                        elem_id="quality-each",
                        min_width=140,
                    )
                    seed = gr.Number(
                        SEED, label="Seed", info="the same seed, the same ones", elem_id="quality-seed", min_width=140
                    )
                thinking = gr.Checkbox(False, label="Let the models think first", elem_id="quality-thinking")
                problem = panel(visible=False, elem_id="quality-problem")
                start = gr.Button("Start measuring", variant="primary", elem_id="quality-start")
                with gr.Accordion("The same as commands", open=False):
                    command = panel(elem_id="quality-command")
            with gr.Column(min_width=300):
                facts = panel(elem_id="quality-facts")
                jobs = job_list(NO_JOBS, elem_id="quality-jobs")
        panel("<h3 class='panel-title'>Results</h3>")
        with gr.Row(elem_classes=["halves", "comparing"]):
            with gr.Column(min_width=300):
                against = gr.Dropdown([], value=None, label="Compare with", elem_id="quality-against", filterable=False)
            with gr.Column(min_width=300):
                panel(f"<p class='quiet'>{_COMPARED}</p>")
        table = gr.HTML(js_on_load=_TABLE_CLICKS, apply_default_css=False, elem_id="quality-results")
        figure = panel(elem_id="quality-figure")
        sorting = gr.State(Sorting())
        known = gr.State([])
    return QualityStation(
        models, what, on_task, task, task_file, on_text, on_harness, harness, limit,
        shots, drawn, ground, ground_file, per_category, seed, configuration,
        thinking, problem, start, command, facts, jobs, against, table, figure, sorting, known,
    )  # fmt: skip
