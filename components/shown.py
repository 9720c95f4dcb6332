"""From what a tab has chosen to what it shows: the figure, the meaning, the numbers of one cell. No gradio in here."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from components.figures import Detail, heatmap, marks
from components.markup import class_label, count_text, facts, meters, notice, percent_text, table
from components.state import ALL, View
from studio.checkpoints.reference import Reference
from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.dropmap import DropMap
from studio.recipes.overrule import overruled
from studio.recipes.preview import Preview
from studio.recipes.recipe import Recipe
from studio.recipes.views import colour_limits, view
from studio.units import size_text

LOW_SHARE = 0.8
"""A class that keeps less than this of its contribution is marked: a fifth of what its experts did is gone."""

CRITERIA = {
    "contribution": "weighted output norm, Σ‖g·f‖",
    "weighted_norm": "weighted output norm",
    "frequency": "routed tokens",
    "norm": "output norm",
    "gate": "sum of gate weights",
    "ean": "output norm, Σ‖f‖",
}


@dataclass(frozen=True)
class Scaled:
    """How a scale is written on the map."""

    unit: str
    number: str
    """d3 format of a number under the pointer."""
    ticks: str


SCALES = {
    "raw": Scaled("contribution", ".4~s", "~s"),
    "share": Scaled("share of its layer", ".2%", ".1~%"),
    "rank": Scaled("rank in its layer (1 = highest)", ".2f", ".1f"),
}
DIFFERENCES = {
    "raw": Scaled("difference of shares", "+.2%", "+.1~%"),
    "share": Scaled("difference of shares", "+.2%", "+.1~%"),
    "rank": Scaled("difference of ranks", "+.2f", "+.1f"),
}


def map_json(contributions: Contributions, chosen: View) -> str:
    """The heatmap of `contributions`, as the browser draws it."""
    difference = chosen.minus is not None
    shown = (chosen.klass, chosen.minus) if chosen.minus is not None else chosen.klass
    values = view(contributions, shown, chosen.scale)
    scaled = (DIFFERENCES if difference else SCALES)[chosen.scale]
    figure = heatmap(
        values,
        _details(contributions, chosen),
        layer_ids=contributions.shape.layer_ids,
        title=title_of(chosen),
        unit=scaled.unit,
        number_format=scaled.number,
        tick_format=scaled.ticks,
        limits=colour_limits(values, signed=difference),
        diverging=difference,
    )
    return json.dumps(figure, separators=(",", ":"))


def marks_json(contributions: Contributions, drop: DropMap, recipe: Recipe | None) -> str:
    """The cells of `drop`, and what `recipe` says by hand; None for an imported map, which nobody overrules."""
    by_hand = overruled(recipe, contributions.shape) if recipe else None
    return json.dumps(marks(drop.mask, by_hand), separators=(",", ":"))


def _details(contributions: Contributions, chosen: View) -> list[Detail]:
    """The numbers under the pointer, beside the coloured one."""
    experts = contributions.shape.experts
    if chosen.minus is not None:
        return [
            Detail(f"share in {escape(one)}", view(contributions, one, "share"), ".2%")
            for one in (chosen.klass, chosen.minus)
        ]
    place = experts - np.rint(view(contributions, chosen.klass, "rank") * (experts - 1))
    details = {
        "raw": Detail("contribution", view(contributions, chosen.klass, "raw"), ".4~s"),
        "share": Detail("share of its layer", view(contributions, chosen.klass, "share"), ".2%"),
        "rank": Detail(f"place among {experts}", place, ".0f"),
    }
    return [detail for scale, detail in details.items() if scale != chosen.scale or scale == "rank"]


def title_of(chosen: View) -> str:
    """The question that the map answers."""
    if chosen.minus is not None:
        return f"Which experts lean to {chosen.klass} (green), and which to {chosen.minus} (purple)?"
    if chosen.klass == ALL:
        return "How much does each expert contribute, all classes together?"
    return f"How much does each expert contribute to {chosen.klass}?"


def cell_html(contributions: Contributions, drop: DropMap, row: int, expert: int) -> str:
    """What one expert does for every class. `InputError` when there is no such cell."""
    shape = contributions.shape
    if not (0 <= row < shape.layers and 0 <= expert < shape.experts):
        raise InputError(f"The map has no row {row}, expert {expert}.", "Click a cell.")
    rows = []
    for klass in contributions.classes:
        share = float(view(contributions, klass, "share")[row, expert])
        rank = float(view(contributions, klass, "rank")[row, expert])
        place = shape.experts - round(rank * (shape.experts - 1))
        rows.append((escape(class_label(klass)), percent_text(share), f"{place} of {shape.experts}"))
    fate = "dropped" if drop.mask[row, expert] else "kept"
    caption = f"Layer {shape.layer_ids[row]}, expert {expert}: {fate}"
    return table(("Class", "Share of the layer", "Place in the layer"), rows, numeric=(1, 2), caption=caption)


def meaning_html(
    drop: DropMap, seen: Preview | None, reference: Reference | None, sizes: Sequence[tuple[str, int]] = ()
) -> str:
    """What a choice keeps, in words, numbers and bars; `sizes` are (output, bytes)."""
    kept, experts = drop.kept_count, drop.experts
    pairs = [("Experts kept", f"{kept} of {experts}", "in every layer")]
    if reference:
        left = reference.parameters_with(kept)
        share = percent_text(left / reference.parameters)
        pairs.append(("Parameters kept", count_text(left), f"of {count_text(reference.parameters)} ({share})"))
    files = f"<h3 class='panel-title'>Predicted file size</h3>{_sizes(sizes)}" if sizes else ""
    if seen is None:
        return facts(pairs) + files + notice("No analysis is open for this map, so what its classes lose is not known.")
    worst = f"keeps {percent_text(seen.worst_layer_share)}"
    pairs.append(("Hardest hit layer", f"Layer {seen.worst_layer}", worst))
    bars = meters((class_label(klass), share, share < LOW_SHARE) for klass, share in seen.share_kept_per_class.items())
    if seen.outliers:
        files += notice(
            f"{seen.outliers} numbers of the analysis are not credible.",
            "The median of their neighbours stands in for them.",
            "warning",
        )
    measured = f"<small class='quiet'>({CRITERIA.get(seen.criterion, seen.criterion)})</small>"
    return f"{facts(pairs)}<h3 class='panel-title'>Contribution kept, per class {measured}</h3>{bars}{files}"


def _sizes(sizes: Sequence[tuple[str, int]]) -> str:
    items = "".join(f"<div><dt>{name}</dt><dd>{size_text(size)}</dd></div>" for name, size in sizes)
    return f"<dl class='strip'>{items}</dl>"


def download_link(text: str, filename: str, label: str, kind: str = "application/json") -> str:
    """A link that saves `text` under `filename`: the page needs no file on the server for it. `kind` is its media
    type."""
    data = b64encode(text.encode("utf-8")).decode("ascii")
    return f'<a class="save" download="{escape(filename)}" href="data:{kind};base64,{data}">{escape(label)}</a>'
