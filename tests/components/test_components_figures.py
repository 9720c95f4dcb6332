"""The map shows what it claims to show."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.figures import CELL_PIXELS, Detail, heatmap, marks, packed

Figure = dict[str, Any]


def draw(values: np.ndarray, dropped: np.ndarray, by_hand: Any = None, **settings: Any) -> Figure:
    details = [Detail("share", values / 10, ".2%")]
    chosen = {
        "layer_ids": range(values.shape[0]),
        "title": "How much?",
        "unit": "contribution",
        "number_format": ".3f",
        "tick_format": "~s",
        "limits": (0.0, 1.0),
        **settings,
    }
    figure, on_top = heatmap(values, details, **chosen), marks(dropped, by_hand)
    meta = {**figure["layout"]["meta"], "dropped": on_top["dropped"]}
    return {**figure, "layout": {**figure["layout"], "meta": meta, "shapes": on_top["shapes"]}}


def unpacked(array: Figure) -> np.ndarray:
    shape = tuple(int(size) for size in array["shape"].split(", "))
    return np.frombuffer(base64.b64decode(array["bdata"]), "<f4").reshape(shape)


masks = st.tuples(st.integers(1, 12), st.integers(1, 40)).flatmap(lambda shape: arrays(np.bool_, shape))


def cells_of(path: str) -> list[tuple[float, float, float, float]]:
    """(x0, y0, x1, y1) of every piece of the path of a shape."""
    piece = re.compile(r"M(-?[\d.]+),(-?[\d.]+)(?:H(-?[\d.]+)V(-?[\d.]+)H\1Z|L(-?[\d.]+),(-?[\d.]+))")
    found = [tuple(float(number) for number in match if number) for match in piece.findall(path)]
    assert piece.sub("", path) == "", "nothing else is in the path"
    return found  # type: ignore[return-value]


@given(masks)
def test_veil_and_hatch_mark_exactly_the_dropped_cells(dropped: np.ndarray) -> None:
    layout = draw(np.zeros(dropped.shape), dropped)["layout"]
    wanted = set(zip(*(axis.tolist() for axis in np.nonzero(dropped)), strict=True))
    assert layout["meta"]["dropped"] == len(wanted)
    if not wanted:
        assert layout["shapes"] == []
        return
    veil, hatch = layout["shapes"]
    strokes = [(round((y0 + y1) / 2), round((x0 + x1) / 2)) for x0, y0, x1, y1 in cells_of(hatch["path"])]
    assert sorted(strokes) == sorted(wanted)
    veiled = [
        (round(y0 + 0.5), column)
        for x0, y0, x1, _ in cells_of(veil["path"])
        for column in range(round(x0 + 0.5), round(x1 + 0.5))
    ]
    assert sorted(veiled) == sorted(wanted)


@given(masks)
def test_what_is_said_by_hand_has_a_frame_or_a_cross_of_two_lines(keep: np.ndarray) -> None:
    frames, crosses = keep, ~keep
    shapes = marks(np.zeros_like(keep), (frames, crosses))["shapes"]
    paths = [shape["path"] for shape in shapes]
    assert paths[::2] == paths[1::2], "a dark line on a light one"
    framed = [
        (round(y0 + 0.5), column)
        for path in paths[::2]
        for x0, y0, x1, _ in cells_of(path)
        if "Z" in path
        for column in range(round(x0 + 0.5), round(x1 + 0.5))
    ]
    assert sorted(framed) == sorted(zip(*(axis.tolist() for axis in np.nonzero(frames)), strict=True))
    strokes = [piece for path in paths[::2] if "Z" not in path for piece in cells_of(path)]
    middles = [(round((y0 + y1) / 2), round((x0 + x1) / 2)) for x0, y0, x1, y1 in strokes]
    assert sorted(set(middles)) == sorted(zip(*(axis.tolist() for axis in np.nonzero(crosses)), strict=True))
    assert len(middles) == 2 * len(set(middles))


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32)))
def test_numbers_reach_the_browser_in_single_precision(values: np.ndarray) -> None:
    colours = draw(values, np.zeros(values.shape, np.bool_))["data"][0]
    np.testing.assert_array_equal(unpacked(colours["z"]), values.astype("<f4"))
    np.testing.assert_allclose(unpacked(colours["customdata"])[..., 1], values / 10, rtol=1e-6, atol=1e-30)


def test_a_number_beyond_single_precision_is_no_error() -> None:
    values = np.array([[3.9e180, np.nan, 1.0]])
    assert unpacked(draw(values, np.zeros((1, 3), np.bool_))["data"][0]["z"])[0, 2] == 1.0


def test_the_pointer_names_the_layer_by_its_id_and_not_by_its_row() -> None:
    figure = draw(np.zeros((2, 3)), np.zeros((2, 3), np.bool_), layer_ids=(4, 9))
    assert unpacked(figure["data"][0]["customdata"])[:, 0, 0].tolist() == [4, 9]
    assert figure["layout"]["yaxis"]["ticktext"] == ["4", "9"]
    assert figure["layout"]["meta"]["layers"] == [4, 9]


def test_a_difference_has_its_own_colours() -> None:
    dropped = np.zeros((1, 2), np.bool_)
    plain = draw(np.zeros((1, 2)), dropped)["data"][0]["colorscale"]
    assert draw(np.zeros((1, 2)), dropped, diverging=True)["data"][0]["colorscale"] != plain


@pytest.mark.parametrize("layers", [1, 6, 30, 61, 200])
def test_rows_stay_readable_whatever_the_depth(layers: int) -> None:
    layout = draw(np.zeros((layers, 4)), np.zeros((layers, 4), np.bool_))["layout"]
    row = (layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]) / layers
    assert CELL_PIXELS[0] - 0.5 <= row <= CELL_PIXELS[1] + 0.5
    shown = layout["yaxis"]["tickvals"]
    assert len(shown) == 1 or (shown[1] - shown[0]) * row >= 8, "labels do not touch"


def test_a_large_grid_travels_light() -> None:
    values = np.random.default_rng(0).random((61, 384))
    assert len(json.dumps(draw(values, values < 0.3))) < 1_500_000


def test_packed_arrays_are_what_plotly_expects() -> None:
    assert packed(np.array([[1.0, 2.0]])) == {"dtype": "f4", "bdata": "AACAPwAAAEA=", "shape": "1, 2"}
