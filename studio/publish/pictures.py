"""The pictures of a model card: SVG that needs no script, font or network, on a ground of its own for dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studio.publish.escape import xml

# Okabe and Ito's colours, which colour-blind readers tell apart, on a ground of their own.
_KEPT, _DROPPED, _POINT, _OTHER = "#0072B2", "#E8E4DC", "#D55E00", "#009E73"
_INK, _GROUND, _LINE = "#222222", "#FFFFFF", "#CCCCCC"
_FONT = "font-family='system-ui, sans-serif' font-size='12'"
_WIDTH = 720.0


@dataclass(frozen=True)
class Point:
    """A model in the picture of size against quality."""

    label: str
    gib: float
    value: float
    low: float | None = None
    high: float | None = None
    is_reference: bool = False


def kept_picture(dropped: Mapping[str, Sequence[int]], experts: int, title: str) -> str:
    """A grid of layers (rows) and experts (columns), coloured where an expert was kept."""
    left, top = 70.0, 46.0
    cell, row = (_WIDTH - left - 10) / experts, min(16.0, 420 / max(1, len(dropped)))
    parts = []
    for number, (layer, ids) in enumerate(dropped.items()):
        y = top + number * row
        gone = set(ids)
        if number % max(1, len(dropped) // 15) == 0:
            parts.append(_text(left - 6, y + row * 0.75, layer, anchor="end"))
        parts.append(_box(left, y, experts * cell, row - 1, _DROPPED))
        for first, last in _runs([expert for expert in range(experts) if expert not in gone]):
            parts.append(_box(left + first * cell, y, (last - first + 1) * cell, row - 1, _KEPT))
    bottom = top + len(dropped) * row
    parts.append(_text(left, bottom + 18, "expert 0"))
    parts.append(_text(left + experts * cell, bottom + 18, f"expert {experts - 1}", anchor="end"))
    parts += [_box(left + 200, bottom + 9, 10, 10, _KEPT), _text(left + 215, bottom + 18, "kept")]
    parts += [_box(left + 265, bottom + 9, 10, 10, _DROPPED), _text(left + 280, bottom + 18, "dropped")]
    return _drawing(bottom + 30, title, [*parts, _text(8, top - 8, "layer")])


def classes_picture(shares: Mapping[str, float], title: str) -> str:
    """A bar per class: the share of its contribution that the kept experts make, from 0 to 100 %."""
    left, top, row = 140.0, 44.0, 26.0
    width = _WIDTH - left - 70
    parts = []
    for number, (name, share) in enumerate(sorted(shares.items(), key=lambda item: item[1])):
        y = top + number * row
        parts += [
            _text(left - 8, y + 14, name, anchor="end"),
            _box(left, y, width, row - 8, _DROPPED),
            _box(left, y, width * min(1.0, max(0.0, share)), row - 8, _KEPT),
            _text(left + width + 8, y + 14, f"{share:.1%}"),
        ]
    return _drawing(top + len(shares) * row + 10, title, parts)


def sizes_picture(points: Sequence[Point], title: str, unit: str) -> str:
    """Size in GiB (across) against a measure (up), with the interval of each value."""
    left, top, width, height = 70.0, 50.0, _WIDTH - 190, 260.0
    values = [one for point in points for one in (point.low, point.value, point.high) if one is not None]
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high, widest = low - margin, high + margin, max(point.gib for point in points) * 1.05

    def place(gib: float, value: float) -> tuple[float, float]:
        return left + width * gib / widest, top + height * (1 - (value - low) / (high - low))

    parts = [_box(left, top, width, height, _GROUND, stroke=_LINE)]
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(_text(left - 8, place(0, value)[1] + 4, _number(value, unit), anchor="end"))
        gib = widest * step / 4
        parts.append(_text(place(gib, low)[0], top + height + 18, f"{gib:.3g}", anchor="middle"))
    for point in points:
        x, y = place(point.gib, point.value)
        colour = _OTHER if point.is_reference else _POINT
        if point.low is not None and point.high is not None:
            y1, y2 = place(0, point.high)[1], place(0, point.low)[1]
            parts.append(
                f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{y1:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='2'/>"
            )
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='{colour}'/>")
        parts.append(_text(x + 9, y + 4, point.label))
    parts.append(_text(left + width / 2, top + height + 38, "GiB on disk", anchor="middle"))
    return _drawing(top + height + 50, title, parts)


def _number(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "share" else f"{value:.3g}"


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of neighbours in ascending `numbers`."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _box(x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "none") -> str:
    return f"<rect x='{x:.2f}' y='{y:.2f}' width='{width:.2f}' height='{height:.2f}' fill='{fill}' stroke='{stroke}'/>"


def _text(x: float, y: float, text: object, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' fill='{_INK}' text-anchor='{anchor}'>{xml(text)}</text>"


def _drawing(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH:.0f} {height:.0f}' width='{_WIDTH:.0f}' "
        f"height='{height:.0f}' role='img' {_FONT}>\n<title>{xml(title)}</title>\n"
        + _box(0, 0, _WIDTH, height, _GROUND)
        + f"\n<text x='8' y='20' fill='{_INK}' font-size='15' font-weight='600'>{xml(title)}</text>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )
