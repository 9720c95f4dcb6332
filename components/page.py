"""What the whole page stands on."""

from __future__ import annotations

from dataclasses import dataclass

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
