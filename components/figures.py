"""Plotly figures as the plain dicts that plotly.js draws: importing plotly's Python classes would cost seconds.

Colours are names of CSS tokens (`"--ink"`); assets/heatmap.js replaces them by their values, so a figure is right in
the light and in the dark. Arrays travel as base64, which plotly.js decodes itself.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Figure = dict[str, Any]
Mask = npt.NDArray[np.bool_]

CELL_PIXELS = (9, 34)
"""Least and greatest height of a layer's row."""
MAP_PIXELS = 340
"""Height that the rows share where those limits allow it."""
GAPPED_EXPERTS = 160
"""Columns up to which the cells stand apart; more of them are too narrow for that."""

SEQUENTIAL = [[step / 4, f"--map-{step}"] for step in range(5)]
DIVERGING = [[step / 4, f"--diff-{step}"] for step in range(5)]


def packed(values: npt.NDArray[Any]) -> dict[str, str]:
    """An array as plotly.js reads it, in single precision: a third of the text that numbers would take."""
    with np.errstate(over="ignore"):  # an outlier beyond the range becomes infinite, and is not drawn
        array = np.ascontiguousarray(values, dtype="<f4")
    return {
        "dtype": "f4",
        "bdata": base64.b64encode(array.tobytes()).decode("ascii"),
        "shape": ", ".join(map(str, array.shape)),
    }


@dataclass(frozen=True)
class Detail:
    """A number per cell that is shown under the pointer: its name, values [L, E], and d3 format."""

    name: str
    values: npt.NDArray[np.float64]
    number: str


def heatmap(
    values: npt.NDArray[np.float64],
    details: Sequence[Detail],
    *,
    layer_ids: Sequence[int],
    title: str,
    unit: str,
    number_format: str,
    tick_format: str,
    limits: tuple[float, float],
    diverging: bool = False,
) -> Figure:
    """Layers × experts: `values` [L, E] as colour between `limits`. What is dropped comes on top of it, see `marks`."""
    layers, experts = values.shape
    lines = ["<b>Layer %{customdata[0]:d}, expert %{x}</b>", f"{unit}: %{{z:{number_format}}}"]
    lines += [f"{one.name}: %{{customdata[{index}]:{one.number}}}" for index, one in enumerate(details, start=1)]
    layer_numbers = np.broadcast_to(np.asarray(layer_ids, dtype=np.float64)[:, None], values.shape)
    colours = {
        "type": "heatmap",
        "x": list(range(experts)),
        "y": list(range(layers)),
        "xgap": 1 if experts <= GAPPED_EXPERTS else 0,
        "ygap": 1,
        "z": packed(values),
        "zmin": limits[0],
        "zmax": limits[1],
        "colorscale": DIVERGING if diverging else SEQUENTIAL,
        "customdata": packed(np.stack([layer_numbers, *(one.values for one in details)], axis=-1)),
        "hovertemplate": "<br>".join(lines) + "<extra></extra>",
        "colorbar": _colorbar(unit, tick_format),
    }
    return {"data": [colours], "layout": _map_layout(layer_ids, experts, title)}


def marks(dropped: Mask, by_hand: tuple[Mask, Mask] | None = None) -> Figure:
    """What assets/heatmap_marks.js draws on the map: the cells of `dropped` [L, E], and how many they are.

    `by_hand` are the cells [L, E] that a person keeps and drops. Another choice changes the marks only, which the
    browser draws in a fraction of the time that the whole map takes; so they are small, a bit per cell and mask.
    """
    keep, drop = by_hand or (np.zeros_like(dropped), np.zeros_like(dropped))
    cells = base64.b64encode(np.packbits(np.stack([dropped, keep, drop])).tobytes()).decode("ascii")
    return {"cells": cells, "dropped": int(dropped.sum())}


def _colorbar(unit: str, tick_format: str) -> Figure:
    return {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "lenmode": "pixels",
        "len": 220,
        "thickness": 8,
        "ypad": 0,
        "xpad": 0,
        "outlinewidth": 0,
        "nticks": 5,
        "tickangle": 0,
        "tickformat": tick_format,
        "tickfont": {"color": "--ink-soft", "size": 11},
        "title": {"text": unit, "side": "top", "font": {"color": "--ink-soft", "size": 12}},
    }


def _map_layout(layer_ids: Sequence[int], experts: int, title: str) -> Figure:
    layers = len(layer_ids)
    row = min(max(MAP_PIXELS / layers, CELL_PIXELS[0]), CELL_PIXELS[1])
    margin = {"l": 52, "r": 1, "t": 54, "b": 44}
    axis = {"fixedrange": True, "showgrid": False, "zeroline": False, "ticks": "", "color": "--ink-soft"}
    every = max(1, round(layers * 14 / (row * layers)))  # a label needs some 14 pixels
    shown = list(range(0, layers, every))
    return {
        "height": round(row * layers) + margin["t"] + margin["b"],
        "margin": margin,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "--ink", "size": 12},
        "hoverlabel": {
            "bgcolor": "--card",
            "bordercolor": "--edge",
            "font": {"color": "--ink", "size": 13},
            "align": "left",
        },
        "hovermode": "closest",
        "dragmode": False,
        "xaxis": {
            **axis,
            "title": {"text": "Expert (number in its layer)"},
            "range": [-0.5, experts - 0.5],
        },
        "yaxis": {
            **axis,
            "title": {"text": "Layer"},
            "range": [layers - 0.5, -0.5],
            "tickvals": shown,
            "ticktext": [str(layer_ids[index]) for index in shown],
        },
        "meta": {"title": title, "layers": list(layer_ids), "experts": experts},
    }
