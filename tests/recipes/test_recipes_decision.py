"""Protection, floors, minima and overruling: against slow and obvious versions, and what must hold for every recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError
from studio.recipes.apply import make_map, scores
from studio.recipes.decision import decide
from studio.recipes.minimums import with_minimums
from studio.recipes.presets import PRESETS, preset
from studio.recipes.recipe import Aggregate, Recipe
from studio.recipes.scoring import normalise
from tests.recipes.conftest import recipes_of

Analysis = Callable[..., Contributions]

EXPERTS = 12
seeds = st.integers(0, 10_000)
protecting: dict[str, st.SearchStrategy[Any]] = {
    "criterion": st.sampled_from(["weighted_norm", "frequency", "reap", "coverage"]),
    "normalise": st.sampled_from(["none", "mean", "rank", "zscore"]),
    "aggregate": st.sampled_from(["sum", "max", "lp4", "second"]),
    "breadth_bonus": st.sampled_from([0.0, 0.5]),
    "class_weights": st.sampled_from([{}, {"code": 3.0}, {"*a*": 0.5}]),
    "protect_top": st.integers(0, 5),
    "protect_aggregate": st.sampled_from([None, "sum", "max"]),
    "protect_top_per_class": st.integers(0, 3),
    "floor_analysis": st.just("same"),
    "floor": st.integers(0, 4),
    "layer_floors": st.sampled_from([{}, {"0": 5.0}, {"1": 2.0, "2": 6.0}]),
    "floor_clamp": st.sampled_from([None, (1, 4)]),
    "drop": st.integers(0, 10),
}
recipes = recipes_of(**protecting)


@given(seed=seeds, recipe=recipes)
def test_counts_are_exact_and_nobody_protected_leaves_before_the_others(
    analysis: Analysis, seed: int, recipe: Recipe
) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    decision = decide(contributions, recipe)
    protected = decision.protection.asked
    for row in range(3):
        assert decision.dropped[row].sum() == recipe.drop
        if protected[row].sum() <= EXPERTS - recipe.drop_of(EXPERTS):
            assert not (protected[row] & decision.dropped[row]).any()
        else:
            assert not (~protected[row] & ~decision.dropped[row]).any()


@given(seed=seeds, recipe=recipes, step=st.integers(1, 4))
def test_without_minimums_dropping_more_drops_the_same_and_more(
    analysis: Analysis, seed: int, recipe: Recipe, step: int
) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    fewer = decide(contributions, recipe.but(drop=max(recipe.drop_of(EXPERTS) - step, 0))).dropped
    assert not (fewer & ~decide(contributions, recipe).dropped).any()


def test_with_minimums_dropping_more_may_bring_an_expert_back() -> None:
    """Why the claim above leaves them out: expert 3 gives way for class 1 at 2, and is the last of class 2 at 3."""
    best, nobody, group = np.array([1, 1, 2, 2, 0, 0]), np.zeros(6, dtype=np.bool_), np.zeros(6, dtype=np.int64)

    def dropped(count: int) -> set[int]:
        kept = with_minimums(
            np.arange(6) >= count, np.arange(6.0), best, {2: 1, 1: 2}, pinned=nobody, barred=nobody, group=group
        )
        return set(np.flatnonzero(~kept).tolist())

    assert dropped(2) == {2, 3}
    assert dropped(3) == {2, 4, 5}


@given(seed=seeds, recipe=recipes, order=st.permutations(range(EXPERTS)))
def test_renumbering_the_experts_renumbers_the_map_where_no_two_are_equal(
    analysis: Analysis, seed: int, recipe: Recipe, order: list[int]
) -> None:
    """Equal scores, values or priorities go by id; ranks combined over classes are equal often, and so left out."""
    assume(recipe.normalise != "rank" and recipe.criterion in ("weighted_norm", "reap"))
    sparse = analysis(seed=seed, experts=EXPERTS)
    everywhere = 1 + np.random.default_rng(seed).random(sparse.sum("norm").shape)
    contributions = dataclasses.replace(sparse, sums={name: one + everywhere for name, one in sparse.sums.items()})
    renumbered = dataclasses.replace(contributions, sums={n: v[:, :, order] for n, v in contributions.sums.items()})
    before, after = decide(contributions, recipe), decide(renumbered, recipe)
    assert (before.dropped[:, order] == after.dropped).all()


@given(seed=seeds, recipe=recipes, exponent=st.integers(-5, 5))
def test_scaling_one_class_moves_no_rank_normalised_recipe_without_floors(
    analysis: Analysis, seed: int, recipe: Recipe, exponent: int
) -> None:
    """Floors go by the values themselves, pooled over classes, and so do feel it."""
    contributions = analysis(seed=seed, experts=EXPERTS)
    factor = np.where(contributions.class_index == 0, 2.0**exponent, 1.0)[:, None, None]
    squared = ("norm_squared", "weighted_norm_squared")
    scaled = dataclasses.replace(
        contributions,
        sums={name: one * (factor**2 if name in squared else factor) for name, one in contributions.sums.items()},
    )
    ranked = recipe.but(
        criterion="weighted_norm", add_tokens=True, normalise="rank", floor=0, layer_floors={}, floor_clamp=None
    )
    assert make_map(scaled, ranked) == make_map(contributions, ranked)


def test_whom_a_second_score_protects_stays(analysis: Analysis) -> None:
    contributions = analysis(experts=EXPERTS)
    recipe = Recipe(criterion="weighted_norm", drop=8, protect_top=4, protect_aggregate="max", normalise="mean")
    by_max = scores(contributions, recipe.but(aggregate="max"))
    for layer, ids in enumerate(make_map(contributions, recipe).dropped):
        assert set(np.argsort(-by_max[layer], kind="stable")[:4].tolist()).isdisjoint(ids)


def test_the_best_of_each_class_stay(analysis: Analysis) -> None:
    contributions = analysis(experts=EXPERTS)
    recipe = Recipe(criterion="frequency", aggregate="sum", drop=6, protect_top_per_class=2)
    drop = make_map(contributions, recipe)
    for klass in contributions.classes:
        alone = scores(contributions, Recipe(criterion="frequency", classes=[klass], drop=0))
        for layer, ids in enumerate(drop.dropped):
            assert set(np.argsort(-alone[layer], kind="stable")[:2].tolist()).isdisjoint(ids)


def test_floors_go_by_the_second_analysis_layer_by_layer(analysis: Analysis) -> None:
    contributions, second = analysis(experts=EXPERTS), analysis(experts=EXPERTS, seed=9, klasses=("x", "y"))
    recipe = Recipe(drop=8, floor=1, layer_floors={"2": 4.0, "1": 0.0})
    pooled = np.sqrt(second.sum("weighted_norm_squared")).max(axis=0)
    decision = decide(contributions, recipe, second)
    assert decision.floors.counts.tolist() == [1, 0, 4]
    for layer, count in enumerate([1, 0, 4]):
        assert set(np.flatnonzero(decision.protection.floor[layer])) == set(np.argsort(-pooled[layer])[:count])
    assert not (decision.dropped & decision.protection.floor).any()
    assert make_map(contributions, recipe, second).provenance["floor_contributions_hash"] == second.content_hash
    with pytest.raises(InputError, match=r"second analysis, and none is given.*--floor-contributions"):
        make_map(contributions, recipe)
    with pytest.raises(MismatchError, match="second analysis has 3 layers of 8"):
        make_map(contributions, recipe, analysis())
    with pytest.raises(MismatchError, match="floor for layer 7"):
        make_map(contributions, recipe.but(layer_floors={"7": 1.0}), second)
    with pytest.raises(InputError, match="--layer-floor"):
        make_map(contributions, recipe.but(layer_floors={}, floor_layers_from="file"), second)


@pytest.mark.parametrize(
    ("floors", "clamp", "counts"),
    [
        ({"0": 4.7, "1": -3.0, "2": 2.0}, None, [4, 0, 2]),
        ({"0": 10.0, "1": 20.0, "2": 30.0}, (1, 6), [1, 4, 6]),  # 3.5 rounds to the even 4
        ({"0": 10.0, "1": 20.0, "2": 26.0}, (0, 5), [0, 3, 5]),
        ({"0": 7.0, "1": 7.0, "2": 7.0}, (2, 6), [2, 2, 2]),
        ({"0": 1.0, "2": 2.0}, (1, 3), [1, 5, 3]),
        ({"0": -1e100, "1": 3.9e18, "2": 1e100}, None, [0, EXPERTS, EXPERTS]),
        ({"0": -1e100, "1": 3.9e18, "2": 1e100}, (1, 1 << 20), [1, EXPERTS, EXPERTS]),
        ({}, (1, 3), [5, 5, 5]),
    ],
)
def test_floors_are_stretched_into_their_range(
    analysis: Analysis, floors: dict[str, float], clamp: tuple[int, int] | None, counts: list[int]
) -> None:
    recipe = Recipe(drop=1, floor=5, layer_floors=floors, floor_clamp=clamp, floor_analysis="same")
    assert decide(analysis(experts=EXPERTS), recipe).floors.counts.tolist() == counts


def test_floors_by_importance_are_higher_where_a_layer_matters_more(analysis: Analysis) -> None:
    contributions = analysis(experts=EXPERTS)
    louder = contributions.sum("weighted_norm_squared") * np.array([1.0, 1e4, 1e2])[None, :, None]
    contributions = dataclasses.replace(contributions, sums={"weighted_norm_squared": louder})
    recipe = Recipe(drop=1, floor_layers_from="importance", floor_clamp=(2, 6), floor_analysis="same")
    counts = decide(contributions, recipe).floors.counts.tolist()
    assert counts[1] == 6 and min(counts) == counts[0] == 2


def slow_minimums(
    kept: set[int], agg: list[float], best: list[int], minimums: dict[int, int], *, pinned: set[int], group_size: int
) -> set[int]:
    """One swap at a time, looking everything up anew, but for who is at a minimum when a class has its turn."""
    for klass, minimum in minimums.items():
        counts = {other: sum(best[e] == other for e in kept) for other in set(best)}
        for _ in range(minimum - counts.get(klass, 0)):
            back = [e for e in range(len(agg)) if e not in kept and best[e] == klass]
            away = [e for e in kept if e not in pinned and best[e] != klass]
            back = [e for e in back if any(e // group_size == other // group_size for other in away)]
            if not back:
                break
            comes = max(back, key=lambda e: (agg[e], -e))
            away = [e for e in away if e // group_size == comes // group_size]
            away = [e for e in away if counts[best[e]] > minimums.get(best[e], 0)] or away
            kept = kept - {min(away, key=lambda e: (agg[e], e))} | {comes}
    return kept


@given(st.data())
def test_minimums_equal_one_swap_at_a_time(data: st.DataObject) -> None:
    agg = data.draw(st.lists(st.integers(0, 6), min_size=EXPERTS, max_size=EXPERTS))
    best = data.draw(st.lists(st.integers(0, 3), min_size=EXPERTS, max_size=EXPERTS))
    kept = set(data.draw(st.sets(st.integers(0, EXPERTS - 1), min_size=1)))
    pinned = set(data.draw(st.sets(st.integers(0, EXPERTS - 1), max_size=5)))
    wanted = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=3, unique_by=lambda p: p[0]))
    size = data.draw(st.sampled_from([EXPERTS, 4, 3]))

    def mask(ids: set[int]) -> npt.NDArray[np.bool_]:
        return np.isin(np.arange(EXPERTS), list(ids))

    scores_ = np.array(agg, dtype=np.float64)
    found = with_minimums(
        mask(kept),
        scores_,
        np.array(best),
        dict(wanted),
        pinned=mask(pinned),
        barred=mask(set()),
        group=np.arange(EXPERTS) // size,
    )
    expected = slow_minimums(kept, scores_.tolist(), best, dict(wanted), pinned=pinned, group_size=size)
    assert set(np.flatnonzero(found).tolist()) == expected


def test_minimums_are_those_of_the_floor_analysis_and_unknown_classes_are_refused(analysis: Analysis) -> None:
    contributions, second = analysis(experts=EXPERTS), analysis(experts=EXPERTS, seed=4, klasses=("x", "y"))
    best = np.sqrt(second.sum("weighted_norm_squared")).argmax(axis=0)
    recipe = Recipe(drop=7, class_minimums=[("y", 4)])
    for layer, ids in enumerate(make_map(contributions, recipe, second).dropped):
        kept = sorted(set(range(EXPERTS)) - set(ids))
        assert sum(best[layer, kept] == 1) >= min(4, sum(best[layer] == 1))
    with pytest.raises(InputError, match=r"no class 'math', which class_minimums names.*x, y"):
        make_map(contributions, recipe.but(class_minimums=[("math", 1)]), second)


@given(seed=seeds, recipe=recipes, keep=st.sets(st.integers(0, 11), max_size=2), drop=st.sets(st.integers(0, 11)))
def test_a_person_overrules_everything_else(
    analysis: Analysis, seed: int, recipe: Recipe, keep: set[int], drop: set[int]
) -> None:
    drop = set(sorted(drop - keep)[: recipe.drop_of(EXPERTS)])
    changed = recipe.but(
        force_keep={"1": sorted(keep)}, force_drop={"1": sorted(drop)}, class_minimums=[("math", 3), ("code", 2)]
    )
    before = make_map(analysis(seed=seed, experts=EXPERTS), recipe.but(class_minimums=changed.class_minimums)).dropped
    after = make_map(analysis(seed=seed, experts=EXPERTS), changed).dropped
    assert keep.isdisjoint(after[1]) and drop <= set(after[1]) and len(after[1]) == recipe.drop
    assert (before[0], before[2]) == (after[0], after[2])


def test_to_overrule_more_than_there_is_room_for_is_refused(analysis: Analysis) -> None:
    contributions = analysis()
    with pytest.raises(InputError, match="force_keep names 7 experts of layer 0, and the recipe keeps 6"):
        make_map(contributions, Recipe(drop=2, force_keep={"0": list(range(7))}))
    with pytest.raises(InputError, match="force_drop names 3 experts of layer 1, and the recipe drops 2"):
        make_map(contributions, Recipe(drop=2, force_drop={"1": [0, 1, 2]}))
    with pytest.raises(InputError, match="force_drop names expert 8"):
        make_map(contributions, Recipe(drop=2, force_drop={"all": [8]}))
    with pytest.raises(MismatchError, match="force_keep names layer 9"):
        make_map(contributions, Recipe(drop=2, force_keep={"9": [1]}))


@given(seed=seeds, recipe=recipes)
def test_model_wide_all_layers_drop_the_same(analysis: Analysis, seed: int, recipe: Recipe) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    wide = recipe.but(scope="model", layer_floors={}, floor_clamp=None)
    drop = make_map(contributions, wide)
    assert len(set(drop.dropped)) == 1 and drop.dropped_count == recipe.drop
    one = dataclasses.replace(
        contributions,
        shape=dataclasses.replace(contributions.shape, layer_ids=(0,)),
        sums={name: values[:, :1] for name, values in contributions.sums.items()},
    )
    assert make_map(one, wide) == make_map(one, wide.but(scope="layer"))


def test_reap_over_pooled_classes_is_the_mean_over_all_tokens(analysis: Analysis) -> None:
    contributions = analysis(klasses=("math", "code", "math", "code"))
    total = {name: contributions.sum(name).sum(axis=0) for name in ("weighted_norm", "tokens")}
    expected = total["weighted_norm"] / np.maximum(total["tokens"], 1)
    np.testing.assert_allclose(scores(contributions, preset("REAP", 1)), expected, rtol=1e-12)
    pooled = scores(contributions, Recipe(criterion="frequency", pool_classes=True, class_weights={"code": 2}, drop=0))
    plain = scores(contributions, Recipe(criterion="frequency", class_weights={"code": 2}, drop=0))
    np.testing.assert_allclose(pooled, plain)


def test_zscores_have_mean_0_and_deviation_1_and_are_0_where_experts_do_not_differ() -> None:
    values = np.random.default_rng(0).lognormal(3, 1, (2, 3, 9))
    values[1, 2] = 7.0
    scored = normalise(values, "zscore")
    np.testing.assert_allclose(scored.mean(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(scored.std(axis=2), [[1, 1, 1], [1, 1, 0]])
    values[0, 0, 4] = -np.inf
    scored = normalise(values, "zscore")
    others = np.delete(values[0, 0], 4)
    assert scored[0, 0, 4] == -np.inf
    np.testing.assert_allclose(np.delete(scored[0, 0], 4), (others - others.mean()) / others.std())


@given(seed=seeds, aggregate=st.sampled_from(get_args(Aggregate)), klass=st.sampled_from(["math", "code"]))
def test_one_class_alone_is_ranked_alike_by_every_aggregation(
    analysis: Analysis, seed: int, aggregate: Aggregate, klass: str
) -> None:
    contributions = analysis(seed=seed, experts=EXPERTS)
    recipe = Recipe(classes=[klass], normalise="rank", aggregate=aggregate, drop=5)
    assert make_map(contributions, recipe) == make_map(contributions, recipe.but(aggregate="sum"))


def test_to_the_letter_of_the_generator_a_class_of_weight_0_is_still_a_class(analysis: Analysis) -> None:
    contributions = analysis(klasses=("math", "code"))
    recipe = Recipe(normalise="rank", aggregate="second", class_weights={"code": 0.0}, breadth_bonus=1.0, drop=2)
    ours, theirs = (scores(contributions, recipe.but(arithmetic=way)) for way in ("espalier", "published"))
    both = scores(contributions, recipe.but(class_weights={}, aggregate="mean", breadth_bonus=0.0))
    math = scores(contributions, Recipe(classes=["math"], normalise="rank", drop=0))
    np.testing.assert_allclose(ours, 2 * math)  # its own second highest, and its own breadth
    np.testing.assert_allclose(theirs, both)  # the second highest is code's 0; breadth is over both


def test_classes_that_take_part_are_named_and_have_to_exist(analysis: Analysis) -> None:
    contributions = analysis()
    only = make_map(contributions, Recipe(classes=["code"], drop=3))
    assert only == make_map(contributions, Recipe(class_weights={"math": 0, "creative": 0}, drop=3))
    with pytest.raises(InputError, match=r"no class 'cooking', which the recipe looks at.*math, code, creative"):
        make_map(contributions, Recipe(classes=["cooking"], drop=3))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_map_of_a_full_analysis(analysis: Analysis, name: str) -> None:
    drop = make_map(analysis(experts=128, top_k=8), PRESETS[name].recipe)
    assert drop.dropped_count == PRESETS[name].recipe.drop
