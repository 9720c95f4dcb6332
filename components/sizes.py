"""All tiers and sizes: what each tier makes of the open model, and where that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from components import transitions
from components.library import Library, Opened
from components.markup import count_text, failure, notice
from components.outputs import MORE, OFFERED, command_html, sizes_html, ticked
from components.page import Studio
from components.state import HERE, StudioState
from components.theme import panel
from studio.errors import EspalierError, InputError
from studio.limits import require_upload
from studio.quantize.fit import CARDS, card_bytes, context_length, this_gpu
from studio.quantize.imatrix import Coverage
from studio.quantize.placement import Kind
from studio.quantize.table import Cell, Row, counts_around, rows
from studio.quantize.tiers import TIERS
from studio.serve.memory import free_bytes
from studio.units import GIB, size_text

CONTEXTS = (4096, 8192, 16384, 32768, 65536, 131072, 262144)
FIRST_CARD = 24
GROUPS = (
    ("Usual", OFFERED),
    ("More", tuple(name for name in MORE if not TIERS[name].layers)),
    ("By the importance of layers", tuple(name for name in MORE if TIERS[name].layers)),
)
"""Tiers as the table shows them."""

_MARKS: Mapping[Kind, tuple[str, str, str]] = {
    "card": ("card", "●", "fits"),
    "experts in RAM": ("ram", "◐", "experts in RAM"),
    "layers in RAM": ("ram", "◔", "layers in RAM"),
    "RAM": ("ram", "○", "in RAM alone"),
    "no": ("no", "✕", "does not fit"),
}
"""Placement → CSS class, mark, words."""


@dataclass(frozen=True)
class SizesPart:
    """What the wiring needs of this part of the station."""

    accordion: gr.Accordion
    card: gr.Dropdown
    context: gr.Dropdown
    table: gr.HTML
    more: gr.CheckboxGroup
    again: gr.Checkbox
    """Whether a reference that is quantized already may be quantized again."""
    imatrix: gr.File
    coverage: gr.HTML
    problem: gr.HTML


def card_choices(gpu: tuple[str, int] | None) -> list[tuple[str, str]]:
    """Cards to choose from, this machine's first."""
    here = [(f"This GPU: {gpu[0]}, {gpu[1] / GIB:.0f} GB", HERE)] if gpu else []
    return [*here, *((f"{card} GB", str(card)) for card in CARDS)]


def chosen_card(card: str, gpu: tuple[str, int] | None) -> tuple[str, int]:
    """(choice, bytes for models) of the card called `card`; raises `InputError` for one that is not offered."""
    name = card or (HERE if gpu else str(FIRST_CARD))
    if name == HERE and gpu:
        return name, gpu[1]
    if name not in map(str, CARDS):
        raise InputError(f"There is no card {name!r} to choose.", f"Choose {', '.join(map(str, CARDS))}.")
    return name, card_bytes(int(name))


def contexts_of(library: Library, opened: Opened) -> list[int]:
    """Lengths of a conversation to choose from, in tokens, up to the model's own."""
    most = context_length(library.outline(opened.reference)) if opened.reference else None
    if most is None:
        return list(CONTEXTS)
    return [one for one in CONTEXTS if one <= most] or [most]


def context_choices(contexts: Iterable[int]) -> list[tuple[str, int]]:
    """With labels like "8k tokens"."""
    return [(f"{one // 1024}k tokens" if one % 1024 == 0 else f"{one} tokens", one) for one in contexts]


def chosen_context(contexts: Sequence[int], wanted: int) -> int:
    """The longest that is no longer than `wanted`, else the shortest."""
    return max((one for one in contexts if one <= wanted), default=contexts[0])


def table_html(library: Library, opened: Opened) -> str:
    """The table of all tiers; nothing while it is closed, because it takes a moment for each drop count."""
    target, reference, drop = opened.state.target, opened.reference, opened.drop
    if not target.shown or reference is None or drop is None:
        return ""
    try:
        _, card = chosen_card(target.card, this_gpu())
        ram = free_bytes()
        context = chosen_context(contexts_of(library, opened), target.context)
        guided = library.guidance(opened)
        counts = counts_around(reference.shape.experts, reference.shape.top_k, drop.kept_count)
        ordered = [drop.kept_count, *(count for count in counts if count != drop.kept_count)]
        found = rows(
            library.outline(reference),
            [TIERS[name] for _, names in GROUPS for name in names],
            ordered,
            imatrix=guided.imatrix,
            ranking=guided.ranking,
            card_bytes=card,
            ram_bytes=ram,
            context=context,
        )
    except EspalierError as error:
        return failure(error)
    said = notice(guided.problem.what, guided.problem.remedy, "warning") if guided.problem else ""
    note = (
        f"<p class='quiet'>With {context:,} tokens of context, on a card with {card / GIB:.1f} GiB for models. "
        f"{size_text(ram)} of main memory are free here for experts. Compute buffers are estimates.</p>"
    )
    return said + size_table(found, counts, drop.kept_count, GROUPS) + note


def size_table(
    found: Sequence[Row], counts: Sequence[int], kept: int, groups: Sequence[tuple[str, Sequence[str]]]
) -> str:
    """The rows as HTML, in `groups` of (heading, tiers); the column of `kept` experts is marked."""
    by_name = {row.tier: row for row in found}
    heads = "".join(
        f"<th scope='col' class='number{' chosen' if count == kept else ''}'>{count} experts"
        f"{'<small>as chosen</small>' if count == kept else ''}</th>"
        for count in counts
    )
    width = len(counts) + 3
    body = "".join(
        f"<tr class='group'><th scope='colgroup' colspan='{width}'>{escape(title)}</th></tr>"
        + "".join(_row(by_name[name], counts, kept) for name in names)
        for title, names in groups
    )
    head = f"<tr><th scope='col'>Tier</th>{heads}<th scope='col' class='number'>Bits per weight</th><th>Notes</th></tr>"
    return (
        "<div class='scroll tiers' tabindex='0' role='region' aria-label='All tiers and sizes'>"
        f"<table class='plain'><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def _row(row: Row, counts: Sequence[int], kept: int) -> str:
    name = f"<th scope='row'>{escape(row.tier)}</th>"
    if not row.cells:
        return f"<tr data-tier='{row.tier}'>{name}<td colspan='{len(counts) + 2}'>{escape(row.problem)}</td></tr>"
    by_count = {cell.kept_experts: cell for cell in row.cells}
    cells = "".join(_cell(by_count[count], count == kept) for count in counts)
    bits = f"<td class='number'>{by_count[kept].bits_per_weight:.2f}</td>"
    return f"<tr data-tier='{row.tier}'>{name}{cells}{bits}<td class='notes'>{notes(row)}</td></tr>"


def _cell(cell: Cell, chosen: bool) -> str:
    kind, mark, words = _MARKS[cell.placement]
    return (
        f"<td class='number {kind}{' chosen' if chosen else ''}' title='{cell.gb:.3f} GB, {cell.bytes:,} bytes'>"
        f"<b>{size_in_gib(cell.bytes)}</b><small><i aria-hidden='true'>{mark}</i> {words}</small></td>"
    )


def size_in_gib(count: int) -> str:
    """A number of bytes in GiB, three figures of it."""
    gib = count / GIB
    return f"{gib:.1f} GiB" if gib >= 10 else f"{gib:.2f} GiB" if gib >= 0.1 else f"{gib:.4f} GiB"


def notes(row: Row) -> str:
    """What to know about a tier before it is chosen, as HTML."""
    needs = f"needs an importance matrix ({len(row.without_importance)} tensors)" if row.without_importance else ""
    changes = [f"{change} in {count}" for change, count in row.fallbacks.items()]
    larger = f"larger where rows are not whole blocks: {', '.join(changes)}" if changes else ""
    return "; ".join(escape(one) for one in (needs, larger) if one)


def coverage_html(library: Library, opened: Opened) -> str:
    """What the importance matrix says about the experts, in words."""
    if opened.state.imatrix is None:
        return ""
    guided = library.guidance(opened)
    if guided.problem:
        return failure(guided.problem)
    covered = len(guided.imatrix or ())
    head = f"<p><strong>{escape(opened.state.imatrix)}</strong> covers {count_text(covered)} tensors.</p>"
    return head + "".join(f"<p>{escape(line)}</p>" for line in coverage_lines(guided.coverage))


def coverage_lines(coverage: Mapping[int, Coverage]) -> list[str]:
    """Which experts saw no or few tokens, by layer."""
    if not coverage:
        return ["It does not say how many tokens each expert saw."]
    unseen = {layer: found.unseen for layer, found in coverage.items() if found.unseen}
    scarce = {layer: found.scarce() for layer, found in coverage.items() if found.scarce()}
    if not unseen and not scarce:
        return ["Every kept expert saw enough tokens."]
    told = [("saw no token, so all their columns count the same", unseen), ("saw few tokens", scarce)]
    return [
        f"{sum(map(len, layers.values()))} experts {what}: "
        + "; ".join(f"layer {layer}: {_ids(ids)}" for layer, ids in layers.items())
        + "."
        for what, layers in told
        if layers
    ]


def _ids(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - 6} more" if len(ids) > 6 else ""
    return ", ".join(map(str, ids[:6])) + more


def sizes_part(library: Library, opened: Opened) -> SizesPart:
    """Lay it out."""
    gpu, contexts, target = this_gpu(), contexts_of(library, opened), opened.state.target
    with gr.Accordion("All tiers and sizes", open=False, elem_id="all-sizes") as accordion:
        with gr.Row():
            card = gr.Dropdown(
                card_choices(gpu),
                value=chosen_card(target.card, gpu)[0],
                label="Graphics card",
                elem_id="card",
                filterable=False,
            )
            context = gr.Dropdown(
                context_choices(contexts),
                value=chosen_context(contexts, target.context),
                label="Context of a conversation",
                elem_id="fit-context",
                filterable=False,
            )
        table = panel(table_html(library, opened), elem_id="tier-table")
        more = gr.CheckboxGroup(list(MORE), value=[], label="More tiers to make", elem_id="more-tiers")
        again = gr.Checkbox(
            label="Quantize a quantized reference again",
            info="What it lost stays lost, and the result loses more than one made of the original weights.",
            elem_id="again",
        )
        imatrix = gr.File(
            label="Importance matrix (GGUF or .dat)",
            file_types=[".gguf", ".dat", ".imatrix"],
            height=110,
            elem_id="imatrix-upload",
        )
        problem = panel(visible=False)
        coverage = panel(coverage_html(library, opened), elem_id="coverage")
    return SizesPart(accordion, card, context, table, more, again, imatrix, coverage, problem)


def renewed(library: Library, part: SizesPart, opened: Opened) -> dict[Any, Any]:
    """What changes in the controls when another model or analysis is opened."""
    contexts, target = contexts_of(library, opened), opened.state.target
    return {
        part.card: gr.Dropdown(value=chosen_card(target.card, this_gpu())[0]),
        part.context: gr.Dropdown(context_choices(contexts), value=chosen_context(contexts, target.context)),
        part.more: [],
        part.imatrix: gr.skip() if opened.state.imatrix else None,
        part.coverage: coverage_html(library, opened),
        part.problem: gr.HTML(visible=False),
    }


def wire_sizes(
    studio: Studio, state: gr.State, part: SizesPart, *, asked: Sequence[Any], sizes: gr.HTML, command: gr.HTML
) -> list[Callable[..., Any]]:
    """What its controls do. `asked` are name, outputs and more tiers of the build; `sizes` and `command` follow.

    Returns what registers handlers for the moments when the card, the context or the importance matrix are others.
    """
    library, keep = studio.library, studio.sessions.keep
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def aim(now: StudioState, **changes: Any) -> dict[Any, Any]:
        opened = library.open(now.targeting(replace(now.target, **changes)))
        keep(opened.state)
        return {state: opened.state, part.table: table_html(library, opened)}

    def weigh(now: StudioState, name: str, outputs: list[str], more: list[str]) -> dict[Any, Any]:
        opened, chosen = library.open(now), ticked(outputs, more)
        keep(now)
        return {
            state: now,
            part.table: table_html(library, opened),
            part.coverage: coverage_html(library, opened),
            part.problem: gr.HTML(visible=False),
            sizes: sizes_html(library, opened, chosen),
            command: command_html(library, opened, name, chosen),
        }

    def on_imatrix(now: StudioState, path: str | None, *others: Any) -> dict[Any, Any]:
        try:
            if path:
                require_upload(Path(path))
            return weigh(transitions.adopt_imatrix(library, now, Path(path)) if path else now.weighing(None), *others)
        except EspalierError as error:
            return {part.problem: gr.HTML(failure(error), visible=True)}

    seen = [state, part.table]
    opens: list[tuple[Callable[..., Any], bool]] = [(part.accordion.expand, True), (part.accordion.collapse, False)]
    for event, shown in opens:
        event(lambda now, shown=shown: aim(now, shown=shown), state, seen, **live)
    card = part.card.input(lambda now, card: aim(now, card=card), [state, part.card], seen, **live)
    length = part.context.input(
        lambda now, context: aim(now, context=int(context)), [state, part.context], seen, **live
    )
    weighed = [state, part.table, part.coverage, part.problem, sizes, command]
    given = [state, part.imatrix, *asked]
    events = (part.imatrix.upload, part.imatrix.clear)
    imatrix = [event(on_imatrix, given, weighed, api_visibility="private") for event in events]
    return [event.then for event in (card, length, *imatrix)]
