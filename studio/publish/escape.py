"""Texts that came from elsewhere, made harmless inside Markdown, a code block, or SVG."""

from __future__ import annotations

import html
import re

_MARKDOWN = re.compile(
    r"[\\`*\[\]|~$@]"  # emphasis, code, links, cells, mathematics, mentions
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word it means nothing
    r"|!(?=\[)|:(?=//)|(?<=www)\."  # pictures, and addresses that become links by themselves
    r"|^\s*[#+>=-]|(?<=^\d)[.)](?=\s|$)",  # headings, lists, quotes
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
"""Line ends too, and what turns the direction of writing round."""


def plain(text: object) -> str:
    """`text` as one line of Markdown that means nothing but itself: no markup, no HTML, no link, no mention."""
    line = _CONTROL.sub(" ", str(text))
    marked = _MARKDOWN.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)
    return html.escape(marked, quote=False)


def xml(text: object) -> str:
    """`text` inside an element or attribute of SVG."""
    return html.escape(_CONTROL.sub(" ", str(text)), quote=True)


def fenced(text: str, language: str = "") -> str:
    """A code block around `text`, whatever fences are in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
