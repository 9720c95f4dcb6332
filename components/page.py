"""What the whole page stands on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.library import Library
from components.sessions import Sessions
from components.state import StudioState
from studio.jobs.store import JobStore


@dataclass(frozen=True)
class Studio:
    """What every station is given."""

    library: Library
    store: JobStore
    first: StudioState
    """What a new tab shows to somebody who was not here before."""
    sessions: Sessions


def calm(page: gr.Blocks) -> None:
    """Keep gradio from looking for what shows no progress.

    Whenever an event begins or ends, its page looks up all that any event so far may show progress on, each from the
    root of the tree: by default all outputs. With some two hundred of them a click took twice the time to new pixels.
    """
    for event in page.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = []


def opening(handler: Callable[..., Any], inputs: Collection[Any]) -> tuple[Callable[..., Any], list[gr.State]]:
    """`handler` for the moment when a page opens, and its inputs: the states, as all else is as it was laid out.

    What was an input of any event that ran is looked up as well, and looking up is what a click waits for (see `calm`).
    """
    states = [one for one in inputs if isinstance(one, gr.State)]

    def opened(*values: Any) -> Any:
        found = dict(zip(states, values, strict=True))
        given = {one: found.get(one, one.value) for one in inputs}
        return handler(given) if isinstance(inputs, set) else handler(*given.values())

    return opened, states
