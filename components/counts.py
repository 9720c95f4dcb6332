"""The drop count as a choice: what every number of experts keeps and how large it gets, and the number for a size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components.curves import Dot, Line, Tick, curves
from components.follow import follow, open_accordion
from components.library import Library, Opened
from components.markup import class_label, failure, notice, percent_text, table
from components.outputs import FIRST, MORE, OFFERED
from components.shown import LOW_SHARE
from components.sizes import card_choices, chosen_card, chosen_context, contexts_of
from components.state import StudioState
from components.theme import panel
from studio.errors import EspalierError, InputError
from studio.quantize.counts import Room, Taken, most_that_fit, taken
from studio.quantize.fit import this_gpu
from studio.quantize.tiers import tier_named
from studio.recipes.drop_curve import DropCurve, drop_curve
from studio.units import GIB, size_text

FILE = "file"
"""The choice of a file of some size, rather than of a card."""
FIRST_GIB = 12.0
_TALLEST = 1.5
"""Times the largest size: what a figure shows of more room than is needed."""
_ROWS = 12
"""About as many counts has the table of numbers."""


@dataclass(frozen=True)
class CountsPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    text: gr.HTML
    tier: gr.Dropdown
    room: gr.Dropdown
    gib: gr.Number
    answer: gr.HTML
    use: gr.Button
    found: gr.State
    """How many experts to drop for the size, None where no number does."""

    @property
    def asked(self) -> list[Any]:
        """What was said about the size."""
        return [self.tier, self.room, self.gib]


@dataclass(frozen=True)
class Fit:
    """What a tier takes at every count, and the count that a size allows."""

    tier: str
    room: Room
    where: str
    """The room in words."""
    found: Sequence[Taken]
    """One per possible count, the most experts first."""
    best: Taken | None
    problem: EspalierError | None = None
    """Why there is no `best`."""


def possible(opened: Opened) -> range:
    """How many experts a layer can lose."""
    return range(0, opened.most + 1, opened.step)


def fit_of(library: Library, opened: Opened, tier: str, room: str, gib: float | None) -> Fit:
    """`tier` at every count, and the count for the `room` that was chosen. Raises as `taken` and `chosen_card` do."""
    if opened.reference is None:
        raise InputError("No model is open, so sizes are not known.", "Open one in the first station.")
    if room == FILE:
        if gib is None or not 0 < gib < 1e6:
            raise InputError("The size of the file is not a number of GiB.", "Give one above 0.")
        wanted, where = Room(int(gib * GIB)), f"a file of {gib:g} GiB"
    else:
        _, card = chosen_card(room, this_gpu())
        context = chosen_context(contexts_of(library, opened), opened.state.target.context)
        wanted = Room(card, context)
        where = f"a card with {card / GIB:.1f} GiB for models, with {context:,} tokens of context"
    guided, experts = library.guidance(opened), opened.reference.shape.experts
    if tier_named(tier).layers is not None and guided.ranking is None:
        raise InputError(f"{tier} needs a ranking of the layers.", "Open an analysis or an importance matrix.")
    kept = [experts - count for count in possible(opened)]
    header = library.outline(opened.reference)
    found = taken(header, tier_named(tier), kept, wanted, imatrix=guided.imatrix, ranking=guided.ranking)
    try:
        return Fit(tier, wanted, where, found, most_that_fit(found, wanted))
    except InputError as error:
        return Fit(tier, wanted, where, found, None, error)


def kept_html(curve: DropCurve, chosen: int, counts: Sequence[int], *, imported: bool = False) -> str:
    """The share of each class that stays, over how many experts are dropped; `chosen` is marked."""
    end, shares, worked_out = counts[-1] or 1, curve.kept_share, sorted({*curve.counts} & {*counts})
    here = shares[:, chosen]
    worst, best = int(here.argmin()), int(here.argmax())
    order = sorted(range(len(shares)), key=lambda row: (row == worst, row == best))  # the named ones on top
    lines = [Line([(chosen / end, 0), (chosen / end, 1)], "guide")]
    for row in order:
        kind = "line worst" if row == worst else "line best" if row == best else "line other"
        lines.append(Line([(count / end, float(shares[row, count])) for count in worked_out], kind))
    dots = [] if imported else [Dot(chosen / end, float(here[row]), "worst" if row == worst else "") for row in order]
    low, high = percent_text(float(here[worst])), percent_text(float(here[best]))
    names = [escape(class_label(klass)) for klass in curve.classes]
    span = low if low == high else f"{low} to {high}"
    title = f"Dropping {chosen} keeps {span} of each class; {class_label(curve.classes[worst])} keeps least"
    others = "; thin: the others" if len(names) > 2 else ""
    keys = f"<i class='key worst'></i>{names[worst]} keeps least"
    if best != worst:
        keys += f", <i class='key best'></i>{names[best]} most{others}"
    step = counts[1] - counts[0] if len(counts) > 1 else 1
    room = curve.most_keeping(LOW_SHARE) // step * step
    said = f"Up to {room} can leave every layer before a class keeps less than {100 * LOW_SHARE:.0f} %."
    if len(worked_out) < len(counts):
        said += (
            f" Minima per class swap experts at each count anew: {len(worked_out)} of {len(counts)} counts are worked "
            "out, with straight lines between them."
        )
    if imported:
        said += " These are the curves of the recipe; the imported map is not on them."
    drawn = curves(
        lines,
        dots,
        label=f"Contribution kept per class, over 0 to {end} dropped experts. {title}.",
        across="Experts dropped in every layer",
        up="Contribution kept",
        ticks_across=[Tick(chosen / end, str(chosen)), Tick(1, str(end)), Tick(0, "0")],
        ticks_up=[Tick(place / 100, f"{place} %") for place in (0, 50, 80, 100)],
        caption=f"{keys}.",
    )
    return f"<section><h3>{escape(title)}</h3>{drawn}<p class='quiet'>{escape(said)}</p></section>"


def sizes_html(fit: Fit, chosen: int, counts: Sequence[int]) -> str:
    """The size in a tier over how many experts are dropped; `chosen`, and what fits the room, are marked."""
    end, by_count = counts[-1] or 1, dict(zip(counts, fit.found, strict=True))
    here = by_count[chosen].file_bytes if chosen in by_count else fit.found[-1].file_bytes
    top = max(fit.found[0].bytes, fit.room.bytes if fit.room.bytes < _TALLEST * fit.found[0].bytes else 0) * 1.08
    title = (
        f"{fit.tier} takes {size_text(here)} with {chosen} dropped, and {size_text(fit.found[0].file_bytes)} with none"
    )
    lines = [
        Line([(chosen / end, 0), (chosen / end, 1)], "guide"),
        Line([(count / end, one.file_bytes / top) for count, one in by_count.items()], "line best"),
    ]
    ticks = [Tick(here / top, size_text(here)), Tick(0, "0")]
    caption = "<i class='key best'></i>the file"
    if fit.room.context:
        lines.append(Line([(count / end, one.bytes / top) for count, one in by_count.items()], "line other dashed"))
        caption += ", <i class='key other dashed'></i>with all that runs beside it on the card (an estimate)"
    if fit.room.bytes < top:
        lines.append(Line([(0, fit.room.bytes / top), (1, fit.room.bytes / top)], "line worst"))
        ticks.insert(0, Tick(fit.room.bytes / top, size_text(fit.room.bytes)))
        caption += ", <i class='key worst'></i>the room there is"
    drawn = curves(
        lines,
        [Dot(chosen / end, here / top)],
        label=f"Predicted size in {fit.tier}, over 0 to {end} dropped experts. {title}.",
        across="Experts dropped in every layer",
        up="Predicted size",
        ticks_across=[Tick(chosen / end, str(chosen)), Tick(1, str(end)), Tick(0, "0")],
        ticks_up=ticks,
        caption=f"{caption}.",
    )
    return f"<section><h3>{escape(title)}</h3>{drawn}</section>"


def numbers_html(curve: DropCurve | None, fit: Fit | None, counts: Sequence[int], chosen: int, experts: int) -> str:
    """Both figures as a table of about `_ROWS` counts, with the chosen one among them."""
    known = [count for count in counts if curve is None or count in curve.counts]
    every = max(1, len(known) // _ROWS)
    wanted = sorted({*known[::every], known[-1], *({chosen} & {*known})})
    sizes = {experts - one.kept_experts: one.file_bytes for one in fit.found} if fit else {}
    rows = []
    for count in wanted:
        mark = f"<b>{count}</b>" if count == chosen else str(count)
        shares = [] if curve is None else [percent_text(share) for share in curve.kept_share[:, count].tolist()]
        rows.append((mark, str(experts - count), *([size_text(sizes[count])] if fit else []), *shares))
    head = ["Dropped", "Kept", *([fit.tier] if fit else []), *map(class_label, curve.classes if curve else ())]
    shown = table(head, rows, numeric=range(len(head)))
    return f"<details class='numbers'><summary>The numbers</summary>{shown}</details>"


def answer_html(fit: Fit, experts: int) -> str:
    """How many experts to drop for the size that was asked for."""
    if fit.best is None:
        assert fit.problem is not None, "one of both is known"
        return failure(fit.problem)
    drop = experts - fit.best.kept_experts
    takes = f"takes {size_text(fit.best.file_bytes)}"
    if fit.room.context:
        takes += f", and {size_text(fit.best.bytes)} while it runs (an estimate)"
    if drop == 0:
        return notice(f"{fit.tier} fits {fit.where} as it is.", f"With all {experts} experts it {takes}.")
    return notice(
        f"Drop {drop} of {experts}, and {fit.tier} fits {fit.where}.",
        f"With {fit.best.kept_experts} experts it {takes}.",
    )


def counts_part() -> CountsPart:
    """Lay the part out, closed: nothing is computed until somebody looks."""
    found = gr.State(None)
    with gr.Accordion("What each number keeps, and the number for a size", open=False, elem_id="counts") as accordion:
        text = panel(elem_id="counts-text")
        panel("<h3 class='panel-title'>How many have to go for a size?</h3>")
        with gr.Row():
            tier = gr.Dropdown([*OFFERED, *MORE], value=FIRST, label="Tier", elem_id="counts-tier", min_width=140)
            gpu = this_gpu()
            room = gr.Dropdown(
                [*card_choices(gpu), ("A file of at most…", FILE)],
                value=chosen_card("", gpu)[0],
                label="Has to fit",
                elem_id="counts-room",
                filterable=False,
                min_width=140,
            )
            gib = gr.Number(FIRST_GIB, label="GiB", step=0.1, elem_id="counts-gib", visible=False, min_width=100)
        answer = panel(elem_id="counts-answer")
        use = gr.Button("Drop as many", size="sm", interactive=False, elem_id="counts-use")
    return CountsPart(accordion, text, tier, room, gib, answer, use, found)


def wire_counts(
    library: Library,
    state: gr.State,
    part: CountsPart,
    *,
    changed: Sequence[Any],
    aimed: Sequence[Callable[..., Any]],
    drop: gr.Slider,
) -> Callable[..., Any]:
    """Compute when the part is opened, and while it is, when one of `changed` changes.

    `aimed` register handlers for when the card, the context or the importance matrix of the state are others. A card
    that is chosen there is chosen here too, unless a file is asked for.

    Returns what registers a handler for the moment when its button has set `drop`.
    """
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    outputs = [part.text, part.answer, part.use, part.found]

    def fresh(now: StudioState, *asked: Any) -> dict[Any, Any]:
        return rendered(library, part, library.open(now), *asked)

    def on_room(now: StudioState, *asked: Any) -> dict[Any, Any]:
        return {part.gib: gr.Number(visible=asked[1] == FILE), **fresh(now, *asked)}

    asked = [state, *part.asked]
    part.accordion.expand(fresh, asked, outputs, **live)

    def on_aim(now: StudioState, tier: str, room: str, gib: float | None) -> dict[Any, Any]:
        if room != FILE:
            room = chosen_card(now.target.card, this_gpu())[0]
        return {part.room: room, **fresh(now, tier, room, gib)}

    follow([one.change for one in changed], open_accordion("counts"), fresh, asked, outputs)
    for then in aimed:
        then(on_aim, asked, [part.room, *outputs], **live)
    part.room.input(on_room, asked, [part.gib, *outputs], **live)
    for control in (part.tier, part.gib):
        control.input(fresh, asked, outputs, trigger_mode="always_last", **live)
    return part.use.click(lambda found: found, part.found, drop, **live).then


def rendered(library: Library, part: CountsPart, opened: Opened, *asked: Any) -> dict[Any, Any]:
    """New values of what the part shows."""
    if opened.drop is None:
        empty = notice("There is no map yet.", "Open an analysis in the first station.")
        return {part.text: empty, part.answer: "", part.use: gr.Button(interactive=False), part.found: None}
    counts, chosen, experts = possible(opened), opened.drop.dropped_count, opened.drop.experts
    figures, fit, answer = [], None, ""
    imported = opened.state.imported is not None
    try:
        recipe = opened.state.recipe.but(drop=chosen) if imported else opened.state.recipe
        curve = drop_curve(opened.contributions, recipe, opened.second) if opened.contributions else None
        if curve:
            figures.append(kept_html(curve, chosen, counts, imported=imported))
    except EspalierError as error:
        curve = None
        figures.append(failure(error))
    try:
        fit = fit_of(library, opened, *asked)
        figures.append(sizes_html(fit, chosen, counts))
        answer = answer_html(fit, experts)
    except EspalierError as error:
        answer = failure(error)
    found = experts - fit.best.kept_experts if fit and fit.best else None
    ready = found is not None and (imported or found != chosen)
    text = f"<div class='insights'>{''.join(figures)}</div>{numbers_html(curve, fit, counts, chosen, experts)}"
    label = "Drop as many" if found is None else f"Drop {found} in every layer" if found else "Keep every expert"
    return {part.text: text, part.answer: answer, part.use: gr.Button(label, interactive=ready), part.found: found}
