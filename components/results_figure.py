"""What is lost for how many GiB: quality with its interval against the size of the file, a figure per measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from components.curves import Boxes, Dot, Line, Tick, curves
from components.markup import class_label
from components.results_view import ground_text
from studio.evaluate.results import ModelRecord, Result, Value
from studio.evaluate.results_table import Column, ResultsTable, value_text
from studio.units import size_text

_ROOM = 0.08
"""Share of the figure that is left free around the numbers."""
_HEIGHT = 240
_TICKS = 4
"""About so many sizes are written below a figure."""


@dataclass(frozen=True)
class _Point:
    model: ModelRecord
    value: float
    low: float
    high: float
    text: str


def figures_html(table: ResultsTable) -> str:
    """A figure for the first measure of every ground on which two or more models were measured."""
    drawn = []
    for ground in dict.fromkeys(column.ground for column in table.columns):
        column = next(column for column in table.columns if column.ground == ground)
        points = [_point(row.model, row.values[column]) for row in table.rows if _known(row.values.get(column))]
        example = next(one for row in table.rows for one in row.results if one.ground == ground)
        if len(points) > 1:
            drawn.append(_figure(column, example, sorted(points, key=lambda one: -one.model.bytes), table.reference))
    return f"<div class='insights'>{''.join(drawn)}</div>" if drawn else ""


def _known(value: Value | None) -> bool:
    return value is not None and value.value is not None


def _point(model: ModelRecord, value: Value) -> _Point:
    number = value.value
    assert number is not None, "only what was measured is drawn"
    low, high = (number if end is None else end for end in (value.low, value.high))
    return _Point(model, number, low, high, value_text(value))


def finding(column: Column, points: Sequence[_Point], reference: ModelRecord | None) -> str:
    """The smallest file beside the reference, or the largest: how much smaller, and at which price."""
    small = points[-1]
    large = next((one for one in points[:-1] if one.model == reference), points[0])
    share = 100 * small.model.bytes / large.model.bytes
    numbers = [one.text.partition(" (")[0] for one in (small, large)]
    has = f"{small.model.name} has {share:.0f} % of the bytes of {large.model.name}, and "
    if numbers[0] == numbers[1]:
        return f"{has}the same {column.measure}, {numbers[0]}"
    return f"{has}{column.measure} {numbers[0]} instead of {numbers[1]}"


def _figure(column: Column, example: Result, points: Sequence[_Point], reference: ModelRecord | None) -> str:
    widest = max(one.model.bytes for one in points) * (1 + _ROOM) or 1
    low, high = _range(points, column.unit)
    places = [(one.model.bytes / widest, (one.value - low) / (high - low)) for one in points]
    ends = [((one.low - low) / (high - low), (one.high - low) / (high - low)) for one in points]
    intervals = [
        Line([(across, begin), (across, end)], "interval")
        for (across, _), (begin, end) in zip(places, ends, strict=True)
    ]
    known = next((number for number, one in enumerate(points) if one.model == reference), None)
    band = [] if known is None else [Boxes([(0, 1, *ends[known])], "band")]
    title = finding(column, points, reference)
    shaded = "" if known is None else f" The band is the interval of {escape(points[known].model.name)}."
    figure = curves(
        [*band, *intervals],
        [Dot(across, up, text=str(number)) for number, (across, up) in enumerate(places, start=1)],
        label=f"{column.measure} against file size. {title}.",
        across="Size of the file",
        up=f"{class_label(column.measure)}: {ground_text(example)}",
        ticks_across=[Tick(size / widest, size_text(size)) for size in round_sizes(widest)],
        ticks_up=[Tick(share, _tick(low + share * (high - low), column.unit)) for share in (0, 0.5, 1)],
        caption=f"Lines are 95 % intervals.{shaded} {_direction(column)}",
        height=_HEIGHT,
    )
    names = "".join(
        f"<li><span>{escape(one.model.name)}</span> {size_text(one.model.bytes)}, {escape(one.text)}</li>"
        for one in points
    )
    return f"<section><h3>{escape(title)}</h3>{figure}<ol class='points'>{names}</ol></section>"


def _direction(column: Column) -> str:
    return {"higher": "Higher is better.", "lower": "Lower is better."}.get(column.better, "")


def round_sizes(widest: float) -> list[int]:
    """Some round numbers of bytes from 0 to `widest`, for the axis."""
    unit = 1024 ** int(math.log(max(widest, 1), 1024))
    step = 10 ** math.floor(math.log10(widest / unit / 2))
    step = next(step * times for times in (1, 2, 5, 10) if widest / unit / (step * times) <= _TICKS)
    return [round(count * step * unit) for count in range(math.floor(widest / unit / step) + 1)]


def _range(points: Sequence[_Point], unit: str) -> tuple[float, float]:
    """Where the axis of the numbers begins and ends; a share goes no further than 0 and 1."""
    low, high = min(one.low for one in points), max(one.high for one in points)
    room = _ROOM * (high - low) or abs(high) * _ROOM or 1.0
    low, high = low - room, high + room
    return (max(0.0, low), min(1.0, high)) if unit == "share" else (max(0.0, low), high)


def _tick(number: float, unit: str) -> str:
    return f"{100 * number:.0f} %" if unit == "share" else f"{number:.3g}"
