"""Which prompts a model is measured on, or a map is held against before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from components.markup import class_label
from components.uploads import adopted
from studio.contributions.sources import BUILTIN, BUILTIN_CLASSES, columns_of
from studio.contributions.tables import HUB
from studio.workspace import Workspace

MOST_PER_CLASS = 500
MOST_ROWS = 20_000
"""Drawn from a file or a data set before its classes are known: some have millions."""


@dataclass(frozen=True)
class PromptsPart:
    """What a person chooses from."""

    classes: gr.CheckboxGroup
    per_class: gr.Slider
    files: gr.File
    dataset: gr.Textbox
    columns: gr.Textbox
    klass: gr.Textbox

    @property
    def asked(self) -> list[Any]:
        """The fields of `AskedPrompts`."""
        return [self.classes, self.per_class, self.files, self.dataset, self.columns, self.klass]


@dataclass(frozen=True)
class AskedPrompts:
    """What a person has chosen, in the order of `PromptsPart.asked`."""

    classes: Sequence[str]
    per_class: int
    files: Sequence[str] | None
    dataset: str
    columns: str
    klass: str

    def sources(self, workspace: Workspace) -> list[str]:
        """As jobs take them, built-in classes, files, which are copied into the workspace, and a data set; none where
        nothing was chosen."""
        sources = [f"{BUILTIN}:{','.join(self.classes)}"] if self.classes else []
        sources += [f"prompts/{adopted(workspace, Path(file), workspace.prompts).name}" for file in self.files or ()]
        dataset = self.dataset.strip().removeprefix(HUB)
        if dataset:
            workspace.access.require_hub()
        return sources + ([f"{HUB}{dataset}"] if dataset else [])

    @property
    def reading(self) -> dict[str, Any]:
        """The other arguments of `prompts_of`; raises as `columns_of` does."""
        return {
            "columns": columns_of(self.columns.split()),
            "klass": self.klass.strip() or None,
            "limit": MOST_ROWS,
            "per_class": int(self.per_class),
            "seed": 0,
        }


def prompts_part(per_class: int, name: str) -> PromptsPart:
    """Lay it out, closed; `name` begins the ids of its elements."""
    with gr.Accordion("Other prompts", open=False, elem_id=f"{name}-prompts"), gr.Row(elem_classes="halves"):
        with gr.Column(min_width=280):
            classes = gr.CheckboxGroup(
                [(class_label(klass), klass) for klass in BUILTIN_CLASSES],
                label="Prompts that come with Espalier",
                info="Nothing chosen: the model's own held-out set where it has one, else all of these.",
                elem_id=f"{name}-classes",
            )
            each = gr.Slider(
                2,
                MOST_PER_CLASS,
                value=per_class,
                step=1,
                label="Prompts of each class, at most",
                elem_id=f"{name}-per-class",
            )
        with gr.Column(min_width=280):
            own = own_fields(name)
    return PromptsPart(classes, each, *own)


def own_fields(name: str) -> tuple[gr.File, gr.Textbox, gr.Textbox, gr.Textbox]:
    """Lay out the fields for prompts from elsewhere: `files`, `dataset`, `columns` and `klass` of a `PromptsPart`."""
    files = gr.File(
        label="JSON lines, text or parquet",
        file_types=[".jsonl", ".txt", ".parquet"],
        file_count="multiple",
        height=110,
        elem_id=f"{name}-files",
    )
    dataset = gr.Textbox("", label="Data set on the Hub", placeholder="owner/name", max_lines=1)
    columns = gr.Textbox("", label="Columns", placeholder="prompt=question answer=solution class=subject", max_lines=1)
    klass = gr.Textbox("", label="Class of prompts that name none", max_lines=1)
    return files, dataset, columns, klass
