"""The recipes that a search has measured: quality against size as a figure, and as a list of the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from components.figures import Figure
from components.markup import class_label, percent_text, table
from components.trial_view import nats
from studio.evaluate.search_points import Point, Stage, best, frontier
from studio.evaluate.search_run import Unseen
from studio.units import size_text

KINDS: Mapping[Stage, tuple[str, str, str]] = {
    "fixed": ("Fixed criterion", "square", "--ink-soft"),
    "weights": ("One class weighted", "diamond", "--amber"),
    "optimised": ("Optimiser", "circle", "--leaf-fill"),
    "refined": ("Swaps of experts", "triangle-up", "--clay"),
}
"""How a recipe came up → its name, mark and colour."""
_HEIGHT = 400
_LANE = 0.03
"""Recipes of one size stand side by side by their kind, so far apart: a share of the range of sizes."""
_AROUND = 0.16
"""Room beside the smallest and largest size, a share of the same range."""
_LISTED = 200
_SEARCHED = ("optimised", "refined")
"""What the table at the end calls recipes that are no fixed criterion."""
_CLOSER = "Closer to the reference than the best fixed criterion"
_NO_GAIN = "On prompts that it has not seen, no recipe is closer to the reference than the fixed criteria."
_POWERS = 5
"""Up to so many powers of ten, numbers between them are written, too."""


@dataclass(frozen=True)
class Found:
    """What is drawn: the points, for one class or (None) all, and how large each drop count makes the model."""

    points: Sequence[Point]
    experts: int
    klass: str | None
    tier: str
    """Empty for sizes in experts."""
    sizes: Mapping[int, int]
    """Drop count → bytes in `tier`; empty where they are not known."""
    here: str
    """Content hash of the map that is shown on the page."""

    def across(self, drop: int) -> float:
        """Where a drop count stands."""
        return float(self.sizes[drop] if self.sizes else self.experts - drop)

    def size(self, drop: int) -> str:
        """A drop count in words."""
        kept = f"{self.experts - drop} of {self.experts} experts"
        return f"{kept}, {size_text(self.sizes[drop])}" if self.sizes else kept

    def is_here(self, point: Point) -> bool:
        """Whether the page shows this point's map."""
        return point.measurement.map_hash == self.here


def found_json(found: Found) -> str:
    """The figure as the browser draws it; empty while there is nothing to draw."""
    drawn = [point for point in found.points if 0 < point.kl(found.klass) < math.inf]
    if not drawn:
        return ""
    drops = sorted({point.drop for point in drawn})
    places = [found.across(drop) for drop in drops]
    span = max(places) - min(places) or max(1.0, 0.1 * max(places))
    lanes = {kind: (lane - 1.5) * _LANE * span for lane, kind in enumerate(KINDS)}

    def at(points: Sequence[Point]) -> dict[str, list[float]]:
        return {
            "x": [found.across(point.drop) + lanes[point.stage] for point in points],
            "y": [point.kl(found.klass) for point in points],
        }

    line = [point for point in frontier(drawn, found.klass) if point in drawn]
    traces: list[Figure] = [
        {
            **at(line),
            "type": "scatter",
            "mode": "lines",
            "name": "Best for its size",
            "hoverinfo": "skip",
            "line": {"color": "--ink", "width": 1.25, "dash": "dot"},
        }
    ]
    for kind, (name, mark, colour) in KINDS.items():
        if of_kind := [point for point in drawn if point.stage == kind]:
            traces.append({**at(of_kind), **_marks(name, mark, colour), **_told(found, of_kind)})
    if here := [point for point in drawn if found.is_here(point)]:
        ring = {"symbol": "circle-open", "size": 19, "color": "--ink", "line": {"width": 2.5}}
        traces.append(
            {**at(here), "type": "scatter", "mode": "markers", "name": "Shown", "marker": ring, "hoverinfo": "skip"}
        )
    heights = [point.kl(found.klass) for point in drawn]
    layout = _layout(found, drops, (min(places) - _AROUND * span, max(places) + _AROUND * span), heights)
    layout["meta"] = {"title": found_title(found), "points": len(drawn)}
    return json.dumps({"data": traces, "layout": layout}, separators=(",", ":"), allow_nan=False)


def found_title(found: Found) -> str:
    """What the search has brought, in a sentence."""
    of = f" for {found.klass}" if found.klass else ""
    gains = []
    for drop in sorted({point.drop for point in found.points}):
        of_drop = [point for point in found.points if point.drop == drop]
        if not any(point.stage == "fixed" for point in of_drop):
            continue
        first, last = best(of_drop, drop, ["fixed"], found.klass), best(of_drop, drop, klass=found.klass)
        if first.kl(found.klass) > last.kl(found.klass):
            gains.append(_gain(drop, first.kl(found.klass), last.kl(found.klass)))
    if not gains:
        return f"No recipe is closer to the reference{of} than the fixed criteria yet"
    return f"{_CLOSER}{of} on the prompts that it goes by: {', '.join(gains)}"


def list_html(found: Found) -> str:
    """The same as buttons: the best of every size, then all, the closest first."""
    if not found.points:
        return ""
    ordered = sorted(found.points, key=lambda point: (point.drop, _rank(point.kl(found.klass)), point.number))
    firsts = [best(ordered, drop, klass=found.klass) for drop in sorted({point.drop for point in ordered})]
    more = f", the first {_LISTED} of them" if len(ordered) > _LISTED else ""
    return (
        f"{_rows(found, firsts, 'The best of each size; choose one to open its recipe')}"
        f"<details class='numbers'><summary>All {len(ordered)} recipes{more}</summary>"
        f"{_rows(found, ordered[:_LISTED])}</details>"
    )


def unseen_html(rows: Sequence[Unseen]) -> str:
    """The table at a search's end, on prompts that it has not seen."""
    if not rows:
        return ""
    gains = []
    for drop in sorted({one.drop for one in rows}):
        of_drop = [one for one in rows if one.drop == drop and one.label != "random"]
        first = min(_rank(one.found.kl) for one in of_drop if one.label not in _SEARCHED)
        last = min((_rank(one.found.kl) for one in of_drop if one.label in _SEARCHED), default=math.inf)
        if last < first < math.inf:
            gains.append(_gain(drop, first, last))
    said = f"{_CLOSER} on prompts that it has not seen: {', '.join(gains)}." if gains else _NO_GAIN
    classes = list(rows[0].found.classes)
    cells = [
        (
            str(one.drop),
            escape(one.label),
            nats(one.found.kl),
            *(nats(one.found.classes[klass].kl_mean) for klass in classes),
        )
        for one in rows
    ]
    head = ("Dropped", "Chosen by", "Mean", *map(class_label, classes))
    shown = table(head, cells, numeric=(0, *range(2, len(head))))
    return (
        f"<p><strong>{said}</strong></p><details class='numbers'><summary>On prompts that the search has not seen"
        f"</summary>{shown}</details>"
    )


def _gain(drop: int, first: float, last: float) -> str:
    return f"{percent_text(1 - last / first)} with {drop} dropped"


def _rows(found: Found, points: Sequence[Point], caption: str = "") -> str:
    def button(point: Point) -> str:
        current = " aria-current='true'" if found.is_here(point) else ""
        return f"<button type='button' data-point='{point.number}'{current}>{escape(point.label)}</button>"

    rows = [
        (button(point), KINDS[point.stage][0], escape(found.size(point.drop)), nats(point.kl(found.klass)))
        for point in points
    ]
    return table(("Recipe", "Kind", "Keeps", "KL mean"), rows, numeric=(3,), caption=caption)


def _marks(name: str, mark: str, colour: str) -> Figure:
    marker = {"symbol": mark, "color": colour, "size": 10, "line": {"color": "--card", "width": 1}}
    return {"type": "scatter", "mode": "markers", "name": name, "marker": marker}


def _told(found: Found, points: Sequence[Point]) -> Figure:
    """What stands under the pointer, and the numbers that a click sends."""
    lines = [
        f"<b>{escape(point.label)}</b><br>{found.size(point.drop)}<br>{nats(point.kl(found.klass))} nats per token"
        "<br>Click to open its recipe"
        for point in points
    ]
    return {
        "hovertext": lines,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "customdata": [p.number for p in points],
    }


def _layout(found: Found, drops: Sequence[int], across: tuple[float, float], heights: Sequence[float]) -> Figure:
    axis: dict[str, Any] = {"fixedrange": True, "zeroline": False, "color": "--ink-soft", "gridcolor": "--rule"}
    title = f"Size as {found.tier}" if found.sizes else "Experts kept in every layer"
    ticks = _ticks(min(heights), max(heights))
    words = [f"{found.experts - drop}" for drop in drops]
    if found.sizes:
        words = [f"{size_text(found.sizes[drop])}<br>{kept} kept" for drop, kept in zip(drops, words, strict=True)]
    return {
        "height": _HEIGHT,
        "margin": {"l": 66, "r": 8, "t": 8, "b": 96},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "--ink", "size": 12},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--edge", "font": {"color": "--ink", "size": 13}},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": -0.24,
            "yanchor": "top",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "xaxis": {
            **axis,
            "showgrid": False,
            "title": {"text": title, "standoff": 6},
            "range": list(across),
            "tickvals": [found.across(drop) for drop in drops],
            "ticktext": words,
            "tickangle": 0,
        },
        "yaxis": {
            **axis,
            "type": "log",
            "title": {"text": "KL divergence, nats per token"},
            "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks],
        },
    }


def _ticks(low: float, high: float) -> list[float]:
    """Numbers to write beside a logarithmic axis: 1, 2 and 5 of each power of ten; of wide ranges only the powers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (1, 2, 5) if len(powers) <= _POWERS else (1,)
    return [float(f"{digit}e{power}") for power in powers for digit in leading]


def _rank(value: float) -> float:
    return math.inf if math.isnan(value) else value
