"""Station 3, Choose: preset, drop count and class weights, what they mean, and taking a map or recipe along."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.compare import ComparePart, compare_part
from components.counts import CountsPart, counts_part
from components.library import Opened
from components.markup import station_head
from components.options import OptionsPart, options_part
from components.search import SearchPart, search_part
from components.shown import download_link
from components.state import OWN, StudioState, weights_json
from components.steps import StepsPart, steps_part
from components.theme import panel, script
from components.trial import TrialPart, trial_part
from studio.recipes.permalink import PREFIX, Permalink
from studio.recipes.presets import PRESETS

_LEAD = (
    "Choose how the experts are ranked and how many of the lowest leave every layer. "
    "The map above and the numbers here follow at once; nothing is built yet."
)
_WEIGHTS = '<fieldset class="weights"><legend>Weight of each class</legend><div class="weights-rows"></div></fieldset>'
_OWN = "A recipe of your own, or one that goes by what this analysis has."
_IMPORTED = "An imported map is shown. Move any control to go back to a recipe."


LONGEST_LINK = 8000
"""Letters; servers on the way may refuse a longer address."""


@dataclass(frozen=True)
class ShelfPart:
    """Recipes under a name."""

    name: gr.Textbox
    save: gr.Button
    saved: gr.Dropdown
    delete: gr.Button
    problem: gr.HTML


@dataclass(frozen=True)
class ChooseStation:
    """What other stations and the wiring need of this one."""

    preset: gr.Radio
    when: gr.HTML
    drop: gr.Slider
    weights: gr.HTML
    meaning: gr.HTML
    problem: gr.HTML
    saves: gr.HTML
    shelf: ShelfPart
    upload: gr.File
    options: OptionsPart
    """All that a recipe can say."""
    counts: CountsPart
    """What each number of experts keeps, and the number for a size."""
    compare: ComparePart
    steps: StepsPart
    trial: TrialPart
    """The map tried on the reference, before anything is built."""
    search: SearchPart

    @property
    def controls(self) -> list[gr.Radio | gr.Slider | gr.HTML]:
        return [self.preset, self.drop, self.weights]


def preset_choices(state: StudioState) -> list[tuple[str, str]]:
    """The published recipes, and the person's own where one was loaded."""
    own = [("Own recipe", OWN)] if state.preset == OWN else []
    return [*((f"{one.title} ({one.name})", one.name) for one in PRESETS.values()), *own]


def when_html(state: StudioState) -> str:
    """When to choose the chosen preset."""
    if state.imported is not None:
        return f"<p class='quiet'>{_IMPORTED}</p>"
    if state.preset == OWN:
        return f"<p class='quiet'>{_OWN}</p>"
    return f"<p class='quiet'>{PRESETS[state.preset].when}</p>"


def saves_html(opened: Opened) -> str:
    """Links that save the map in the published form, and the recipe that made it."""
    drop, state = opened.drop, opened.state
    if drop is None:
        return ""
    stem = f"{opened.name}-{drop.kept_count}e"
    links = [download_link(drop.to_json(), f"{stem}.drop-map.json", "Save the drop map")]
    if state.imported is None:
        links.append(download_link(state.recipe.to_json(), f"{stem}.recipe.json", "Save the recipe"))
        links.append(permalink_html(state))
    return f"<p class='saves'>{''.join(links)}</p>"


def permalink_html(state: StudioState) -> str:
    """A link that opens the page with this recipe; nothing where no address could be so long."""
    if state.analysis is None:
        return ""
    second = state.second if state.recipe.needs_second_analysis else None
    text = Permalink(state.recipe, state.analysis, second, model=state.reference).to_text().removeprefix(PREFIX)
    if len(text) > LONGEST_LINK:
        return "<span class='quiet'>Too much is said by hand for a link: save the recipe.</span>"
    return f'<a class="permalink" href="?recipe={text}" target="_blank">Link to this recipe</a>'


def _shelf_part(names: list[str]) -> ShelfPart:
    with gr.Row(elem_classes="controls shelf"):
        name = gr.Textbox(label="Name this recipe", max_lines=1, elem_id="shelf-name", min_width=140, scale=3)
        save = gr.Button("Save", elem_id="shelf-save", min_width=80, scale=1)
    with gr.Row(elem_classes="controls shelf"):
        saved = gr.Dropdown(
            names, value=None, label="Open a recipe by its name", elem_id="shelf-saved", min_width=140, scale=3
        )
        delete = gr.Button("Delete", elem_id="shelf-delete", min_width=80, scale=1)
    return ShelfPart(name, save, saved, delete, panel(visible=False, elem_id="shelf-problem"))


def choose_station(opened: Opened, meaning: str, names: list[str]) -> ChooseStation:
    """Lay the station out, showing `meaning`."""
    state = opened.state
    with gr.Column(elem_id="choose", elem_classes="station"):
        panel(station_head(3, "Choose what to keep", _LEAD))
        with gr.Row(elem_classes="halves"):
            with gr.Column(min_width=300):
                drop = gr.Slider(
                    0,
                    opened.most,
                    value=state.recipe.drop,
                    step=opened.step,
                    label="Experts to drop in every layer",
                    elem_id="drop",
                    buttons=[],  # gradio's “reset” goes to a number of its own; there is undo
                )
                preset = gr.Radio(
                    preset_choices(state), value=state.preset, label="How experts are ranked", elem_id="preset"
                )
                when = panel(when_html(state))
                weights = gr.HTML(
                    weights_json(opened.taking_part, state.recipe.class_weights),
                    html_template=_WEIGHTS,
                    js_on_load=script("weights.js"),
                    elem_id="weights",
                    apply_default_css=False,
                )
            with gr.Column(min_width=300):
                problem = panel(visible=False, elem_id="choose-problem")
                meaning_panel = panel(meaning, elem_id="meaning")
                saves_panel = panel(saves_html(opened), elem_id="saves")
                copy = gr.Button("Copy the link", elem_id="copy-link", size="sm", min_width=120)
                copy.click(None, js=script("copy_link.js"), show_progress="hidden")
                shelf = _shelf_part(names)
                with gr.Accordion("Use a published map, or a recipe of yours", open=False):
                    panel(
                        "<p class='quiet'>A drop map, an expert_drop_metadata.json, or a recipe: the file is looked at "
                        "and says itself which it is. Where a recipe takes its floors per layer from a file, choose "
                        "both at once.</p>"
                    )
                    upload = gr.File(
                        label="Map or recipe (JSON)",
                        file_types=[".json"],
                        file_count="multiple",
                        height=110,
                        elem_id="choice-upload",
                    )
        options, steps, counts, compare = options_part(), steps_part(), counts_part(), compare_part()
        trial, search = trial_part(), search_part()
    return ChooseStation(
        preset, when, drop, weights, meaning_panel, problem, saves_panel, shelf, upload, options, counts, compare,
        steps, trial, search,
    )  # fmt: skip
