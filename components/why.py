"""Why: what decided about one expert, where the cut falls in its layer, and what the whole map does to classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from components.curves import HEIGHT, Boxes, Dot, Line, Tick, curves
from components.follow import follow, open_accordion
from components.library import Library, Opened
from components.markup import class_label, facts, failure, notice, percent_text, table
from components.shown import cell_html
from components.state import StudioState
from components.theme import panel
from studio.contributions.model import Contributions
from studio.errors import EspalierError, InputError
from studio.recipes.boundary import NEAR, ScoreCurves, score_curves
from studio.recipes.explain import Explanation, explain
from studio.recipes.preview import Preview
from studio.recipes.views import view

_KEPT = {
    "score": "its score is among the highest of its layer",
    "protected": "its score alone would drop it, but it is protected",
    "spared": "its score alone would drop it, but others were chosen to leave in its place",
    "class_minimum": "it came back so that a class reaches its minimum",
    "force_keep": "you keep it, whatever its score",
}
_GONE = {
    "score": "its score is among the lowest of its layer",
    "displaced": "its score alone would keep it, but others are protected in its place",
    "released": "more experts are protected than may be kept, and its priority is the lowest",
    "class_minimum": "it gave way so that a class reaches its minimum",
    "force_drop": "you drop it, whatever its score",
}
"""Rule → what is said of an expert that it kept or dropped."""
_BY_LITTLE = f"by less than {100 * NEAR:g} % of the score"
_SHADES = 8
"""Steps of colour in the grid of classes and layers."""
_LABELS = 12
"""The most numbers of layers that are written below a figure."""
_HURT = 3
"""So many classes are named as hurt most."""


@dataclass(frozen=True)
class WhyPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    text: gr.HTML
    layer: gr.Dropdown
    """Whose scores are shown."""
    curve: gr.HTML


def expert_html(contributions: Contributions, told: Explanation, dropped: int) -> str:
    """What decided about one expert of a layer that loses `dropped`, and its numbers in every class."""
    name = f"Layer {told.layer}, expert {told.expert}"
    why = (_KEPT if told.kept else _GONE)[told.rule]
    pairs = [
        ("Place by score", f"{told.place} of {told.experts}", f"{told.experts - dropped} are kept"),
        ("Score", f"{told.score:.4g}", "" if told.boundary is None else f"the cut is at {told.boundary:.4g}"),
    ]
    if told.distance is not None:
        pairs.append(("From the cut", f"{told.distance:+.3g}", _of_cut(told)))
    if told.protected_by:
        pairs.append(("Protected by", ", ".join(told.protected_by), ""))
    row = contributions.shape.layer_ids.index(told.layer)
    rows = [
        (
            escape(class_label(one.klass)),
            f"{one.place} of {told.experts}",
            percent_text(float(view(contributions, one.klass, "share")[row, told.expert])),
            f"{one.weight:g}",
            f"{one.normalised:.4g}",
        )
        for one in told.classes
    ]
    head = ("Class", "Place", "Share of the layer", "Weight", "In the recipe")
    caption = f"{name} in every class"
    return (
        f"<section><h3>{name} {'stays' if told.kept else 'leaves'}: {why}</h3>{facts(pairs)}"
        f"{table(head, rows, numeric=range(1, 5), caption=caption)}"
        "<p class='quiet'>In the recipe: the number by which it ranks experts within the class.</p></section>"
    )


def _of_cut(told: Explanation) -> str:
    if not told.boundary or told.distance is None:
        return ""
    side = "above" if told.distance >= 0 else "below"
    return f"{percent_text(abs(told.distance / told.boundary))} {side} it"


def layer_html(found: ScoreCurves, row: int, expert: int | None = None) -> str:
    """The sorted scores of the layer at position `row`, with the cut, and `expert` marked."""
    order, scores = found.experts[row][::-1], found.scores[row][::-1]
    gone, boundary = found.dropped[row][::-1], float(found.boundaries[row])
    finite = scores[np.isfinite(scores)]
    high, low = (float(finite.max()), min(0.0, float(finite.min()))) if finite.size else (1.0, 0.0)
    span, count = (high - low) or 1.0, len(order)
    heights = np.clip((np.nan_to_num(scores, nan=high, posinf=high, neginf=low) - low) / span, 0, 1)
    boxes = [
        Boxes(
            [(place / count, (place + 0.8) / count, 0.0, float(heights[place])) for place in np.flatnonzero(is_gone)],
            kind,
        )
        for is_gone, kind in ((~gone, "bar"), (gone, "bar gone"))
    ]
    lines: list[Line | Boxes] = [*boxes]
    ticks = [Tick(1, f"{high:.3g}"), Tick(0, f"{low:.3g}")]
    if np.isfinite(boundary):
        level = float(np.clip((boundary - low) / span, 0, 1))
        lines.append(Line([(0, level), (1, level)], "line worst thin"))
        ticks.insert(0, Tick(level, f"{boundary:.3g}"))
    places = [] if expert is None else np.flatnonzero(order == expert).tolist()
    title = f"Layer {found.layer_ids[row]}: {_ties_text(int(found.near_ties[row]), np.isfinite(boundary))}"
    drawn = curves(
        lines,
        [Dot((place + 0.4) / count, float(heights[place]), "worst" if gone[place] else "") for place in places],
        label=f"Scores of the {count} experts of the layer from the highest to the lowest. {title}.",
        across="Experts by score, the highest first",
        up="Score in the recipe",
        ticks_across=[
            *(Tick((place + 0.4) / count, f"expert {expert}") for place in places),
            Tick(1, str(count)),
            Tick(0, "1"),
        ],
        ticks_up=ticks,
        caption="<i class='swatch'></i>stays, <i class='swatch gone pale'></i>leaves, "
        "<i class='key worst'></i>the cut.",
    )
    lowest = ", ".join(str(one) for one in order[~gone][::-1][:_HURT])
    highest = ", ".join(str(one) for one in order[gone][:_HURT])
    said = f"Closest to the cut: of those that stay, experts {lowest}; of those that leave, {highest}."
    return f"<section><h3>{title}</h3>{drawn}<p class='quiet'>{said if gone.any() else ''}</p></section>"


def _ties_text(ties: int, by_score: bool) -> str:
    if not by_score:
        return "nobody leaves by score"
    if not ties:
        return f"the cut is clear, nobody stays {_BY_LITTLE}"
    return f"the cut is close, {ties} expert{' stays' if ties == 1 else 's stay'} {_BY_LITTLE}"


def losses_html(seen: Preview) -> str:
    """What each class loses in each layer, as a grid; who is hurt most, in words."""
    lost = 1 - seen.kept_share
    most = float(lost.max())
    if most <= 0:
        return "<section><h3>No class loses anything</h3></section>"
    classes = len(seen.classes)
    ranked = sorted(seen.share_kept_per_class.items(), key=lambda pair: pair[1])[:_HURT]
    hurt = ", ".join(f"{class_label(klass)} ({percent_text(share)} kept)" for klass, share in ranked)
    title = f"{class_label(seen.worst_class)} is hurt most; layer {seen.worst_layer} loses most"
    drawn = curves(
        _grid(lost / most),
        [],
        label=f"Contribution lost by class and layer. {title}.",
        across="Layer",
        up="Contribution lost, by class",
        ticks_across=_layer_ticks(seen.layer_ids),
        ticks_up=[Tick(1 - (row + 0.5) / classes, class_label(klass)) for row, klass in enumerate(seen.classes)],
        caption=f"<i class='swatch loss'></i>{percent_text(most)} of what a layer gives a class is lost; pale: less.",
        height=max(HEIGHT, 20 * classes),
    )
    worst = f"All classes together keep {percent_text(seen.worst_layer_share)} of layer {seen.worst_layer}."
    said = f"Hurt most: {hurt}. {worst}"
    return f"<section><h3>{escape(title)}</h3>{drawn}<p class='quiet'>{escape(said)}</p></section>"


def _grid(dark: np.ndarray) -> list[Boxes]:
    """A box per class and layer [C, L], as dark as its number of 0 to 1 says."""
    classes, layers = dark.shape
    steps = np.ceil(dark * _SHADES).astype(int)

    def box(row: int, layer: int) -> tuple[float, float, float, float]:
        bottom = classes - row - 1
        return (layer + 0.04) / layers, (layer + 0.96) / layers, (bottom + 0.06) / classes, (bottom + 0.94) / classes

    return [
        Boxes([box(row, layer) for row, layer in np.argwhere(steps == step).tolist()], "loss", step / _SHADES)
        for step in np.unique(steps[steps > 0]).tolist()
    ]


def ties_html(found: ScoreCurves) -> str:
    """How many experts of each layer stay although they are nearly as low as those that leave."""
    ties = found.near_ties
    most, layers = int(ties.max()), len(ties)
    touched = int((ties > 0).sum())
    if not most:
        return (
            "<section><h3>Every cut is clear</h3>"
            f"<p class='quiet'>In no layer does an expert stay {_BY_LITTLE}.</p></section>"
        )
    worst = found.layer_ids[int(ties.argmax())]
    title = f"The cut is close in {touched} of {layers} layers, closest in layer {worst}"
    drawn = curves(
        [
            Boxes(
                [((row + 0.1) / layers, (row + 0.9) / layers, 0, count / most) for row, count in enumerate(ties)], "bar"
            )
        ],
        [],
        label=f"Near ties per layer. {title}.",
        across="Layer",
        up=f"Experts that stay {_BY_LITTLE}",
        ticks_across=_layer_ticks(found.layer_ids),
        ticks_up=[Tick(1, str(most)), Tick(0, "0")],
        caption="There, another sample of questions may choose others.",
        height=120,
    )
    return f"<section><h3>{title}</h3>{drawn}</section>"


def _layer_ticks(ids: Sequence[int]) -> list[Tick]:
    every = -(-len(ids) // _LABELS)
    return [Tick((row + 0.5) / len(ids), str(layer)) for row, layer in enumerate(ids) if row % every == 0]


def layer_table(seen: Preview, found: ScoreCurves | None) -> str:
    """The numbers of both figures, by layer."""
    head = [
        "Layer",
        *(["Near ties", "Cut at"] if found else []),
        *(f"{class_label(klass)} kept" for klass in seen.classes),
    ]
    rows = []
    for row, layer in enumerate(seen.layer_ids):
        cut = [] if found is None else [str(found.near_ties[row]), _number(float(found.boundaries[row]))]
        rows.append((str(layer), *cut, *map(percent_text, seen.kept_share[:, row].tolist())))
    shown = table(head, rows, numeric=range(1, len(head)))
    return f"<details class='numbers'><summary>The numbers of every layer</summary>{shown}</details>"


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "–"


def cell(opened: Opened) -> str:
    """Why the chosen cell stays or leaves, and the cut of its layer; nothing where no cell is chosen.

    Raises `InputError` where the map has no such cell.
    """
    contributions, drop, at = opened.contributions, opened.drop, opened.state.cell
    if contributions is None or drop is None or at is None:
        return ""
    row, expert = at
    if opened.state.imported is not None:
        return f"{cell_html(contributions, drop, row, expert)}<p class='quiet'>{_IMPORTED}</p>"
    if not 0 <= row < contributions.shape.layers:
        raise InputError(f"The map has no row {row}, expert {expert}.", "Click a cell.")
    told = explain(contributions, opened.state.recipe, contributions.shape.layer_ids[row], expert, opened.second)
    found = score_curves(contributions, opened.state.recipe, opened.second)
    parts = expert_html(contributions, told, drop.dropped_count) + layer_html(found, row, expert)
    return f"<div class='insights'>{parts}</div>"


_IMPORTED = "The imported map decides here, and does not say why."


def map_html(opened: Opened) -> str:
    """What the whole map does to classes and layers, and where its cut is close."""
    if opened.contributions is None or opened.preview is None:
        return notice("No analysis is open.", "Open one in the first station.")
    found = None if opened.state.imported else score_curves(opened.contributions, opened.state.recipe, opened.second)
    ties = f"<p class='quiet'>{_IMPORTED}</p>" if found is None else ties_html(found)
    return f"<div class='insights'>{losses_html(opened.preview)}{ties}</div>{layer_table(opened.preview, found)}"


def layer_choices(opened: Opened) -> list[int]:
    """The layers whose scores can be shown."""
    return list(opened.contributions.shape.layer_ids) if opened.contributions and not opened.state.imported else []


def chosen_layer(opened: Opened, layer: int | None) -> int | None:
    """`layer` where the map has it, else the one of the chosen cell, else the first."""
    choices, cell = layer_choices(opened), opened.state.cell
    if layer in choices or not choices:
        return layer if layer in choices else None
    return choices[cell[0]] if cell and cell[0] < len(choices) else choices[0]


def curve_html(opened: Opened, layer: int | None) -> str:
    """The cut in `layer`, with the chosen cell marked where it lies there; `InputError` for a layer that is none."""
    if layer is None or opened.contributions is None or not layer_choices(opened):
        return ""
    if layer not in layer_choices(opened):
        raise InputError(f"The map has no layer {layer}.", "Choose one of the list.")
    row, cell = layer_choices(opened).index(layer), opened.state.cell
    found = score_curves(opened.contributions, opened.state.recipe, opened.second)
    html = layer_html(found, row, cell[1] if cell and cell[0] == row else None)
    return f"<div class='insights'>{html}</div>"


def why_part() -> WhyPart:
    """Lay the part out, closed: nothing is computed until somebody looks."""
    with gr.Accordion("What the map does to classes and layers", open=False, elem_id="why") as accordion:
        text = panel(elem_id="why-text")
        layer = gr.Dropdown([], value=None, label="The cut in layer", elem_id="why-layer", min_width=120)
        curve = panel(elem_id="why-curve")
    return WhyPart(accordion, text, layer, curve)


def shown_cell(opened: Opened) -> gr.HTML:
    """The panel of the chosen cell, which is not there while there is none."""
    try:
        html = cell(opened)
    except EspalierError as error:
        html = failure(error)
    return gr.HTML(html, visible=bool(html))


def wire_why(library: Library, state: gr.State, part: WhyPart, chosen_cell: gr.HTML, changed: Sequence[Any]) -> None:
    """Compute when the part is opened, and while it or a cell is shown, when one of `changed` changes."""
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def of_map(now: StudioState, layer: int | None) -> dict[Any, Any]:
        try:
            opened = library.open(now)
            at = chosen_layer(opened, layer)
            choices = gr.Dropdown(layer_choices(opened), value=at)
            return {part.text: map_html(opened), part.layer: choices, part.curve: curve_html(opened, at)}
        except EspalierError as error:
            return {part.text: failure(error), part.curve: ""}

    def of_layer(now: StudioState, layer: int | None) -> str:
        try:
            return curve_html(library.open(now), layer)
        except EspalierError as error:
            return failure(error)

    def of_cell(now: StudioState) -> gr.HTML:
        return shown_cell(library.open(now))

    asked, shown = [state, part.layer], [part.text, part.layer, part.curve]
    part.accordion.expand(of_map, asked, shown, **live)
    part.layer.input(of_layer, asked, part.curve, **live)
    events = [one.change for one in changed]
    follow(events, open_accordion("why"), of_map, asked, shown)
    follow(events, "#cell :is(table, .notice)", of_cell, [state], [chosen_cell])
