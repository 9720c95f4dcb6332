"""Lines, bars and grids as SVG that takes the page's colours by itself and needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LABEL_WIDTH = 8
"""Of a number below a figure, in % of its width on the narrowest page."""
_LABEL_PIXELS = 15
"""Height of a number beside it."""
HEIGHT = 180
_LONGEST = 16
"""Letters of a label beside a figure; what is longer is cut."""


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

    @property
    def path(self) -> str:
        return f"M{' L'.join(map(_point, self.points))}"


@dataclass(frozen=True)
class Boxes:
    """Boxes of one kind, each (left, right, bottom, top) in shares of the figure."""

    boxes: Sequence[tuple[float, float, float, float]]
    kind: str
    opacity: float = 1.0

    @property
    def path(self) -> str:
        return "".join(
            f"M{100 * left:.2f},{100 - 100 * low:.2f}H{100 * right:.2f}V{100 - 100 * high:.2f}H{100 * left:.2f}Z"
            for left, right, low, high in self.boxes
        )


@dataclass(frozen=True)
class Dot:
    """A marked point of a line."""

    across: float
    up: float
    kind: str = ""
    text: str = ""
    """What is written beside it."""


def curves(
    lines: Iterable[Line | Boxes],
    dots: Iterable[Dot],
    *,
    label: str,
    across: str,
    up: str,
    ticks_across: Sequence[Tick],
    ticks_up: Sequence[Tick],
    caption: str,
    height: int = HEIGHT,
) -> str:
    """The figure. `label` is what it says to those who do not see it, `across` and `up` name the axes, `caption` is
    HTML."""
    drawn = "".join(map(_drawn, lines))
    marked = "".join(
        f"<i class='dot {dot.kind}' style='left:{100 * dot.across:.2f}%;top:{100 - 100 * dot.up:.2f}%'>"
        f"{_beside(dot)}</i>"
        for dot in dots
    )
    beside = "".join(
        f"<span style='top:{100 - 100 * tick.place:.1f}%'>{escape(_short(tick.text))}</span>"
        for tick in apart(ticks_up, 100 * _LABEL_PIXELS / height)
    )
    below = "".join(map(_below, apart(ticks_across, _LABEL_WIDTH)))
    letters = min(_LONGEST, max((len(tick.text) for tick in ticks_up), default=0))
    return (
        f"<figure class='curve named' style='--letters:{letters}' role='img' aria-label=\"{escape(label)}\">"
        f"<p class='up' aria-hidden='true'>{escape(up)}</p>"
        f"<div class='shares' aria-hidden='true'>{beside}</div>"
        f"<div class='drawn' aria-hidden='true'>"
        f"<svg viewBox='0 0 100 100' preserveAspectRatio='none' style='height:{height}px'>{drawn}</svg>"
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


def _drawn(line: Line | Boxes) -> str:
    faded = f" fill-opacity='{line.opacity:.2f}'" if isinstance(line, Boxes) and line.opacity < 1 else ""
    return f"<path class='{line.kind}'{faded} d='{line.path}'/>"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _beside(dot: Dot) -> str:
    return f"<b>{escape(dot.text)}</b>" if dot.text else ""


def _below(tick: Tick) -> str:
    kind = " class=end" if tick.place > 0.99 else ""
    return f"<span{kind} style='left:{100 * tick.place:.1f}%'>{escape(tick.text)}</span>"


def _point(point: tuple[float, float]) -> str:
    return f"{100 * point[0]:.2f},{100 - 100 * point[1]:.2f}"
