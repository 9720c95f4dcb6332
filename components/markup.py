"""Small pieces of HTML that several stations use; everything that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from studio.errors import EspalierError
from studio.recipes.decision import ForcedError


def count_text(count: float) -> str:
    """A large number as people say it: "17.4 million"."""
    for limit, word in ((1e9, " billion"), (1e6, " million")):
        if abs(count) >= limit:
            return f"{count / limit:.3g}{word}"
    return f"{count:,.0f}"


def class_label(klass: str) -> str:
    """How a class is written on the page; with a capital, also because gradio translates words like "code"."""
    return klass[:1].upper() + klass[1:]


def percent_text(share: float) -> str:
    """A share of one: "87.4 %"; never 100 % for what is not all, nor 0 % for what is something."""
    value = 100 * share
    if 99.95 <= value < 100:
        return "> 99.9 %"
    if 0 < value < 0.05:
        return "< 0.1 %"
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.1f} %"


def duration_text(seconds: float) -> str:
    """A length of time: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def station_head(number: int, title: str, lead: str) -> str:
    """The heading of a station: its place in the journey, its name, and what it is for."""
    return (
        f'<div class="station-head"><span class="station-number" aria-hidden="true">{number}</span>'
        f"<h2>{escape(title)}</h2><p>{escape(lead)}</p></div>"
    )


def facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    """(label, value, remark) triples as a row that wraps."""

    def fact(label: str, value: str, remark: str) -> str:
        small = f" <small>{escape(remark)}</small>" if remark else ""
        return f"<div><dt>{escape(label)}</dt><dd>{escape(value)}{small}</dd></div>"

    items = "".join(fact(*pair) for pair in pairs)
    return f'<dl class="facts">{items}</dl>'


def meters(shares: Iterable[tuple[str, float, bool]]) -> str:
    """(label, share of one, whether it is low) as a list of bars with their numbers."""

    def meter(label: str, share: float, low: bool) -> str:
        width = 100 * min(max(share, 0.0), 1.0)
        bar = f'<span class="meter{" low" if low else ""}" aria-hidden="true"><i style="width:{width:.2f}%"></i></span>'
        return f'<li><span>{escape(label)}</span>{bar}<span class="number">{percent_text(share)}</span></li>'

    return f'<ul class="meters">{"".join(meter(*one) for one in shares)}</ul>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = (), caption: str = "") -> str:
    """A plain table whose cells are HTML already; columns in `numeric` are set to the right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if index in numeric else ''}>{cell}</{tag}>" for index, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    heads = cells("th", [escape(name) for name in head])
    parts = f"{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="plain">{parts}</table></div>'


def copyable(text: str, label: str) -> str:
    """Text as it is typed, with a button that copies it; `label` says what it is. `assets/copy.js` does it."""
    button = f"<button type='button' data-copy aria-label='Copy {escape(label, quote=True)}'>Copy</button>"
    return f"<div class='copyable'><code class='command'>{escape(text.rstrip())}</code>{button}</div>"


def notice(what: str, remedy: str = "", kind: str = "") -> str:
    """A box that says something and what to do; `kind` is "", "warning" or "error"."""
    role = "alert" if kind == "error" else "status"
    more = f"<p>{escape(remedy)}</p>" if remedy else ""
    return f'<div class="notice {kind}" role="{role}"><p><strong>{escape(what)}</strong></p>{more}</div>'


def failure(error: EspalierError) -> str:
    """The one way in which the page shows an error that a person can meet."""
    what, remedy = _forced(error) if isinstance(error, ForcedError) else (error.what, error.remedy)
    return notice(what, remedy, "error")


def _forced(error: ForcedError) -> tuple[str, str]:
    """(what, remedy) of too many experts that are kept or dropped by hand, in the words of the page."""
    dropped = error.field == "force_drop"
    what = (
        f"By hand, {error.named} experts of {error.part} would {'leave' if dropped else 'stay'}, "
        f"and {error.room} {'leave' if dropped else 'stay in'} every layer."
    )
    release = f"release {error.named - error.room} of them on the map"
    if error.needed > error.most:
        return what, f"At most {error.most} can leave a layer of this model: {release}."
    limit = f"{error.needed} or {'more' if dropped else 'fewer'}"
    return what, f"Set “Experts to drop in every layer” to {limit} first, or {release}."
