"""The kernels: sizes, cuts and values."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import UnsupportedError
from studio.quantize import ggml
from studio.quantize.tiers import TIERS

USED = sorted({tier.base for tier in TIERS.values()} | {Type.Q5_0, Type.Q8_0, Type.Q4_0, Type.IQ3_S})
QUICK = [Type.F16, Type.BF16, Type.Q8_0, Type.Q5_1, Type.Q4_0, Type.Q6_K, Type.Q4_K, Type.TQ2_0, Type.MXFP4]
CLOSE = {Type.F16: 3e-4, Type.BF16: 3e-3, Type.Q8_0: 0.01, Type.Q6_K: 0.03, Type.Q5_K: 0.05, Type.Q4_K: 0.1}
"""Type → error (root of the mean square) that weights of unit size may have."""


def normal(rows: int, columns: int, seed: int = 0) -> ggml.Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)


def test_the_library_says_what_it_is() -> None:
    library = ggml.library()
    assert library.package == "xllamacpp"
    assert library.path.is_file()
    assert library.version


@pytest.mark.parametrize("kind", USED, ids=lambda kind: kind.name)
def test_rows_are_as_long_as_ggml_says(kind: Type) -> None:
    assert ggml.row_bytes(kind, 512) == ggml._functions().ggml_row_size(kind, 512)


def test_a_row_that_is_not_whole_blocks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="704"):
        ggml.row_bytes(Type.Q4_K, 704)


@given(st.sampled_from(QUICK), st.integers(1, 9), st.data())
def test_rows_may_be_cut_anywhere(kind: Type, rows: int, data: st.DataObject) -> None:
    values = normal(rows, 256, seed=rows)
    cut = data.draw(st.integers(0, rows))
    pieces = [ggml.quantize_chunk(kind, part) for part in (values[:cut], values[cut:]) if len(part)]
    assert np.array_equal(np.concatenate(pieces), ggml.quantize_chunk(kind, values))


@pytest.mark.parametrize("kind", CLOSE, ids=lambda kind: kind.name)
def test_what_is_quantized_comes_back_close(kind: Type) -> None:
    values = normal(8, 512)
    back = gguf.dequantize(ggml.quantize_chunk(kind, values), kind).reshape(values.shape)
    assert CLOSE[kind] / 5 < np.sqrt(np.mean((back - values) ** 2)) < CLOSE[kind]


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16], ids=lambda kind: kind.name)
def test_floats_are_widened_exactly(kind: Type) -> None:
    values = normal(4, 64)
    raw = ggml.quantize_chunk(kind, values).reshape(-1)
    wide = np.empty((4, 64), dtype=np.float32)
    ggml.to_float(kind, raw, wide)
    assert np.array_equal(wide.reshape(-1), gguf.dequantize(raw, kind).reshape(-1))


@given(st.sampled_from([Type.F32, Type.F16, Type.BF16]), st.integers(0, 255), st.sampled_from([0, 1, -1]))
def test_one_nan_or_infinity_among_many_weights_is_seen(kind: Type, place: int, sign: int) -> None:
    values = normal(1, 256)
    assert ggml.is_finite(kind, ggml.quantize_chunk(kind, values).reshape(-1))
    values[0, place] = np.nan if sign == 0 else sign * np.inf
    assert not ggml.is_finite(kind, ggml.quantize_chunk(kind, values).reshape(-1))


def test_the_largest_weights_are_finite() -> None:
    for kind, largest in ((Type.F32, np.finfo(np.float32).max), (Type.F16, 65504.0)):
        assert ggml.is_finite(kind, ggml.quantize_chunk(kind, np.full((1, 32), largest, np.float32)).reshape(-1))


def test_scales_that_overflow_are_seen() -> None:
    huge = ggml.quantize_chunk(Type.Q8_0, np.full((1, 32), 1e30, np.float32))
    assert not ggml.is_finite(Type.Q8_0, huge.reshape(-1))


def test_a_type_that_needs_an_importance_matrix_is_refused_without_one() -> None:
    with pytest.raises(UnsupportedError, match="IQ2_XXS"):
        ggml.quantize_chunk(Type.IQ2_XXS, normal(1, 256))


def test_importance_changes_what_is_kept() -> None:
    values = normal(4, 256)
    importance = np.linspace(0.01, 100, 256, dtype=np.float32)
    plain, weighed = (
        ggml.quantize_chunk(Type.Q4_K, values),
        ggml.quantize_chunk(Type.Q4_K, values, importance=importance),
    )
    error = [(gguf.dequantize(raw, Type.Q4_K).reshape(4, 256) - values) ** 2 @ importance for raw in (plain, weighed)]
    assert error[1].sum() < error[0].sum()
