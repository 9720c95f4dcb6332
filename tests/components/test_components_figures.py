"""The map shows what it claims to show."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.figures import CELL_PIXELS, Detail, heatmap, marks, packed

Figure = dict[str, Any]


def draw(values: np.ndarray, **settings: Any) -> Figure:
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
    return heatmap(values, details, **chosen)


def unpacked(array: Figure) -> np.ndarray:
    shape = tuple(int(size) for size in array["shape"].split(", "))
    return np.frombuffer(base64.b64decode(array["bdata"]), "<f4").reshape(shape)


masks = st.tuples(st.integers(1, 12), st.integers(1, 40)).flatmap(lambda shape: arrays(np.bool_, shape))


@given(masks, st.booleans())
def test_marks_hold_exactly_the_dropped_cells_and_those_said_by_hand(dropped: np.ndarray, by_hand: bool) -> None:
    keep, drop = np.roll(dropped, 1), ~dropped
    found = marks(dropped, (keep, drop) if by_hand else None)
    assert found["dropped"] == dropped.sum()
    bits = np.unpackbits(np.frombuffer(base64.b64decode(found["cells"]), np.uint8), count=3 * dropped.size)
    wanted = [dropped, keep, drop] if by_hand else [dropped, dropped & False, dropped & False]
    np.testing.assert_array_equal(bits.reshape(3, *dropped.shape).astype(bool), wanted)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32)))
def test_numbers_reach_the_browser_in_single_precision(values: np.ndarray) -> None:
    colours = draw(values)["data"][0]
    np.testing.assert_array_equal(unpacked(colours["z"]), values.astype("<f4"))
    np.testing.assert_allclose(unpacked(colours["customdata"])[..., 1], values / 10, rtol=1e-6, atol=1e-30)


def test_a_number_beyond_single_precision_is_no_error() -> None:
    values = np.array([[3.9e180, np.nan, 1.0]])
    assert unpacked(draw(values)["data"][0]["z"])[0, 2] == 1.0


def test_the_pointer_names_the_layer_by_its_id_and_not_by_its_row() -> None:
    figure = draw(np.zeros((2, 3)), layer_ids=(4, 9))
    assert unpacked(figure["data"][0]["customdata"])[:, 0, 0].tolist() == [4, 9]
    assert figure["layout"]["yaxis"]["ticktext"] == ["4", "9"]
    assert figure["layout"]["meta"]["layers"] == [4, 9]


def test_a_difference_has_its_own_colours() -> None:
    plain = draw(np.zeros((1, 2)))["data"][0]["colorscale"]
    assert draw(np.zeros((1, 2)), diverging=True)["data"][0]["colorscale"] != plain


@pytest.mark.parametrize("layers", [1, 6, 30, 61, 200])
def test_rows_stay_readable_whatever_the_depth(layers: int) -> None:
    layout = draw(np.zeros((layers, 4)))["layout"]
    row = (layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]) / layers
    assert CELL_PIXELS[0] - 0.5 <= row <= CELL_PIXELS[1] + 0.5
    shown = layout["yaxis"]["tickvals"]
    assert len(shown) == 1 or (shown[1] - shown[0]) * row >= 8, "labels do not touch"


def test_a_large_grid_travels_light() -> None:
    values = np.random.default_rng(0).random((61, 384))
    assert len(json.dumps(draw(values)) + json.dumps(marks(values < 0.3))) < 1_500_000


def test_packed_arrays_are_what_plotly_expects() -> None:
    assert packed(np.array([[1.0, 2.0]])) == {"dtype": "f4", "bdata": "AACAPwAAAEA=", "shape": "1, 2"}
