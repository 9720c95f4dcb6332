"""The list of what was chosen in this session: each change in words, and a click goes to where it was made."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from components.history import History

_SHOWN = 200
"""The latest of so many steps are listed."""
_CLICKS = """
element.addEventListener('click', (event) => {
  const step = event.target.closest('button[data-step]');
  if (step) trigger('click', { step: Number(step.dataset.step) });
});
"""


@dataclass(frozen=True)
class StepsPart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    steps: gr.HTML


def steps_html(history: History) -> str:
    """The steps of `history`, the latest first, with the one that counts now marked."""
    here, texts = len(history.past), ("As the page was opened", *history.steps)
    first = max(0, min(here, len(texts) - _SHOWN))

    def item(place: int) -> str:
        undone, current = "class=undone" if place > here else "", "aria-current='step'" if place == here else ""
        button = f"<button type='button' data-step='{place}' {current}>{escape(texts[place])}</button>"
        return f"<li {undone}>{button}</li>"

    items = "".join(map(item, reversed(range(first, min(len(texts), first + _SHOWN)))))
    return f"<ol class='history-list' reversed tabindex='0' aria-label='Your choices, the latest first'>{items}</ol>"


def steps_part() -> StepsPart:
    """Lay the part out, closed: nothing is listed until somebody looks."""
    with gr.Accordion("History of your choices", open=False, elem_id="steps") as accordion:
        steps = gr.HTML(js_on_load=_CLICKS, apply_default_css=False, elem_id="steps-list")
    return StepsPart(accordion, steps)
