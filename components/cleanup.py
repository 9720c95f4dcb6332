"""What takes room in the workspace, and removing it: a folded part at the end of the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components.markup import failure, notice
from components.page import Studio
from studio.errors import EspalierError
from studio.jobs.cleanup import Item, clean, inventory
from studio.limits import QUOTA
from studio.staging import used_bytes
from studio.units import size_text

ALL = "*"
"""What the button asks for that removes all that comes back by itself."""
_AGAIN = {"by itself": "Comes back by itself", "when asked": "Can be made again", "never": "Gone for good"}
_CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-key]');
  if (button) trigger('click', { key: button.dataset.key, sure: button.dataset.sure });
});
"""
_HEAD = "<thead><tr><th>What</th><th class='number'>Size</th><th>If it goes</th><th></th></tr></thead>"


@dataclass(frozen=True)
class CleanupPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    list: gr.HTML


def cleanup_html(items: Sequence[Item], used: int, quota: int | None, asked: str = "", said: str = "") -> str:
    """All that can be removed, with a question in the row that was `asked` about; `said` is what just happened."""
    most = f" of {size_text(quota)} that it may take" if quota else ""
    head = f"<p>This workspace takes <strong>{size_text(used)}</strong>{most}.</p>"
    if not items:
        return f"{said}{head}<p class='quiet'>There is nothing in it that could go.</p>"
    back = [item for item in items if item.comes_back]
    everything = ""
    if back:
        total = size_text(sum(item.bytes for item in back))
        label = f"Remove all that comes back by itself: {total}"
        everything = _sure(ALL, label) if asked == ALL else _button(ALL, label)
    rows = "".join(_row(item, asked == item.key) for item in items)
    return (
        f"{said}{head}<div class='cleanup-all'>{everything}</div>"
        f"<div class='scroll' tabindex='0' role='region' aria-label='What takes room'>"
        f"<table class='cleanup'>{_HEAD}<tbody>{rows}</tbody></table></div>"
    )


def _row(item: Item, asked: bool) -> str:
    if item.used_by:
        action, fate = "", f"<span class='badge running'>in use</span> {escape(item.used_by)}"
    else:
        action = _sure(item.key, "Remove it?") if asked else _button(item.key, "Remove", f"Remove {item.key}")
        fate = f"<strong>{_AGAIN[item.again]}.</strong> {_with_code(item.source)}"
    return (
        f"<tr class='{'gone' if item.again == 'never' else ''}'>"
        f"<td><span>{escape(item.key)}</span><small>{escape(item.kind)}</small></td>"
        f"<td class='number'>{size_text(item.bytes)}</td><td>{fate}</td><td class='cleanup-act'>{action}</td></tr>"
    )


def _with_code(said: str) -> str:
    """A sentence of the engine, with what it sets in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(said))


def _button(key: str, label: str, name: str = "") -> str:
    named = f" aria-label='{escape(name)}'" if name else ""
    return f"<button type='button' data-key='{escape(key)}' data-sure='ask'{named}>{escape(label)}</button>"


def _sure(key: str, question: str) -> str:
    """The question whether that is meant, and both answers."""
    key = escape(key)
    return (
        f"<span class='cleanup-sure' role='alert'><span>{escape(question)}</span>"
        f"<button type='button' class='danger' data-key='{key}' data-sure='yes'>Yes, remove</button>"
        f"<button type='button' data-key='{key}' data-sure='no'>Keep</button></span>"
    )


def cleanup_part() -> CleanupPart:
    """Lay the part out, closed: nothing is looked for until somebody opens it."""
    with gr.Column(elem_classes="station"), gr.Accordion("Disk space", open=False, elem_id="cleanup") as accordion:
        shown = gr.HTML(js_on_load=_CLICKS, apply_default_css=False, elem_id="cleanup-list")
    return CleanupPart(accordion, shown)


def wire_cleanup(studio: Studio, part: CleanupPart) -> None:
    """Look when the part is opened, and ask before anything goes."""
    workspace = studio.library.workspace
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def shown(asked: str = "", said: str = "") -> str:
        try:
            quota = QUOTA.value if workspace.whole is None else None  # it is the one of all people together
            return cleanup_html(inventory(studio.store), used_bytes(workspace.root), quota, asked, said)
        except (EspalierError, OSError) as error:
            return failure(error if isinstance(error, EspalierError) else EspalierError(str(error)))

    def on_click(event: gr.EventData) -> str:
        key, sure = str(event.key), str(event.sure)
        if sure != "yes":
            return shown(key if sure == "ask" else "")
        try:
            keys = [item.key for item in inventory(studio.store) if item.comes_back] if key == ALL else [key]
            gone = clean(studio.store, keys)
        except EspalierError as error:
            return shown(said=failure(error))
        freed = size_text(sum(item.bytes for item in gone))
        what = gone[0].key if len(gone) == 1 else f"{len(gone)} things"
        return shown(said=notice(f"Removed {what}: {freed}."))

    part.accordion.expand(shown, None, part.list, **live)
    part.list.click(on_click, None, part.list, **live)
