"""The sticky header: the name, the steps of the journey, the switch between light and dark."""

from __future__ import annotations

import gradio as gr

from components.theme import script

STEPS = (
    ("load", "Load"),
    ("see", "See"),
    ("choose", "Choose"),
    ("build", "Build"),
    ("talk", "Talk"),
    ("quality", "Measure"),
    ("publish", "Publish"),
)

# A palmette: the form into which an espaliered pear is trained. One shoot has been cut.
_MARK = """
<svg viewBox="0 0 32 32" fill="none" stroke-linecap="round" aria-hidden="true">
  <path stroke="var(--edge)" stroke-width="1" opacity="0.55" d="M2 9h28M2 16h28M2 23h28"/>
  <path stroke="var(--leaf)" stroke-width="2.4" d="M16 30V4M6 4v14a5 5 0 0 0 5 5h10a5 5 0 0 0 5-5v-5"/>
  <path stroke="var(--leaf)" stroke-width="2.4" d="M11 4v7a4 4 0 0 0 4 4h2a4 4 0 0 0 4-4V4"/>
  <path stroke="var(--clay)" stroke-width="2.4" d="M24.4 10.6l3.2-1.8"/>
</svg>"""

_SUN_AND_MOON = """
<svg viewBox="0 0 24 24" aria-hidden="true">
  <circle cx="12" cy="12" r="8.5" fill="none" stroke="currentColor" stroke-width="1.8"/>
  <path d="M12 3.5a8.5 8.5 0 0 1 0 17z" fill="currentColor"/>
</svg>"""


def masthead() -> gr.HTML:
    """The header, with ids of stations as the targets of its steps."""
    steps = "".join(
        f'<li><a href="#{station}" data-station="{station}"><span aria-hidden="true">{number}</span>{name}</a></li>'
        for number, (station, name) in enumerate(STEPS, start=1)
    )
    markup = (
        f'<header class="masthead"><div class="wordmark">{_MARK}Espalier</div>'
        f'<nav aria-label="Steps of the journey"><ol class="steps">{steps}</ol></nav>'
        '<button type="button" class="theme-toggle" aria-label="Dark colours" aria-pressed="false">'
        f"{_SUN_AND_MOON}</button></header>"
    )
    scripts = script("page.js") + script("connection.js")
    return gr.HTML(html_template=markup, js_on_load=scripts, elem_id="masthead", apply_default_css=False)
