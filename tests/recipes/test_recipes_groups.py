"""Models whose router chooses groups of experts first: whatever the recipe, all groups lose equally many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.recipes.apply import make_map
from studio.recipes.decision import decide
from studio.recipes.dropmap import DropMap, check_router, most_droppable
from studio.recipes.explain import explain
from studio.recipes.presets import PRESETS
from studio.recipes.recipe import Recipe
from tests.recipes.conftest import recipes_of

Analysis = Callable[..., Contributions]

EXPERTS, GROUPS, SIZE = 12, 3, 4
seeds = st.integers(0, 1000)
fields: dict[str, st.SearchStrategy[Any]] = {
    "criterion": st.sampled_from(["weighted_norm", "frequency", "reap", "coverage"]),
    "normalise": st.sampled_from(["none", "mean", "rank", "zscore"]),
    "aggregate": st.sampled_from(["sum", "max", "second"]),
    "scope": st.sampled_from(["layer", "model"]),
    "breadth_bonus": st.sampled_from([0.0, 0.5]),
    "protect_top": st.integers(0, 8),
    "protect_aggregate": st.sampled_from([None, "max"]),
    "protect_top_per_class": st.integers(0, 4),
    "floor_analysis": st.just("same"),
    "floor": st.integers(0, 6),
    "class_minimums": st.sampled_from([[], [("code", 4)], [("creative", 3), ("math", 5)]]),
    "force_keep": st.sampled_from([{}, {"all": [0, 5]}, {"all": [1, 2]}]),
    "force_drop": st.sampled_from([{}, {"all": [3, 8]}, {"all": [11]}]),
    "drop": st.sampled_from([3, 6]),
}
recipes = recipes_of(**fields)


def grouped(analysis: Analysis, seed: int) -> Contributions:
    return analysis(seed=seed, experts=EXPERTS, groups=GROUPS, groups_per_token=2)


@given(seed=seeds, recipe=recipes)
def test_every_recipe_makes_a_map_that_its_own_model_takes(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    contributions = grouped(analysis, seed)
    drop = make_map(contributions, recipe)
    drop.check(contributions.shape)
    assert drop.dropped_count == recipe.drop
    kept, gone = recipe.force_keep.get("all", []), recipe.force_drop.get("all", [])
    for ids in drop.dropped:
        assert set(gone) <= set(ids) and set(kept).isdisjoint(ids)


@given(seed=seeds, recipe=recipes)
def test_in_each_group_nobody_protected_leaves_before_the_others(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    decision = decide(grouped(analysis, seed), recipe.but(class_minimums=[]))
    asked, dropped = (mask.reshape(-1, SIZE) for mask in (decision.protection.asked, decision.dropped))
    for protected, gone in zip(asked, dropped, strict=True):
        assert not (protected & gone).any() or not (~protected & ~gone).any()


@given(seed=seeds, recipe=recipes)
def test_dropping_more_drops_the_same_and_more(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    contributions, plain = grouped(analysis, seed), recipe.but(class_minimums=[], force_drop={})
    fewer, more = (decide(contributions, plain.but(drop=count)).dropped for count in (3, 6))
    assert not (fewer & ~more).any()


@given(seed=seeds, recipe=recipes, order=st.permutations(range(GROUPS)))
def test_renumbering_the_groups_renumbers_the_map_where_no_two_experts_are_equal(
    analysis: Analysis, seed: int, recipe: Recipe, order: list[int]
) -> None:
    recipe = recipe.but(criterion="weighted_norm", normalise="mean", aggregate="sum", force_keep={}, force_drop={})
    sparse = grouped(analysis, seed)
    everywhere = 1 + np.random.default_rng(seed).random(sparse.sum("norm").shape)
    contributions = dataclasses.replace(sparse, sums={name: one + everywhere for name, one in sparse.sums.items()})
    ids = np.arange(EXPERTS).reshape(GROUPS, SIZE)[order].ravel()
    renumbered = dataclasses.replace(contributions, sums={n: v[:, :, ids] for n, v in contributions.sums.items()})
    before, after = decide(contributions, recipe), decide(renumbered, recipe)
    assert (before.dropped[:, ids] == after.dropped).all()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"force_keep": {"1": [4, 5, 6]}}, "force_keep names 3 experts of group 1 of layer 1, and the recipe keeps 2"),
        ({"force_drop": {"2": [8, 9, 10]}}, "force_drop names 3 experts of group 2 of layer 2, and the recipe drops 2"),
        ({"force_drop": {"all": [0, 1, 2]}, "scope": "model"}, "3 experts of group 0 of every layer"),
        ({"drop": 5}, "cannot be dropped equally from each. Drop 3 or 6"),
        ({"drop": 9}, "Each group of experts would keep 1, and a token uses 3 from 2 groups. Drop at most 6"),
        ({"drop": 8}, "Each group of experts would keep 1, and a token uses 3 from 2 groups. Drop at most 6"),
        ({"drop": 10}, "keeps 2, and the router uses 3 per token. Drop at most 6"),
    ],
)
def test_what_a_group_has_no_room_for_is_refused_before_there_is_a_map(
    analysis: Analysis, fields: dict[str, Any], said: str
) -> None:
    contributions = analysis(experts=EXPERTS, top_k=3, groups=GROUPS, groups_per_token=2)
    with pytest.raises(InputError, match=said):
        make_map(contributions, Recipe(**{"drop": 6, **fields}))


@given(groups=st.integers(1, 4), size=st.integers(1, 6), data=st.data())
def test_the_most_that_can_be_dropped_is_the_most_that_is_not_refused(
    groups: int, size: int, data: st.DataObject
) -> None:
    used = data.draw(st.integers(1, groups))
    shape = MoeShape("deepseek_v3", (0,), groups * size, data.draw(st.integers(1, used * size)), 8, 8, groups, used)
    possible = []
    for drop in range(shape.experts):
        ids = tuple(sorted(group * size + place for place in range(drop // groups) for group in range(groups)))
        try:
            check_router(shape, drop)
        except InputError as error:
            assert error.remedy
            continue
        possible.append(drop)
        DropMap(None, shape.experts, (ids,), (0,)).check(shape)
    assert max(possible) == most_droppable(shape)
    for preset in PRESETS.values():
        assert preset.drop_for(shape) in possible


@given(seed=seeds)
def test_who_leaves_for_its_score_has_a_lower_one_than_who_stays_in_its_group(analysis: Analysis, seed: int) -> None:
    contributions = grouped(analysis, seed)
    told = [explain(contributions, Recipe(drop=6), 1, expert) for expert in range(EXPERTS)]
    assert {one.rule for one in told} == {"score"}
    for one in told:
        assert one.boundary is not None and (one.score >= one.boundary) == one.kept
