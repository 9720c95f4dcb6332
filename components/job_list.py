"""A list of jobs that is looked at every second, whose buttons stay where they are."""

from __future__ import annotations

from typing import Any

import gradio as gr

from components.theme import script


def job_list(value: str = "", **settings: Any) -> gr.HTML:
    """HTML whose buttons with `data-action` and `data-job` trigger a click with both; what a new value says as the one
    before did stays the same element."""
    return gr.HTML(
        value,
        html_template="<div class='jobs'></div>",
        js_on_load=script("job_list.js") + script("copy.js"),
        apply_default_css=False,
        **settings,
    )
