"""What fits in memory before anything is loaded, where each model will run, and what a person decides about that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components.markup import notice, table
from components.theme import panel
from studio.errors import EspalierError, InputError
from studio.quantize.placement import Offload
from studio.serve.columns import Columns
from studio.serve.loading import Loading
from studio.serve.pool import ServerPool
from studio.serve.server import CONTEXT
from studio.units import size_text

AS_FITS = "as fits"
ORDERS = [("At the same time if they fit", AS_FITS), ("At the same time", "together"), ("In turn", "in turn")]
CHOSEN, DECIDED = "chosen", "decided"
WHERES = [("As the memory allows", CHOSEN), ("As I say", DECIDED)]
LEAST_CONTEXT, MOST_CONTEXT = 256, 1 << 20
_LABELS = {
    "context": "Tokens of a conversation",
    "gpu_layers": "Layers on the graphics card",
    "cpu_moe_layers": "Layers whose experts stay in main memory",
}
_BLIND = "<p class='quiet'>Sizes would tell which model is which: they are shown again after the comparison.</p>"
_UNKNOWN = "Known once the reference is converted, at its first question."


@dataclass(frozen=True)
class LoadingPart:
    """What is decided before models are loaded."""

    accordion: gr.Accordion
    context: gr.Number
    order: gr.Radio
    where: gr.Radio
    gpu_layers: gr.Number
    cpu_moe_layers: gr.Number
    decided: gr.Row
    table: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """What a person decides."""
        return [self.context, self.order, self.where, self.gpu_layers, self.cpu_moe_layers]

    @property
    def changing(self) -> list[Any]:
        """What follows from that, and from other models."""
        return [self.decided, self.table]


def loading_of(part: LoadingPart, values: Mapping[Any, Any]) -> Loading:
    """What a handler's values decide; `InputError` names the field that is wrong as the page does."""
    context = _whole("context", values[part.context], LEAST_CONTEXT, MOST_CONTEXT)
    order = None if values[part.order] == AS_FITS else values[part.order]
    if values[part.where] != DECIDED:
        return Loading(context, None, order)
    on_card = _whole("gpu_layers", values[part.gpu_layers], 0, MOST_CONTEXT)
    experts = _whole("cpu_moe_layers", values[part.cpu_moe_layers], 0, MOST_CONTEXT)
    return Loading(context, Offload(on_card, experts), order)


def _whole(field: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int | float) or value != int(value) or not least <= value <= most:
        raise InputError(
            f"“{_LABELS[field]}” cannot be {'empty' if value is None else value}.",
            f"Give a whole number from {least:,} to {most:,}." if most < MOST_CONTEXT or least else "Give 0 or more.",
        )
    return int(value)


def note_html(columns: Columns) -> str:
    """How the models will answer: at the same time or in turn."""
    try:
        fit = columns.fit()
    except EspalierError:
        return ""  # the column whose file is wrong says so when it is asked
    if len(columns.different) < 2:
        return ""
    if columns.loading.order == "in turn" and fit.together:
        return "<p class='quiet chat-fit'>They answer in turn, as you have decided; they would fit together.</p>"
    if columns.loading.order == "together" and not fit.together:
        return notice(f"{fit.reason.partition(':')[0]}: one waits until another has answered.", "", "warning")
    return f"<p class='quiet chat-fit'>{escape(fit.reason)}</p>" if fit.together else notice(fit.reason, kind="warning")


def foretold(
    part: LoadingPart, columns: Columns, names: Mapping[str, str], values: Mapping[Any, Any], *, named: bool
) -> dict[Any, Any]:
    """The part for these columns: `names` of those that have a model, which a blind comparison does not tell."""
    has_card = bool(columns.pool.room[0])
    return {
        part.where: gr.Radio(value=values[part.where], visible=has_card),
        part.decided: gr.Row(visible=has_card and values[part.where] == DECIDED),
        part.table: table_html(columns, names) if named else _BLIND,
    }


def table_html(columns: Columns, names: Mapping[str, str]) -> str:
    """What each column's model takes, and where it will run; `names` of all columns that have a model."""
    rows = []
    for id, name in names.items():
        where, *sizes = _cells(columns, id)
        rows.append((f"<b>{escape(id)}</b> {escape(name)}<small>{escape(where)}</small>", *sizes))
    head = ("Model, and where it runs", "Weights", "of them experts", "Keys and values", "To compute in")
    return f"{room_html(columns.pool)}<div class='memory'>{table(head, rows, numeric=(1, 2, 3, 4))}</div>"


def _cells(columns: Columns, id: str) -> tuple[str, ...]:
    """Where a model runs, and what it takes."""
    model, loading = columns.models.get(id), columns.loading
    if model is None:
        return (_UNKNOWN, *["–"] * 4)
    try:
        wanted = model.need(loading.context, columns.pool.slots)
        fit = columns.pool.fit(columns.different, loading)
        place = fit.models[[one.key for one in columns.different].index(model.key)]
    except EspalierError as error:
        return (f"{error.what} {error.remedy}", *["–"] * 4)
    need = wanted.need
    experts = sum(layer.experts for layer in need.layers)
    shorter = f" It was made for {wanted.context:,} tokens." if wanted.context < loading.context else ""
    there = " It is loaded." if columns.pool.loaded(model) else ""
    return (
        f"{place.reason}{shorter}{there}",
        size_text(sum(layer.weights + layer.experts for layer in need.layers) + need.output + need.embeddings),
        size_text(experts) if experts else "–",
        size_text(sum(layer.kv for layer in need.layers)),
        size_text(need.compute),
    )


def room_html(pool: ServerPool) -> str:
    """What there is for models."""
    card, ram = pool.room
    there = f"{size_text(card)} of the graphics card and " if card else ""
    none = "" if card else " There is no graphics card that llama.cpp uses here."
    held = f"Each model holds {pool.slots} conversations at once; the sizes are for all of them."
    return f"<p class='quiet'>Models may take {there}{size_text(ram)} of main memory.{none} {held}</p>"


def loading_part() -> LoadingPart:
    """Lay it out, closed."""
    with gr.Accordion("Memory: what fits, and where the models run", open=False, elem_id="chat-memory") as accordion:
        with gr.Row(elem_classes="halves"):
            context = gr.Number(
                CONTEXT,
                label=_LABELS["context"],
                info="Questions and answers together; more take more memory.",
                precision=0,
                min_width=200,
                elem_id="chat-context",
            )
            order = gr.Radio(ORDERS, value=AS_FITS, label="Several models answer", min_width=300, elem_id="chat-order")
        where = gr.Radio(
            WHERES,
            value=CHOSEN,
            label="What goes to the graphics card",
            visible=False,
            elem_id="chat-where",
        )
        with gr.Row(elem_classes="halves", visible=False) as decided:
            gpu_layers = gr.Number(
                999,
                label=_LABELS["gpu_layers"],
                info="The last ones, the output being one; more than there are: all.",
                precision=0,
                min_width=240,
                elem_id="chat-gpu-layers",
            )
            cpu_moe_layers = gr.Number(
                0,
                label=_LABELS["cpu_moe_layers"],
                info="The first ones; experts are large, and few of them are read for a token.",
                precision=0,
                min_width=240,
                elem_id="chat-cpu-moe-layers",
            )
        found = panel(elem_id="chat-memory-table")
        panel("<p class='quiet'>Counts from the next question on; a model that is loaded otherwise is loaded anew.</p>")
    return LoadingPart(accordion, context, order, where, gpu_layers, cpu_moe_layers, decided, found)
