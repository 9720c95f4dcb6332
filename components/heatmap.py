"""Station 2, See: the map of layers × experts, what it is coloured by, and the numbers of one cell."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.insights import InsightsPart, insights_part
from components.library import Opened
from components.markup import class_label, station_head
from components.state import ALL, View
from components.theme import panel, plotly_script, script, static_url
from components.why import WhyPart, why_part

NOBODY = ""
"""The second class selector's choice of no second class."""

_LEAD = (
    "An expert is a small network inside a layer; for every token a router picks a few of them. "
    "The stronger the colour of a cell, the more that expert adds to the answers."
)
_LEGEND = (
    '<p class="legend"><span><i class="gone"></i>dropped by your choice</span>'
    "<span>Point at a cell for its numbers; click it, or press Enter, to see why it stays or leaves.</span></p>"
)
_PLOT = (
    '<h3 class="plot-title" data-empty="Open an analysis to see what each expert does."></h3>'
    '<div class="plot" tabindex="0" role="application" aria-label="Map of layers and experts. '
    'Arrow keys move between cells, Enter shows the numbers of one."></div>'
)
_SCALES = [("Share of its layer", "share"), ("Contribution", "raw"), ("Rank in its layer", "rank")]


@dataclass(frozen=True)
class SeeStation:
    """What other stations and the wiring need of this one."""

    klass: gr.Dropdown
    minus: gr.Dropdown
    scale: gr.Radio
    plot: gr.HTML
    cell: gr.HTML
    why: WhyPart
    """What the map does to classes and layers."""
    insights: InsightsPart
    """What the analysis says as a whole."""

    @property
    def controls(self) -> list[gr.components.Component]:
        return [self.klass, self.minus, self.scale]


def class_choices(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """What the first class selector offers."""
    return [("All classes", ALL), *((class_label(klass), klass) for klass in classes)]


def minus_choices(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """What the second class selector offers."""
    return [("Nothing", NOBODY), *((class_label(klass), klass) for klass in classes)]


def view_of(klass: str, minus: str | None, scale: str) -> View:
    """The view that the three selectors say; a class minus itself, or all minus one, is just the class."""
    second = None if minus in (NOBODY, None, klass) or klass == ALL else minus
    return View(klass, second, scale)  # type: ignore[arg-type]  # View checks the scale itself


def see_station(opened: Opened, map_json: str) -> SeeStation:
    """Lay the station out, showing `map_json`."""
    classes, chosen = opened.classes, opened.state.view
    with gr.Column(elem_id="see", elem_classes="station"):
        panel(station_head(2, "See what each expert does", _LEAD))
        with gr.Row(elem_classes="controls"):
            klass = gr.Dropdown(
                class_choices(classes), value=chosen.klass, label="Class", elem_id="map-class", min_width=120
            )
            minus = gr.Dropdown(minus_choices(classes), value=NOBODY, label="Minus", elem_id="map-minus", min_width=120)
            scale = gr.Radio(_SCALES, value=chosen.scale, label="Scale", elem_id="map-scale", min_width=320, scale=2)
        plot = gr.HTML(
            map_json,
            html_template=_PLOT,
            js_on_load=script("heatmap.js"),
            head=f'<script src="{static_url(plotly_script())}"></script>',
            elem_id="map",
            apply_default_css=False,
        )
        panel(_LEGEND)
        cell = panel(elem_id="cell", visible=False)
        why = why_part()
        insights = insights_part()
    return SeeStation(klass, minus, scale, plot, cell, why, insights)
