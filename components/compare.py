"""Compare the map that is shown (B) with another one (A): kept before, of a published recipe, saved, or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from components import transitions
from components.curves import HEIGHT, Boxes, Dot, Line, Tick, curves
from components.follow import follow, open_accordion
from components.library import Library, Opened
from components.markup import class_label, failure, notice, percent_text, table
from components.page import Studio
from components.state import OWN, Kept, StudioState
from components.theme import panel
from studio.errors import EspalierError, InputError
from studio.recipes.difference import ClassChange, MapDifference, class_changes, map_difference
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import PRESETS

KEPT = "kept"
"""The choice of the map that was kept to compare."""
PRESET, MAP, RECIPE = "preset:", "map:", "recipe:"
"""How the choices of a published recipe, and of a map or recipe in the workspace, begin."""
_SAVED = 40
"""So many maps, and so many recipes, of the workspace can be chosen: the latest."""
_ROW_PIXELS = (5, 16)
"""Least and greatest height of a layer in the figure."""
_LABELS = 12
_IDS = 12
"""So many experts of a layer are named in the table."""


@dataclass(frozen=True)
class ComparePart:
    """What the wiring needs of this part."""

    accordion: gr.Accordion
    other: gr.Dropdown
    keep: gr.Button
    upload: gr.File
    text: gr.HTML


def label_of(opened: Opened) -> str:
    """What the map that is shown is called once it is kept."""
    state = opened.state
    return "an imported map" if state.imported else "an own recipe" if state.preset == OWN else state.preset


def other_choices(library: Library, kept: Kept | None) -> list[tuple[str, str]]:
    """What the shown map can be compared with."""
    aside = [(f"Kept: {kept.name}", KEPT)] if kept else []
    presets = [(f"{one.title} ({one.name}), as many dropped", f"{PRESET}{one.name}") for one in PRESETS.values()]
    saved = [
        (f"Saved {kind} {path.stem}", f"{prefix}{path.name}")
        for kind, prefix, folder in _folders(library)
        for path in _latest(folder)
    ]
    return [*aside, *presets, *saved]


def _folders(library: Library) -> list[tuple[str, str, Path]]:
    return [("map", MAP, library.workspace.maps), ("recipe", RECIPE, library.workspace.recipes)]


def _latest(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)[:_SAVED]


def other_map(library: Library, opened: Opened, choice: str) -> Kept:
    """The map that `choice` names. Raises as `open` and `read_choice` of `Library`, `InputError` for an unknown one."""
    if choice == KEPT and opened.state.aside:
        return opened.state.aside
    if choice.startswith(PRESET) and choice.removeprefix(PRESET) in PRESETS and opened.drop and opened.contributions:
        name = choice.removeprefix(PRESET)
        weights = opened.state.recipe.class_weights
        return _of(library, transitions.choosing(library, opened.state, name, opened.drop.dropped_count, weights), name)
    for kind, prefix, folder in _folders(library):
        for path in folder.glob("*.json"):
            if choice == f"{prefix}{path.name}":
                state = transitions.read_choice(library, opened.state, path)
                return _of(library, state, f"the saved {kind} {path.stem}")
    raise InputError("That map is not there to compare with.", "Choose another one, or keep the one that is shown.")


def _of(library: Library, state: StudioState, label: str) -> Kept:
    drop = library.open(state).drop
    if drop is None:
        raise InputError("A recipe gives no map without an analysis.", "Open one in the first station.")
    return Kept(label, drop)


def compared_html(opened: Opened, other: Kept) -> str:
    """What is different in the map that is shown. Raises as `map_difference` does."""
    assert opened.drop is not None, "there is a map to compare"
    found = map_difference(other.drop, opened.drop)
    leaves, back = sum(map(len, found.leaves)), sum(map(len, found.comes_back))
    shown = Kept(label_of(opened), opened.drop)
    said = f"A is {other.name}; B is the map that is shown: {shown.name}."
    head = f"<p class='quiet'>{escape(said)}</p>"
    if not leaves and not back:
        return head + notice("Both maps drop the same experts.", "Change the recipe, and the difference is shown here.")
    parts = _grid(found, other.drop, opened.drop) + _layers(found, opened.drop.experts)
    if opened.contributions is not None:
        parts += classes_html(class_changes(opened.contributions, other.drop, opened.drop)[1])
    return f"{head}<div class='insights'>{parts}</div>{_layer_table(found)}"


def _grid(found: MapDifference, first: DropMap, second: DropMap) -> str:
    """Layers × experts: who leaves, who comes back, and whom both drop."""
    one, other = first.mask, second.mask
    layers, experts = one.shape
    leaves, back = int((other & ~one).sum()), int((one & ~other).sum())
    agreed = percent_text(float(found.agreement.mean()))
    title = f"The maps agree on {agreed} of the experts; from A to B {leaves} leave and {back} come back"
    boxes = [
        Boxes(_cells(one & other, 0.0, 1.0), "both"),
        Boxes(_cells(other & ~one, 0.0, 1.0), "gone"),
        Boxes(_cells(one & ~other, 0.0, 0.55), "back"),
    ]
    least, most = _ROW_PIXELS
    drawn = curves(
        boxes,
        [],
        label=f"Layers and experts of both maps. {title}.",
        across="Expert (number in its layer)",
        up="Layer",
        ticks_across=[Tick((one + 0.5) / experts, str(one)) for one in range(0, experts, -(-experts // _LABELS))],
        ticks_up=[Tick(1 - (row + 0.5) / layers, str(layer)) for row, layer in enumerate(found.layer_ids)],
        caption="<i class='swatch gone'></i>leaves: only B drops it, <i class='swatch back'></i>comes back: "
        "only A drops it, <i class='swatch both'></i>both drop it.",
        height=min(max(HEIGHT, least * layers), most * layers),
    )
    return f"<section class='wide'><h3>{title}</h3>{drawn}</section>"


def _cells(mask: np.ndarray, low: float, high: float) -> list[tuple[float, float, float, float]]:
    """Boxes of the cells of `mask` [L, E], neighbours in a layer together, from `low` to `high` of its row."""
    layers, experts = mask.shape
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    gap = 0.06
    return [
        (
            start / experts,
            end / experts,
            (layers - row - 1 + low + gap) / layers,
            (layers - row - 1 + high - gap) / layers,
        )
        for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ]


def _layers(found: MapDifference, experts: int) -> str:
    """How many experts of each layer have another fate."""
    changed = np.rint((1 - found.agreement) * experts).astype(int)
    most, layers = int(changed.max()), len(changed)
    worst, same = found.layer_ids[int(changed.argmax())], int((changed == 0).sum())
    title = f"Layer {worst} changes most, {most} of {experts} experts"
    if same:
        title += f"; {same} of {layers} layers do not change"
    drawn = curves(
        [
            Boxes(
                [((row + 0.1) / layers, (row + 0.9) / layers, 0, count / most) for row, count in enumerate(changed)],
                "bar",
            )
        ],
        [],
        label=f"Experts with another fate per layer. {title}.",
        across="Layer",
        up="Experts whose fate differs",
        ticks_across=[
            Tick((row + 0.5) / layers, str(layer))
            for row, layer in enumerate(found.layer_ids)
            if row % -(-layers // _LABELS) == 0
        ],
        ticks_up=[Tick(1, str(most)), Tick(0, "0")],
        caption="Of both kinds together: those that leave and those that come back.",
    )
    return f"<section><h3>{title}</h3>{drawn}</section>"


def classes_html(changes: Sequence[ClassChange]) -> str:
    """What each class gains and loses, as shares of its contribution."""
    ranked = sorted(changes, key=lambda one: one.net)
    worst, best = ranked[0], ranked[-1]
    reach = max((max(one.gained, one.lost) for one in changes), default=0.0) or 1.0
    if worst.net == best.net == 0:
        title = "No class gains or loses"
    elif worst.net >= 0:
        title = f"No class loses; {class_label(best.klass)} gains most ({_signed(best.net)})"
    elif best.net <= 0:
        title = f"Every class loses; {class_label(worst.klass)} most ({_signed(worst.net)})"
    else:
        title = (
            f"{class_label(best.klass)} gains most ({_signed(best.net)}), "
            f"{class_label(worst.klass)} loses most ({_signed(worst.net)})"
        )
    count = len(changes)
    places = [1 - (row + 0.5) / count for row in range(count)]
    half = 0.32 / count
    rows = list(zip(places, changes, strict=True))
    drawn = curves(
        [
            Boxes([(0.5, 0.5 + one.gained / reach / 2, up - half, up + half) for up, one in rows], "back"),
            Boxes([(0.5 - one.lost / reach / 2, 0.5, up - half, up + half) for up, one in rows], "gone"),
            Line([(0.5, 0), (0.5, 1)], "guide"),
        ],
        [Dot(0.5 + one.net / reach / 2, up) for up, one in rows],
        label=f"Contribution that each class gains and loses. {title}.",
        across="Share of the class's contribution",
        up="Class",
        ticks_across=[Tick(0.5, "0"), Tick(0, f"−{percent_text(reach)}"), Tick(1, f"+{percent_text(reach)}")],
        ticks_up=[Tick(up, class_label(one.klass)) for up, one in rows],
        caption="<i class='swatch gone'></i>with those that leave, <i class='swatch back'></i>with those that "
        "come back, <i class='spot'></i>both together.",
        height=max(HEIGHT, 24 * count),
    )
    numbers = table(
        ("Class", "Gained", "Lost", "Net"),
        [
            (escape(class_label(one.klass)), percent_text(one.gained), percent_text(one.lost), _signed(one.net))
            for one in changes
        ],
        numeric=(1, 2, 3),
    )
    return (
        f"<section><h3>{escape(title)}</h3>{drawn}"
        f"<details class='numbers'><summary>The numbers of every class</summary>{numbers}</details></section>"
    )


def _signed(share: float) -> str:
    return f"{'−' if share < 0 else '+'}{percent_text(abs(share))}"


def _layer_table(found: MapDifference) -> str:
    rows = [
        (
            str(layer),
            percent_text(float(found.agreement[row])),
            str(found.both_drop[row]),
            _ids(found.leaves[row]),
            _ids(found.comes_back[row]),
        )
        for row, layer in enumerate(found.layer_ids)
    ]
    shown = table(("Layer", "Agreement", "Both drop", "Leaves", "Comes back"), rows, numeric=(1, 2))
    return f"<details class='numbers'><summary>The experts of every layer</summary>{shown}</details>"


def _ids(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - _IDS} more" if len(ids) > _IDS else ""
    return ", ".join(map(str, ids[:_IDS])) + more if ids else "–"


def compare_part() -> ComparePart:
    """Lay the part out, closed: nothing is computed until somebody looks."""
    with gr.Accordion("Compare with another map", open=False, elem_id="compare") as accordion:
        with gr.Row():
            other = gr.Dropdown([], value=None, label="Compare with", elem_id="compare-with", min_width=240)
            keep = gr.Button("Keep this map to compare", size="sm", elem_id="compare-keep", min_width=200)
        with gr.Accordion("Compare with a file", open=False, elem_id="compare-file"):
            upload = gr.File(label="Map or recipe (JSON)", file_types=[".json"], height=110, elem_id="compare-upload")
        text = panel(elem_id="compare-text")
    return ComparePart(accordion, other, keep, upload, text)


def wire_compare(studio: Studio, state: gr.State, part: ComparePart, changed: Sequence[Any]) -> None:
    """Compute when the part is opened, and while it is, when one of `changed` changes."""
    library = studio.library
    live: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def fresh(now: StudioState, choice: str | None) -> str:
        return _text(library, now, choice)

    def choosing(now: StudioState, choice: str | None) -> dict[Any, Any]:
        """Offer everything that there is, with `choice` chosen."""
        choices = other_choices(library, now.aside)
        chosen = choice if choice in [value for _, value in choices] else choices[0][1]
        return {part.other: gr.Dropdown(choices, value=chosen), part.text: _text(library, now, chosen)}

    def keeping(now: StudioState, kept: Kept) -> dict[Any, Any]:
        now = replace(now, aside=kept)
        studio.sessions.keep(now)
        return {state: now, **choosing(now, KEPT)}

    def on_keep(now: StudioState) -> dict[Any, Any]:
        try:
            opened = library.open(now)
            if opened.drop is None:
                raise InputError("There is no map yet.", "Open an analysis in the first station.")
            return keeping(now, Kept(label_of(opened), opened.drop))
        except EspalierError as error:
            return {part.text: failure(error)}

    def on_upload(now: StudioState, path: str | None) -> dict[Any, Any]:
        if path is None:
            return {part.text: gr.skip()}
        again = {part.upload: None}  # so that another file can follow
        try:
            chosen = transitions.read_choice(library, now, Path(path))
            return again | keeping(now, _of(library, chosen, Path(path).name))
        except EspalierError as error:
            return again | {part.text: failure(error)}

    outputs = [state, part.other, part.text]
    asked = [state, part.other]
    part.accordion.expand(choosing, asked, outputs, **live)
    follow([one.change for one in changed], open_accordion("compare"), fresh, asked, [part.text])
    part.other.input(fresh, asked, part.text, **live)
    part.keep.click(on_keep, state, outputs, **live)
    part.upload.upload(
        on_upload, [state, part.upload], [*outputs, part.upload], api_visibility="private", show_progress="minimal"
    )


def _text(library: Library, now: StudioState, choice: str | None) -> str:
    try:
        opened = library.open(now)
        if opened.drop is None:
            return notice("There is no map yet.", "Open an analysis in the first station.")
        return compared_html(opened, other_map(library, opened, choice or ""))
    except EspalierError as error:
        return failure(error)
