"""What the page says about a single expert, the cut, every count, and two maps; and recipes as links."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.contributions.model import Contributions
from studio.errors import EspalierError, FormatError, InputError, MismatchError
from studio.recipes.apply import make_map, scores
from studio.recipes.boundary import boundaries, near_ties, score_curves
from studio.recipes.decision import decide
from studio.recipes.difference import class_changes, map_difference
from studio.recipes.drop_curve import drop_curve
from studio.recipes.explain import explain
from studio.recipes.permalink import PREFIX, Permalink
from studio.recipes.presets import PRESETS, preset
from studio.recipes.preview import preview
from studio.recipes.recipe import Recipe
from tests.recipes.test_recipes_decision import EXPERTS, recipes

Analysis = Callable[..., Contributions]
seeds = st.integers(0, 10_000)


def one_layer(analysis: Analysis, norms: list[float]) -> Contributions:
    """One class, one layer; an expert's weighted norm is its score."""
    small = analysis(layers=1, experts=len(norms), klasses=("math",), top_k=1)
    return dataclasses.replace(small, sums={"weighted_norm_squared": np.array([[norms]]) ** 2})


def test_an_expert_is_explained_by_its_score_its_places_and_its_distance_from_the_cut(analysis: Analysis) -> None:
    contributions = one_layer(analysis, [1, 2, 3, 5, 8])
    kept, gone = (explain(contributions, Recipe(drop=2), 0, expert) for expert in (2, 1))
    assert (kept.kept, kept.rule, kept.place, kept.experts) == (True, "score", 3, 5)
    assert (gone.kept, gone.rule, gone.place) == (False, "score", 4)
    assert kept.boundary == gone.boundary == 2.5 and (kept.distance, gone.distance) == (0.5, -0.5)
    (standing,) = kept.classes
    assert (standing.klass, standing.weight, standing.value, standing.normalised, standing.place) == (
        "math",
        1.0,
        3.0,
        3.0,
        3,
    )
    nothing = explain(contributions, Recipe(drop=0), 0, 2)
    assert nothing.kept and nothing.boundary is None and nothing.distance is None


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({}, ["score", "score", "score", "score", "score"]),
        ({"force_keep": {"0": [0]}}, ["force_keep", "score", "displaced", "score", "score"]),
        ({"force_drop": {"all": [4]}}, ["score", "spared", "score", "score", "force_drop"]),
        ({"protect_top_per_class": 4}, ["score", "released", "score", "score", "score"]),
    ],
)
def test_the_rule_that_decided_is_named(analysis: Analysis, fields: dict[str, object], rules: list[str]) -> None:
    contributions = one_layer(analysis, [1, 2, 3, 5, 8])
    recipe = Recipe(drop=2, **fields)
    found = [explain(contributions, recipe, 0, expert).rule for expert in range(5)]
    assert found == rules


def test_who_came_back_for_a_minimum_and_who_gave_way_are_told(analysis: Analysis) -> None:
    contributions = one_layer(analysis, [1, 2, 3, 5, 8])
    second = analysis(layers=1, experts=5, klasses=("x", "y"), top_k=1)
    norms = np.array([[[9.0, 1, 1, 1, 1]], [[1.0, 9, 9, 9, 9]]])
    second = dataclasses.replace(second, sums={"weighted_norm_squared": norms**2})
    recipe = Recipe(drop=2, class_minimums=[("x", 1)], protect_top=2, floor=1)
    told = [explain(contributions, recipe.but(floor=0), 0, expert, second) for expert in range(5)]
    assert [one.rule for one in told] == ["class_minimum", "score", "class_minimum", "score", "score"]
    assert [one.kept for one in told] == [True, False, False, True, True]
    assert told[4].protected_by == ("protect_top",)
    floored = explain(contributions, recipe, 0, 0, second)
    assert floored.kept and floored.rule == "protected" and floored.protected_by == ("floor",)


@given(seed=seeds, recipe=recipes, expert=st.integers(0, EXPERTS - 1), layer=st.integers(0, 2))
def test_an_explanation_agrees_with_the_map(
    analysis: Analysis, seed: int, recipe: Recipe, expert: int, layer: int
) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    told = explain(contributions, recipe, layer, expert)
    assert told.kept == (expert not in make_map(contributions, recipe).dropped[layer])
    if told.rule == "protected":
        assert told.kept and told.protected_by
    if told.rule in ("displaced", "released"):
        assert not told.kept
    if told.rule == "score" and told.distance is not None and not told.protected_by:
        assert told.distance >= 0 if told.kept else told.distance <= 0


def test_cells_that_do_not_exist_are_refused(analysis: Analysis) -> None:
    with pytest.raises(MismatchError, match="no layer 3"):
        explain(analysis(), Recipe(drop=1), 3, 0)
    with pytest.raises(InputError, match="no expert 8"):
        explain(analysis(), Recipe(drop=1), 0, 8)


@given(seed=seeds, recipe=recipes, scope=st.sampled_from(["layer", "model"]))
def test_score_curves_are_sorted_and_carry_the_map(analysis: Analysis, seed: int, recipe: Recipe, scope: str) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    recipe = recipe.but(scope=scope, layer_floors={}, floor_clamp=None)
    curves, drop = score_curves(contributions, recipe), make_map(contributions, recipe)
    assert (np.diff(curves.scores, axis=1) >= 0).all()
    shown = scores(contributions, recipe)
    for layer in range(3):
        assert (curves.scores[layer] == shown[layer, curves.experts[layer]]).all()
        assert set(curves.experts[layer, curves.dropped[layer]].tolist()) == set(drop.dropped[layer])
    assert curves.boundaries.shape == curves.near_ties.shape == (3,)


def test_near_ties_are_the_kept_within_one_percent_of_the_cut(analysis: Analysis) -> None:
    decision = decide(one_layer(analysis, [1, 2, 2.015, 2.03, 8]), Recipe(drop=2))
    assert near_ties(decision).tolist() == [1]
    assert near_ties(decision, within=0.02).tolist() == [2]
    assert boundaries(decision).tolist() == [pytest.approx(2.0075)]
    assert near_ties(decide(one_layer(analysis, [1, 2]), Recipe(drop=0))).tolist() == [0]
    negative = decide(one_layer(analysis, [1, 2, 2.01, 3, 90]), Recipe(drop=2, normalise="zscore"))
    assert near_ties(negative, within=0.05).tolist() == [1]


@given(seed=seeds, recipe=recipes, scope=st.sampled_from(["layer", "model"]))
def test_the_drop_curve_is_the_preview_at_every_count(
    analysis: Analysis, seed: int, recipe: Recipe, scope: str
) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    recipe = recipe.but(scope=scope, layer_floors={}, floor_clamp=None, force_keep={"all": [3]})
    curve = drop_curve(contributions, recipe)
    assert curve.most == EXPERTS - 2 and curve.counts == tuple(range(EXPERTS + 1))
    for count in range(0, curve.most + 1, 3):
        shares = preview(contributions, make_map(contributions, recipe.but(drop=count))).share_kept_per_class
        np.testing.assert_allclose(curve.kept_share[:, count], list(shares.values()), rtol=1e-9, atol=1e-12)
    assert (np.diff(curve.kept_share, axis=1) <= 0).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), minimum=st.integers(1, 6), scope=st.sampled_from(["layer", "model"]))
def test_the_drop_curve_counts_minimums_per_class_in(analysis: Analysis, seed: int, minimum: int, scope: str) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    minimums = [(klass, minimum) for klass in contributions.classes[:2]]
    recipe = Recipe(drop=4, class_minimums=minimums, floor_analysis="same", scope=scope)
    curve = drop_curve(contributions, recipe)
    assert curve.counts == tuple(range(curve.most + 1))
    for count in curve.counts:
        shares = preview(contributions, make_map(contributions, recipe.but(drop=count))).share_kept_per_class
        np.testing.assert_allclose(curve.kept_share[:, count], list(shares.values()), rtol=1e-9, atol=1e-12)


def test_a_curve_that_would_take_too_long_is_worked_out_at_some_counts(
    analysis: Analysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.recipes.drop_curve.LEAST_COUNTS", 3)
    monkeypatch.setattr("studio.recipes.drop_curve.MOST_WORK", 1)
    recipe = Recipe(drop=4, class_minimums=[("math", 2)], floor_analysis="same")
    curve = drop_curve(analysis(experts=EXPERTS), recipe)
    assert len(curve.counts) == 4 and {0, 4, curve.most} < {*curve.counts}
    assert np.isnan(curve.kept_share).any(axis=0).tolist() == [n not in curve.counts for n in range(EXPERTS + 1)]
    assert curve.most_keeping(0.0) == curve.most and curve.most_keeping(1.0) == 0


def test_how_many_can_leave_before_a_class_loses_too_much(analysis: Analysis) -> None:
    curve = drop_curve(one_layer(analysis, [1, 2, 3, 4, 10]), Recipe(drop=0))
    assert [curve.most_keeping(share) for share in (1.0, 0.95, 0.9, 0.7, 0.6, 0.1)] == [0, 1, 1, 3, 3, 4]


def test_the_difference_of_two_maps_says_who_and_what_changed(analysis: Analysis) -> None:
    contributions = analysis(experts=EXPERTS)
    first, second = make_map(contributions, preset("98e-v3", 4)), make_map(contributions, preset("109e-v3", 5))
    difference = map_difference(first, second)
    for layer, (one, other) in enumerate(zip(first.dropped, second.dropped, strict=True)):
        assert set(difference.comes_back[layer]) == set(one) - set(other)
        assert set(difference.leaves[layer]) == set(other) - set(one)
        assert difference.both_drop[layer] == len(set(one) & set(other))
        assert difference.agreement[layer] == pytest.approx(1 - len(set(one) ^ set(other)) / EXPERTS)
    criterion, changes = class_changes(contributions, first, second)
    before, after = (preview(contributions, drop).share_kept_per_class for drop in (first, second))
    assert criterion == "contribution"
    assert {change.klass: pytest.approx(change.net) for change in changes} == {k: after[k] - before[k] for k in after}
    assert all(change.gained >= 0 and change.lost >= 0 for change in changes)
    same = map_difference(first, first)
    assert (same.agreement == 1).all() and not any(same.leaves)
    with pytest.raises(MismatchError, match="3 layers of 12 experts, and the other for 3 of 8"):
        map_difference(first, make_map(analysis(), preset("98e-v3", 1)))


@pytest.mark.parametrize("name", PRESETS)
def test_a_link_gives_the_recipe_and_the_hashes_back(name: str) -> None:
    recipe = PRESETS[name].recipe.but(class_weights={"cöde": 3.0}, force_keep={"all": [1]})
    link = Permalink(recipe, "a" * 64, "b" * 64)
    again = Permalink.from_text(f" {link.to_text()}\n")
    assert again == link and again.recipe.content_hash == recipe.content_hash
    assert Permalink.from_text(Permalink(recipe, "a" * 64).to_text()).floor_contributions is None
    assert len(Permalink(Recipe(drop=30), "a" * 64).to_text()) < 180


def test_a_link_names_the_model_and_one_from_before_names_none() -> None:
    link = Permalink(Recipe(drop=3), "a" * 64, model="gemma-4-26b")
    assert Permalink.from_text(link.to_text()) == link
    assert Permalink.from_text(Permalink(Recipe(drop=3), "a" * 64).to_text()).model == ""
    assert len(Permalink.from_text(Permalink(Recipe(drop=3), "a" * 64, model="x" * 999).to_text()).model) == 200


@given(st.text(max_size=40) | st.recursive(st.none() | st.text(), st.lists, max_leaves=3).map(json.dumps))
def test_a_link_of_anything_else_is_refused(text: str) -> None:
    for link in (text, PREFIX + base64.urlsafe_b64encode(text.encode()).decode()):
        with pytest.raises(EspalierError):
            Permalink.from_text(link)


@pytest.mark.parametrize("kept", [40, 100])
def test_a_link_that_was_cut_off_says_so(kept: int) -> None:
    cut = Permalink(Recipe(drop=3), "a" * 64).to_text()[: len(PREFIX) + kept]
    with pytest.raises(FormatError, match=r"cut off.*Copy the whole link\."):
        Permalink.from_text(cut)


def test_a_link_without_hash_or_with_an_unknown_field_is_refused() -> None:
    for content in (
        {"contributions": "a", "recipe": {"drop": 1}},
        {"contributions": "a" * 64, "recipe": {"drop": 1}, "more": 1},
        {"contributions": "a" * 64, "recipe": {"drop": 1, "vibes": 2}},
        {"contributions": "a" * 64, "recipe": 3},
    ):
        with pytest.raises(FormatError):
            Permalink.from_text(PREFIX + base64.urlsafe_b64encode(json.dumps(content).encode()).decode())
