"""A search finds what measuring finds, goes on where it was interrupted, and says the same for the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.contributions.model import SUMS, Contributions, Question
from studio.errors import Cancelled, FormatError, InputError, MismatchError
from studio.evaluate.divergence import Divergence
from studio.evaluate.search import check_drops, search
from studio.evaluate.search_candidates import fixed_recipes, random_map, weighted_recipes
from studio.evaluate.search_points import JOURNAL, Journal, Point, best, frontier, read_journal
from studio.evaluate.search_refiner import Refiner
from studio.evaluate.search_tuner import Tuner
from studio.evaluate.virtual import Measurement, Ruler, VirtualModel
from studio.families import shape_of_config
from studio.families.base import MoeShape
from studio.progress import Progress
from studio.recipes.apply import make_map
from studio.recipes.recipe import Recipe
from tests.contributions.tiny import tiny_model, tiny_tokenizer
from tests.evaluate.test_evaluate_virtual import passages

ASKED = {"model": "tiny"}


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    model = tiny_model()
    virtual = VirtualModel(model, tiny_tokenizer(), shape_of_config(model.config.to_dict()), "tiny")
    return Ruler(virtual, passages())


def analysis(shape: MoeShape, seed: int = 0, classes: int = 3) -> Contributions:
    lots = np.random.default_rng(seed)
    questions = tuple(Question(str(number), f"class {number % classes}") for number in range(3 * classes))
    sums = {name: np.floor(lots.lognormal(3, 1, (len(questions), shape.layers, shape.experts))) for name in SUMS}
    return Contributions(shape, "tiny", questions, sums, "lots")


def run(ruler: Ruler, folder: Path, most: int, progress: Progress | None = None, seed: int = 0) -> list[Point]:
    contributions = analysis(ruler.virtual.shape)
    extra: dict[str, Any] = {} if progress is None else {"progress": progress}
    return search(
        ruler, contributions, Journal(folder, ASKED), drops=(3, 6), budget_s=3600, seed=seed, most=most, **extra
    )


def said(points: list[Point]) -> list[tuple[Any, ...]]:
    """Everything but how long it took."""
    return [
        (p.number, p.stage, p.label, p.drop, p.recipe, p.measurement.overall, p.measurement.classes) for p in points
    ]


def test_every_stage_is_measured_and_each_point_is_what_its_recipe_does(ruler: Ruler, tmp_path: Path) -> None:
    points = run(ruler, tmp_path, most=32)
    assert {point.stage for point in points} == {"fixed", "weights", "optimised", "refined"}
    assert {point.drop for point in points} == {3, 6}
    assert [point.number for point in points] == list(range(32))
    assert len({point.measurement.map_hash for point in points}) == 32, "no map is measured twice"
    for point in points[::9]:
        made = make_map(analysis(ruler.virtual.shape), point.recipe)
        assert made.content_hash == point.measurement.map_hash and made.dropped_count == point.drop
        assert ruler.measure(made).classes == point.measurement.classes


def test_a_search_that_was_cancelled_goes_on_to_the_same_points(ruler: Ruler, tmp_path: Path) -> None:
    whole = run(ruler, tmp_path / "whole", most=30)

    def impatient(done: int, total: int, unit: str = "", message: str = "") -> None:
        if message.startswith(f"{expected} recipes"):
            raise Cancelled()

    for expected in (5, 26):
        with pytest.raises(Cancelled):
            run(ruler, tmp_path / "parts", most=30, progress=impatient)
        assert len(read_journal(tmp_path / "parts").points) == expected
    assert said(run(ruler, tmp_path / "parts", most=30)) == said(whole)


def test_a_line_that_was_being_written_is_forgotten(ruler: Ruler, tmp_path: Path) -> None:
    whole = run(ruler, tmp_path, most=6)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[:-40])
    assert len(read_journal(tmp_path).points) == 5
    assert said(run(ruler, tmp_path, most=6)) == said(whole)
    assert said(list(read_journal(tmp_path).points)) == said(whole)


def test_a_budget_that_is_spent_measures_nothing_more(ruler: Ruler, tmp_path: Path) -> None:
    contributions = analysis(ruler.virtual.shape)
    few = search(ruler, contributions, Journal(tmp_path, ASKED), drops=(6,), budget_s=3600, most=4)
    spent = Journal(tmp_path, ASKED).spent
    assert spent > 0
    again = search(ruler, contributions, Journal(tmp_path, ASKED), drops=(6,), budget_s=spent / 2)
    assert said(again) == said(few)


def test_another_seed_searches_elsewhere(ruler: Ruler, tmp_path: Path) -> None:
    one, other = run(ruler, tmp_path / "one", 28), run(ruler, tmp_path / "other", 28, seed=5)
    fixed = [point.label for point in one if point.stage in ("fixed", "weights")]
    assert fixed == [point.label for point in other if point.stage in ("fixed", "weights")]
    assert said(one) != said(other)


def test_a_journal_of_another_search_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, {"model": "a", "seed": 1})
    with pytest.raises(MismatchError, match="other seed"):
        Journal(tmp_path, {"model": "a", "seed": 2})
    (tmp_path / JOURNAL).write_text('{"format": 1, "asked": {}}\n{"number": 0}\n')
    with pytest.raises(FormatError, match="line 2"):
        read_journal(tmp_path)


@pytest.mark.parametrize(
    ("drops", "words"), [((), "No number"), ((3, 3), "twice"), ((0,), "at least one"), ((10,), "at most 9")]
)
def test_impossible_drop_counts_are_refused(drops: tuple[int, ...], words: str, ruler: Ruler) -> None:
    with pytest.raises(InputError, match=words):
        check_drops(analysis(ruler.virtual.shape), drops)


SHAPE = MoeShape("gemma4", (0, 1, 2, 5), 12, 2, 8, 8)
GROUPED = replace(SHAPE, family="deepseek", groups=3, groups_per_token=2)


@pytest.mark.parametrize("shape", [SHAPE, GROUPED])
def test_swaps_change_places_in_few_layers_and_never_across_groups(shape: MoeShape) -> None:
    contributions = analysis(shape)
    start = Recipe(criterion="contribution", drop=6)
    refiner = Refiner(contributions, seed=0)
    refiner.begin(start, 1.0)
    reached, mask = 1.0, make_map(contributions, start).mask
    for step in range(60):
        recipe = refiner.ask()
        assert recipe is not None
        made = make_map(contributions, recipe)
        made.check(shape)
        changed = made.mask != mask
        assert changed.any() and (changed.sum(axis=1) <= 2).all() and changed.any(axis=1).sum() <= 1
        if refiner.tell(reached - 0.01 if step % 3 == 0 else reached + 0.01):
            reached, mask = reached - 0.01, made.mask
    assert (mask != make_map(contributions, start).mask).sum() > 4


def test_what_is_not_better_is_not_taken() -> None:
    refiner = Refiner(analysis(SHAPE), seed=0)
    refiner.begin(Recipe(criterion="contribution", drop=6), 1.0)
    refiner.ask()
    assert not refiner.tell(1.0) and not refiner.tell(None) and not refiner.tell(float("nan"))
    refiner.begin(Recipe(criterion="gate", drop=6), 2.0)
    proposed = refiner.ask()
    assert proposed is not None and proposed.criterion == "contribution"


def divergence_of(recipe: Recipe, contributions: Contributions) -> float:
    """A made-up one: how far the map is from that of one recipe."""
    wanted = make_map(contributions, Recipe(criterion="ean", normalise="rank", aggregate="max", drop=6)).mask
    return float((make_map(contributions, recipe).mask != wanted).mean())


def test_the_optimiser_finds_more_than_lots_and_repeats_itself_for_a_seed() -> None:
    contributions = analysis(SHAPE)

    def tried(seed: int) -> list[tuple[Recipe, float]]:
        tuner = Tuner(contributions, 6, seed)
        made = []
        for _ in range(40):
            recipe = tuner.ask()
            made.append((recipe, divergence_of(recipe, contributions)))
            tuner.tell(made[-1][1])
        return made

    found = tried(1)
    assert found == tried(1) != tried(2)
    assert all(recipe.drop == 6 for recipe, _ in found)
    assert min(value for _, value in found) < min(value for _, value in found[:5])


def test_an_optimiser_that_hears_of_no_map_goes_on() -> None:
    tuner = Tuner(analysis(SHAPE), 6, 0)
    for value in (None, float("nan"), float("inf"), 0.5):
        tuner.ask()
        tuner.tell(value)


def test_the_optimiser_passes_over_parameters_that_make_no_recipe() -> None:
    tuner = Tuner(analysis(SHAPE), 6, 0)
    seen = set()
    for _ in range(60):
        recipe = tuner.ask()
        seen.add((recipe.normalise, recipe.aggregate))
        tuner.tell(0.5)
    assert ("zscore", "lp4") not in seen and len(seen) > 10


def test_fixed_recipes_need_the_sums_that_they_are_made_of() -> None:
    contributions = analysis(SHAPE)
    assert list(fixed_recipes(contributions, 6)) == ["frequency", "EAN", "REAP", "total", "max over classes"]
    assert len(list(weighted_recipes(contributions, 6))) == 6
    counted = Contributions(SHAPE, "", contributions.questions, {"tokens": contributions.sums["tokens"]})
    assert list(fixed_recipes(counted, 6)) == ["frequency"]
    assert not list(weighted_recipes(counted, 6))
    assert Tuner(counted, 6, 0).ask().criterion == "frequency"


@pytest.mark.parametrize("shape", [SHAPE, GROUPED])
def test_lots_are_a_map_of_the_model(shape: MoeShape) -> None:
    made = random_map(analysis(shape), 6, seed=3)
    made.check(shape)
    assert made.dropped_count == 6 and made != random_map(analysis(shape), 6, seed=4)


def a_point(number: int, drop: int, kl: float) -> Point:
    one = Divergence(5, kl, 0.0, kl, kl, kl, 1.0, 2.0, 2.0)
    return Point(number, "fixed", "", drop, Recipe(drop=drop), Measurement("", "", 1, 0.0, one, {"a": one}), 1.0)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 6), st.floats(0, 1)), min_size=1, max_size=30))
def test_nothing_beats_the_frontier_and_it_beats_all_else(found: list[tuple[int, float]]) -> None:
    points = [a_point(number, drop, kl) for number, (drop, kl) in enumerate(found)]
    front = frontier(points, "a")
    assert front == frontier(points)
    assert [p.drop for p in front] == sorted({p.drop for p in front}, reverse=True)
    assert [p.kl() for p in front] == sorted((p.kl() for p in front), reverse=True)
    for point in points:
        assert any(other.drop >= point.drop and other.kl() <= point.kl() for other in front)
        better = [q for q in points if q.drop >= point.drop and q.kl() <= point.kl()]
        strictly = [q for q in better if q.drop > point.drop or q.kl() < point.kl()]
        assert (point in front) <= (not strictly)


def test_the_best_of_a_stage_and_class_is_found() -> None:
    points = [a_point(0, 3, 0.5), replace(a_point(1, 3, 0.2), stage="refined"), a_point(2, 6, 0.1)]
    assert (
        best(points, 3).number == 1
        and best(points, 3, ["fixed"]).number == 0
        and best(points, 6, klass="a").number == 2
    )
    with pytest.raises(InputError, match="Nothing was measured"):
        best(points, 4)


def test_a_point_survives_json() -> None:
    point = a_point(1, 3, 0.25)
    assert Point.from_json(json.loads(json.dumps(point.to_json()))) == point
