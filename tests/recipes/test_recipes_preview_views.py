"""What the page shows of a map and of an analysis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from studio.recipes.preview import preview
from studio.recipes.views import colour_limits, view

Analysis = Callable[..., Contributions]


def test_shares_equal_a_slow_and_obvious_sum(analysis: Analysis) -> None:
    contributions = analysis(seed=2)
    drop = make_map(contributions, preset("98e-v4", drop=3))
    shown = preview(contributions, drop)
    weighted = contributions.sum("weighted_norm")
    for index, klass in enumerate(contributions.classes):
        of_class = [q for q, question in enumerate(contributions.questions) if question.klass == klass]
        kept = sum(weighted[q, layer, e] for q in of_class for layer in range(3) for e in drop.kept(layer))
        assert shown.share_kept_per_class[klass] == pytest.approx(kept / weighted[of_class].sum(), rel=1e-12)
        for layer in range(3):
            kept = sum(weighted[q, layer, e] for q in of_class for e in drop.kept(layer))
            assert shown.kept_share[index, layer] == pytest.approx(kept / weighted[of_class, layer].sum(), rel=1e-12)
    assert shown.worst_class == min(shown.share_kept_per_class, key=shown.share_kept_per_class.__getitem__)
    assert shown.worst_class_share == min(shown.share_kept_per_class.values())
    assert shown.worst_layer_share == shown.share_kept_per_layer[shown.worst_layer] == shown.share_kept_per_layer.min()
    assert (shown.kept_experts, shown.dropped_experts, shown.criterion) == (5, 3, "contribution")


@given(seed=st.integers(0, 1000))
def test_dropping_nothing_keeps_everything_and_dropping_more_never_keeps_more(analysis: Analysis, seed: int) -> None:
    contributions = analysis(seed=seed)
    maps = [make_map(contributions, preset("98e-v3", drop=drop)) for drop in range(7)]
    shares = [preview(contributions, drop).kept_share for drop in maps]
    assert np.all(shares[0] == 1.0)
    for more, fewer in zip(shares[1:], shares[:-1], strict=True):
        assert np.all((more >= 0) & (more <= fewer + 1e-12))


def test_a_layer_that_a_class_never_used_loses_nothing(analysis: Analysis) -> None:
    contributions = analysis()
    weighted = contributions.sum("weighted_norm").copy()
    weighted[contributions.class_index == 1, 2] = 0
    silent = dataclasses.replace(contributions, sums={"weighted_norm": weighted})
    drop = DropMap(None, 8, ((0, 1, 2),) * 3, (0, 1, 2))
    assert preview(silent, drop).kept_share[1, 2] == 1.0


@pytest.mark.parametrize(
    ("present", "criterion"),
    [
        (("tokens", "weighted_norm_squared", "norm_squared"), "weighted_norm"),
        (("tokens", "norm_squared"), "norm"),
        (("tokens",), "frequency"),
        (("gate",), "gate"),
    ],
)
def test_an_analysis_without_weighted_norms_is_shown_by_the_next_best(
    analysis: Analysis, present: tuple[str, ...], criterion: str
) -> None:
    contributions = analysis()
    imported = dataclasses.replace(contributions, sums={name: contributions.sum(name) for name in present})
    assert preview(imported, make_map(contributions, preset("98e-v3", drop=2))).criterion == criterion
    assert view(imported).shape == (3, 8)


def test_layers_are_named_by_their_id_and_not_their_position(analysis: Analysis) -> None:
    contributions = analysis()
    deep = dataclasses.replace(contributions, shape=dataclasses.replace(contributions.shape, layer_ids=(3, 4, 5)))
    assert preview(deep, make_map(deep, preset("98e-v3", drop=2))).worst_layer in (3, 4, 5)


def test_a_map_for_another_grid_is_refused(analysis: Analysis) -> None:
    drop = make_map(analysis(), preset("98e-v3", drop=2))
    with pytest.raises(MismatchError, match="8 experts per layer, and the analysis has 16"):
        preview(analysis(experts=16), drop)
    with pytest.raises(MismatchError, match="no entry for layer 3, which the analysis has"):
        preview(analysis(layers=4), drop)


def test_an_outlier_neither_hides_its_row_nor_the_figure(analysis: Analysis) -> None:
    contributions = analysis(experts=64)
    weighted = contributions.sum("weighted_norm").copy()
    weighted[0, 1, 5], weighted[0, 2, 6] = 3.9e18, math.nan
    broken = dataclasses.replace(contributions, sums={**contributions.sums, "weighted_norm": weighted})
    raw = view(broken)
    assert raw[1, 5] >= 3.9e18
    assert math.isnan(raw[2, 6])
    assert colour_limits(raw)[1] < 2 * view(contributions).max()
    shares = view(broken, "all", "share")
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares[1], view(contributions, "all", "share")[1], atol=0.2)
    shown = preview(broken, make_map(broken, preset("98e-v3", drop=8)))
    assert shown.outliers == 2
    assert np.isfinite(shown.kept_share).all()


def test_views_are_one_class_all_or_a_signed_difference(analysis: Analysis) -> None:
    contributions = analysis()
    weighted = contributions.per_class(contributions.sum("weighted_norm"))
    np.testing.assert_allclose(view(contributions, "code"), weighted[1])
    np.testing.assert_allclose(view(contributions), weighted.sum(axis=0))
    np.testing.assert_allclose(view(contributions, "math", "share").sum(axis=1), 1.0)
    ranks = view(contributions, "math", "rank")
    np.testing.assert_allclose(np.sort(ranks, axis=1), np.tile(np.arange(8) / 7, (3, 1)))
    for scale in ("raw", "share", "rank"):
        difference = view(contributions, ("math", "code"), scale)
        np.testing.assert_allclose(difference, -view(contributions, ("code", "math"), scale))
        np.testing.assert_allclose(difference.sum(axis=1), 0.0, atol=1e-12)
        low, high = colour_limits(difference, signed=True)
        assert low == -high < 0
    assert not view(contributions, ("math", "math"), "share").any()
    assert view(contributions, "code", "raw", "frequency")[0, 0] == contributions.sum("tokens")[1, 0, 0]


def test_a_view_of_what_is_not_there_is_refused(analysis: Analysis) -> None:
    with pytest.raises(InputError, match=r"no class 'cooking'.*math, code, creative, or all"):
        view(analysis(), "cooking")
    with pytest.raises(InputError, match="no class 'cooking'"):
        view(analysis(), ("math", "cooking"))
    with pytest.raises(InputError, match="no scale 'log'"):
        view(analysis(), "math", "log")


def test_changing_a_view_does_not_change_what_is_remembered(analysis: Analysis) -> None:
    contributions = analysis()
    view(contributions, "math")[:] = 0
    assert view(contributions, "math").any()


@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1), st.booleans())
def test_colour_limits_are_finite_and_in_order(values: list[float], signed: bool) -> None:
    low, high = colour_limits(np.array(values), signed=signed)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
