"""Lines over a number of experts, as SVG that takes the page's colours by itself and needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LABEL_WIDTH = 8
"""Of a number below a figure, in % of its width on the narrowest page."""
_LABEL_HEIGHT = 9
"""Of a number beside it, in % of its height."""


@dataclass(frozen=True)
class Tick:
    """Something written beside an axis, at a share of its length; the first of two that would touch is written."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line through points whose coordinates are shares of the figure, from the left and from the bottom."""

    points: Sequence[tuple[float, float]]
    kind: str
    """Its CSS classes."""


@dataclass(frozen=True)
class Dot:
    """A marked point of a line."""

    across: float
    up: float
    kind: str = ""


def curves(
    lines: Iterable[Line],
    dots: Iterable[Dot],
    *,
    label: str,
    across: str,
    up: str,
    ticks_across: Sequence[Tick],
    ticks_up: Sequence[Tick],
    caption: str,
) -> str:
    """The figure. `label` is what it says to those who do not see it, `across` and `up` name the axes, `caption` is
    HTML."""
    drawn = "".join(f"<path class='{line.kind}' d='M{' L'.join(map(_point, line.points))}'/>" for line in lines)
    marked = "".join(
        f"<i class='dot {dot.kind}' style='left:{100 * dot.across:.2f}%;top:{100 - 100 * dot.up:.2f}%'></i>"
        for dot in dots
    )
    beside = "".join(
        f"<span style='top:{100 - 100 * tick.place:.1f}%'>{escape(tick.text)}</span>"
        for tick in apart(ticks_up, _LABEL_HEIGHT)
    )
    below = "".join(map(_below, apart(ticks_across, _LABEL_WIDTH)))
    return (
        f"<figure class='curve named' role='img' aria-label=\"{escape(label)}\">"
        f"<p class='up' aria-hidden='true'>{escape(up)}</p>"
        f"<div class='shares' aria-hidden='true'>{beside}</div>"
        f"<div class='drawn' aria-hidden='true'><svg viewBox='0 0 100 100' preserveAspectRatio='none'>{drawn}</svg>"
        f"{marked}</div><div class='counts' aria-hidden='true'>{below}</div>"
        f"<p class='across' aria-hidden='true'>{escape(across)}</p><figcaption>{caption}</figcaption></figure>"
    )


def apart(ticks: Sequence[Tick], least: float) -> list[Tick]:
    """Those whose text does not touch that of one before them; `least` is their distance in %."""
    kept: list[Tick] = []
    for tick in ticks:
        if all(abs(tick.place - other.place) * 100 >= least for other in kept):
            kept.append(tick)
    return kept


def _below(tick: Tick) -> str:
    kind = " class=end" if tick.place > 0.99 else ""
    return f"<span{kind} style='left:{100 * tick.place:.1f}%'>{escape(tick.text)}</span>"


def _point(point: tuple[float, float]) -> str:
    return f"{100 * point[0]:.2f},{100 - 100 * point[1]:.2f}"
