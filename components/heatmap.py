"""Station 2, See: the map of layers × experts, what it is coloured by, and the numbers of one cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import gradio as gr

from components.insights import InsightsPart, insights_part
from components.library import Opened
from components.markup import class_label, station_head
from components.shown import marks_json
from components.state import ALL, StudioState, View
from components.theme import panel, plotly_script, script, static_url
from components.why import WhyPart, why_part
from studio.families import MoeShape
from studio.recipes.overrule import Fate, overruled

NOBODY = ""
"""The second class selector's choice of no second class."""

_LEAD = (
    "An expert is a small network inside a layer; for every token a router picks a few of them. "
    "The stronger the colour of a cell, the more that expert adds to the answers."
)
_LEGEND = (
    '<p class="legend"><span><i class="gone"></i>dropped by your choice</span>'
    '<span><i class="kept-by-hand"></i>kept by hand</span><span><i class="dropped-by-hand">×</i>dropped by hand</span>'
    "<span>Point at a cell for its numbers. Look: click to see why an expert stays or leaves. Keep, Drop, Release: "
    "click, or drag over cells or over the numbers of layers and experts.</span>"
    '<span class="keys">Keys on the map: arrows move, with Shift they select, K keeps, D drops, R releases, Enter '
    "does what is chosen above, Ctrl+Z undoes.</span></p>"
)
_MODES = "".join(
    f'<label title="{what}"><input type="radio" name="map-mode" value="{name.lower()}"'
    f"{' checked' if name == 'Look' else ''}><span>{name}</span></label>"
    for name, what in (
        ("Look", "A click shows what an expert does for every class"),
        ("Keep", "What you click or drag over stays, whatever its score"),
        ("Drop", "What you click or drag over leaves, whatever its score"),
        ("Release", "What you click or drag over is left to its score again"),
    )
)
_PLOT = (
    '<div class="map-tools"><fieldset id="map-mode"><legend>A click or drag on the map will</legend>'
    f"{_MODES}</fieldset>"
    '<span class="steps-of-work"><button type="button" class="undo">Undo</button>'
    '<button type="button" class="redo">Redo</button></span>'
    '<span class="by-hand" role="status"></span></div>'
    '<h3 class="plot-title" data-empty="Open an analysis to see what each expert does."></h3>'
    '<div class="plot-frame"><div class="plot" tabindex="0" role="application" aria-label="Map of layers and experts. '
    "Arrow keys move between cells, with Shift they select; K keeps, D drops, R releases, Enter shows the numbers of "
    'one or does what is chosen above the map."></div><div class="chosen" hidden></div></div>'
    '<p class="spoken" role="status"></p>'
)
_SCALES = [("Share of its layer", "share"), ("Contribution", "raw"), ("Rank in its layer", "rank")]


@dataclass(frozen=True)
class TypedPart:
    """Where layers and experts are typed, and what becomes of them."""

    layers: gr.Textbox
    experts: gr.Textbox
    buttons: Mapping[Fate, gr.Button]


@dataclass(frozen=True)
class SeeStation:
    """What other stations and the wiring need of this one."""

    klass: gr.Dropdown
    minus: gr.Dropdown
    scale: gr.Radio
    plot: gr.HTML
    cell: gr.HTML
    problem: gr.HTML
    """What could not be done on the map."""
    typed: TypedPart
    why: WhyPart
    """What the map does to classes and layers."""
    insights: InsightsPart
    """What the analysis says as a whole."""

    @property
    def controls(self) -> list[gr.Dropdown | gr.Radio]:
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


def marks_text(opened: Opened) -> str:
    """What lies on the map as JSON; empty without an analysis."""
    if opened.contributions is None or opened.drop is None:
        return ""
    return marks_json(opened.contributions, opened.drop, None if opened.state.imported else opened.state.recipe)


def work_json(state: StudioState, shape: MoeShape | None) -> str:
    """What can be undone and redone, how much is said by hand, and which message that answers, for the browser."""
    history, said = state.history, ""
    if shape is not None and state.imported is None:
        keep, drop = (int(mask.sum()) for mask in overruled(state.recipe, shape))
        parts = [f"{count} {what}" for count, what in ((keep, "kept"), (drop, "dropped")) if count]
        said = f"By hand: {' and '.join(parts)}." if parts else ""
    undo, redo = (steps[-1].what if steps else "" for steps in (history.past, history.future))
    return json.dumps({"undo": undo, "redo": redo, "said": said, "answered": state.answered})


def _typed_part() -> TypedPart:
    with gr.Accordion("Type layers and experts", open=False, elem_id="map-typed"), gr.Row(elem_classes="controls"):
        layers = gr.Textbox("all", label="Layers", max_lines=1, elem_id="typed-layers", min_width=120)
        experts = gr.Textbox(
            label="Experts", placeholder="1,2,250..255", max_lines=1, elem_id="typed-experts", min_width=160
        )
        buttons = {fate: gr.Button(fate.capitalize(), min_width=90) for fate in get_args(Fate)}
    return TypedPart(layers, experts, buttons)


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
            js_on_load=script("colours.js")
            + script("heatmap.js")
            + script("heatmap_marks.js")
            + script("heatmap_work.js"),
            head=f'<script src="{static_url(plotly_script())}"></script>',
            elem_id="map",
            apply_default_css=False,
            marks=marks_text(opened),
            work=work_json(opened.state, opened.shape),
        )
        problem = panel(visible=False, elem_id="map-problem")
        panel(_LEGEND)
        typed = _typed_part()
        cell = panel(elem_id="cell", visible=False)
        why = why_part()
        insights = insights_part()
    return SeeStation(klass, minus, scale, plot, cell, problem, typed, why, insights)
