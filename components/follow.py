"""Panels that follow what is chosen while somebody looks at them, and ask nothing of the server while nobody does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

_GUARD = "() => {{ if (!document.querySelector({selector})) throw new Error('Nobody looks.'); }}"
"""Runs in the browser; what it throws ends there, and whatever would come after success does not come."""


def open_accordion(element: str) -> str:
    """The CSS selector that finds the accordion with the id `element` while it is open."""
    return f"#{element} > button.open"


def follow(
    events: Sequence[Callable[..., Any]],
    looked_at: str,
    handler: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
) -> None:
    """Call `handler` after each of `events`, as long as the CSS selector `looked_at` finds something on the page."""
    settings: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    guard = gr.on(events, None, js=_GUARD.format(selector=json.dumps(looked_at)), **settings)
    guard.success(handler, inputs, outputs, trigger_mode="always_last", **settings)
