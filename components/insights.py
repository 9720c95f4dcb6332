"""The panel of insights: what the open analysis says as a whole, and how alike the model's experts are.

Its figures are SVG and boxes that take the page's colours by themselves; each has its numbers in a table below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from components.library import Library
from components.markup import class_label, failure, notice, percent_text, table
from components.page import Studio
from components.state import StudioState
from components.theme import panel
from studio.contributions.answers import Answers, Finding, findings, measure
from studio.errors import EspalierError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore

KIND = "similarity"
_LABELS = 12
"""The most numbers of layers that are written below columns."""
_LABEL_WIDTH = 8
"""Of a number below the curve, in % of its width on the narrowest page."""
_SHADE = 0.45
"""Of the colour behind the largest number of a table: the number can still be read in the light and in the dark."""
_NOTHING = notice("No analysis is open.", "Open one in the first station.")
_ASK = (
    "<p class='quiet'>Whether two experts could be made one is a question about their weights. A sample of pairs "
    "tells; of a large model that takes some minutes.</p>"
)


@dataclass(frozen=True)
class InsightsPart:
    """What the wiring needs of this part."""

    shown: gr.State
    """Whether the panel is open."""
    accordion: gr.Accordion
    text: gr.HTML
    alike: gr.HTML
    compare: gr.Button


def insights_part() -> InsightsPart:
    """Lay the part out, closed: nothing is computed until somebody looks."""
    shown = gr.State(False)
    with gr.Accordion("What the analysis says as a whole", open=False, elem_id="insights") as accordion:
        text = panel(elem_id="insights-text")
        panel("<h3 class='panel-title'>How alike are the weights of experts?</h3>")
        alike = panel(elem_id="insights-alike")
        compare = gr.Button("Compare experts", size="sm", elem_id="insights-compare")
    return InsightsPart(shown, accordion, text, alike, compare)


def insights_html(answers: Answers) -> str:
    """The answers: three figures, then what needs none."""
    found = findings(answers)
    parts = [
        _figure(found["concentration"], _curve(answers)),
        _figure(found["layers"], _columns(answers)),
        _figure(found["sharing"], _overlap(answers)),
        _figure(found["specialists"], _specialists(answers)),
    ]
    rest = "".join(_figure(found[name], "") for name in ("stability", "unused", "quality"))
    estimated = answers.contributions.estimated
    said = (
        notice("The norms of this analysis are an estimate; nobody measured them.", "", "warning") if estimated else ""
    )
    return (
        f"{said}<p class='quiet'>Contribution is {escape(measure(answers.contributions))}.</p>"
        f"<div class='insights'>{''.join(parts)}</div><div class='insights rest'>{rest}</div>"
        f"<details class='numbers'><summary>The numbers of every layer</summary>{_layer_table(answers)}</details>"
    )


def alike_html(job: Job | None) -> str:
    """What the last comparison of the open model found, or how far it is."""
    if job is None or job.status == "cancelled":
        return _ASK
    if job.status == "failed":
        return notice(job.error or "The comparison failed.", "", "error")
    if job.result is None:
        return f"<p class='quiet' aria-live='polite'>Comparing: {job.fraction:.0%}. The job is in station 4.</p>"
    layers = job.result.get("layers")
    rows = [_alike_row(entry) for entry in layers] if isinstance(layers, list) else []
    head = ("Layer", "Pairs", "Mean", "Most alike", "Experts")
    return f"<p>{escape(str(job.result.get('says', '')))}</p>{table(head, rows, numeric=(1, 2, 3))}"


def _alike_row(entry: Any) -> tuple[str, ...]:
    first, second = entry["experts"]
    return (
        str(int(entry["layer"])),
        str(int(entry["pairs"])),
        f"{float(entry['mean']):.3f}",
        f"{float(entry['largest']):.3f}",
        f"{int(first)} and {int(second)}",
    )


def _figure(finding: Finding, drawn: str) -> str:
    return f"<section><h3>{escape(finding.title)}</h3>{drawn}<p class='quiet'>{escape(finding.text)}</p></section>"


def _curve(answers: Answers) -> str:
    """Share of the contribution over the number of experts: the mean layer, and the range of all."""
    experts = answers.contributions.shape.experts
    across = np.arange(experts + 1) * 100 / experts
    shares = np.pad(answers.curve, ((0, 0), (1, 0)))  # no expert gives nothing
    low, mean, high = (_points(across, line) for line in (shares.min(0), shares.mean(0), shares.max(0)))
    band = f"M{' L'.join(high)} L{' L'.join(reversed(low))}Z"
    half, most = (float(np.median(counts)) * 100 / experts for counts in (answers.half, answers.needed))
    guides = f"M0,50H{half:.2f}V100M0,20H{most:.2f}V100"
    label = f"Share of a layer's contribution that its strongest experts give, from 0 to {experts} experts"
    marks = "".join(
        f"<span{' class=end' if place == 100 else ''} style='left:{place:.1f}%'>{round(place * experts / 100)}</span>"
        for place in _apart(half, most, 100.0, 0.0)
    )
    return (
        f"<figure class='curve' role='img' aria-label=\"{escape(label)}\">"
        "<div class='shares' aria-hidden='true'><span>100 %</span><span style='top:20%'>80 %</span>"
        "<span style='top:50%'>50 %</span></div>"
        "<svg viewBox='0 0 100 100' preserveAspectRatio='none' aria-hidden='true'>"
        "<path class='even' d='M0,100L100,0'/>"
        f"<path class='band' d='{band}'/><path class='guide' d='{guides}'/><path class='line' d='M{' L'.join(mean)}'/>"
        f"</svg><div class='counts' aria-hidden='true'>{marks}</div>"
        "<figcaption>Strongest experts of a layer, and the share of its contribution that they give: the mean of "
        "layers, their range, and (dashed) experts that all give the same.</figcaption></figure>"
    )


def _apart(*places: float) -> list[float]:
    """Those of `places`, in %, whose labels do not touch one before it."""
    kept: list[float] = []
    for place in places:
        if all(abs(place - other) >= _LABEL_WIDTH for other in kept):
            kept.append(place)
    return kept


def _points(across: np.ndarray, shares: np.ndarray) -> list[str]:
    return [f"{x:.2f},{100 - 100 * y:.2f}" for x, y in zip(across, shares, strict=True)]


def _columns(answers: Answers) -> str:
    """A column per layer, as high as what it contributes."""
    ids = answers.contributions.shape.layer_ids
    every = -(-len(ids) // _LABELS)
    columns = "".join(
        f"<li title='Layer {layer}: {percent_text(share)}'><i style='height:{100 * share:.1f}%'></i>"
        f"<span>{layer if row % every == 0 else ''}</span></li>"
        for row, (layer, share) in enumerate(zip(ids, answers.importance.tolist(), strict=True))
    )
    label = "Contribution of each layer's experts, relative to the largest"
    return (
        f"<figure role='img' aria-label='{label}'><ol class='columns' aria-hidden='true'>{columns}</ol>"
        "<figcaption>Layer, and what its experts contribute relative to the largest.</figcaption></figure>"
    )


def _overlap(answers: Answers) -> str:
    """Classes × classes as a table that is shaded by its numbers."""
    if answers.overlap is None:
        return ""
    labels = [escape(class_label(klass)) for klass in answers.contributions.classes]
    rows = [
        (f"<b>{label}</b>", *(_shaded(value, answers.top, place == row) for place, value in enumerate(line)))
        for row, (label, line) in enumerate(zip(labels, answers.overlap.tolist(), strict=True))
    ]
    shown = table(("", *map(class_label, answers.contributions.classes)), rows, numeric=range(1, len(labels) + 1))
    return f"<div class='shaded'>{shown}</div>"


def _shaded(value: float, most: int, itself: bool) -> str:
    if itself:
        return "<span class='shade none'>–</span>"
    shade = 100 * _SHADE * min(1.0, value / most)
    return f"<span class='shade' style='--shade:{shade:.0f}%'>{value:.1f}</span>"


def _specialists(answers: Answers) -> str:
    if not answers.specialists:
        return ""
    rows = [
        (escape(class_label(one.klass)), str(one.layer), str(one.expert), percent_text(one.share))
        for one in answers.specialists
    ]
    return table(("Class", "Layer", "Expert", "Of what it gives"), rows, numeric=(1, 2, 3))


def _layer_table(answers: Answers) -> str:
    halves = ["–"] * len(answers.gini) if answers.halves is None else [f"{one:.2f}" for one in answers.halves]
    rows = [
        (
            str(layer),
            percent_text(float(answers.importance[row])),
            f"{answers.gini[row]:.2f}",
            str(answers.half[row]),
            str(answers.needed[row]),
            halves[row],
        )
        for row, layer in enumerate(answers.contributions.shape.layer_ids)
    ]
    head = ("Layer", "Of the largest layer", "Gini", "Experts for half", "Experts for 80 %", "Halves agree")
    return table(head, rows, numeric=range(1, 6))


def wire_insights(studio: Studio, state: gr.State, part: InsightsPart, opened: Sequence[Any], finished: Any) -> None:
    """Compute when the panel is opened, and again when one of `opened` changes while it is.

    `finished` changes when a job is over.
    """
    library, store = studio.library, studio.store
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    outputs = [part.text, part.alike, part.compare]

    def fresh(now: StudioState, shown: bool) -> dict[Any, Any]:
        if not shown:
            return {part.text: gr.skip()}
        return {part.text: _text(library, now), **_comparison(store, part, now)}

    def on_expand(now: StudioState) -> dict[Any, Any]:
        return {part.shown: True, **fresh(now, True)}

    def on_compare(now: StudioState) -> dict[Any, Any]:
        try:
            runner.start(store, KIND, {"reference": now.reference})
        except EspalierError as error:
            return {part.alike: failure(error)}
        return _comparison(store, part, now)

    def on_finished(now: StudioState, shown: bool) -> dict[Any, Any]:
        return _comparison(store, part, now) if shown else {part.alike: gr.skip()}

    part.accordion.expand(on_expand, state, [part.shown, *outputs], **live)
    part.accordion.collapse(lambda: False, None, part.shown, **live)
    gr.on([one.change for one in opened], fresh, [state, part.shown], outputs, **live)
    part.compare.click(on_compare, state, [part.alike, part.compare], **live)
    finished.change(on_finished, [state, part.shown], [part.alike, part.compare], **live)


def _text(library: Library, now: StudioState) -> str:
    if now.analysis is None:
        return _NOTHING
    try:
        return insights_html(library.answers(now.analysis))
    except EspalierError as error:
        return failure(error)


def _comparison(store: JobStore, part: InsightsPart, now: StudioState) -> dict[Any, Any]:
    jobs = [one for one in store.list() if one.kind == KIND and one.parameters.get("reference") == now.reference]
    job = jobs[0] if jobs else None
    idle = bool(now.reference) and (job is None or job.is_finished)
    return {part.alike: alike_html(job), part.compare: gr.Button(interactive=idle)}
