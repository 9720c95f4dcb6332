"""The report on searching: prompts of its own, and a table that replaces the one before."""

from __future__ import annotations

from studio.contributions.file import load
from studio.contributions.sources import prompts_of
from studio.demo.exercises import CLASSES
from studio.demo.report import into_card
from studio.demo.samples import ASSETS
from studio.demo.search_report import BEGIN, END, HELD_OUT, MODEL, SEARCHED, search_prompts, story
from studio.evaluate.divergence import Divergence
from studio.evaluate.held_out import question_of
from studio.evaluate.search_candidates import random_map
from studio.evaluate.search_points import Point
from studio.evaluate.search_run import Finalist, SearchResult
from studio.evaluate.virtual import Measurement
from studio.recipes.recipe import Recipe


def test_the_search_never_sees_what_it_is_judged_by() -> None:
    unseen = prompts_of(str(HELD_OUT))
    made = search_prompts(unseen)
    assert not {*map(question_of, made.prompts)} & {*map(question_of, unseen.prompts)}
    assert set(made.classes) == set(CLASSES) and max(made.classes.values()) == SEARCHED
    assert made == search_prompts(unseen)


def test_a_table_replaces_the_one_before_and_leaves_the_rest_of_the_card() -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    once = into_card(card, "| new |", BEGIN, END)
    assert once.count("| new |") == 1 and into_card(once, "| new |", BEGIN, END) == once
    assert once.partition(BEGIN)[0] == card.partition(BEGIN)[0] and once.partition(END)[2] == card.partition(END)[2]


def test_the_text_has_its_figures_from_the_search_that_the_table_is_of() -> None:
    contributions = load(ASSETS / "demo-contributions.safetensors")
    divergence = Divergence(10, 0.25, 0.01, 0.2, 0.9, 1.0, 0.9, 1.1, 1.2)
    searched = Measurement("", "", 149, 1.0, divergence, {"math": divergence})
    maps = [random_map(contributions, drop, 0) for drop in (8, 16)]
    finalists = tuple(Finalist(one.dropped_count, "refined", None, one, searched, searched) for one in maps)
    point = Point(0, "refined", "", 8, Recipe(drop=8), searched, 1.0)
    told = story(SearchResult((point, point), finalists, {}), 149, 500, 300)
    assert told.startswith("2 recipes were measured, on 149 other held-out exercises.") and "of 500 answers" in told
    assert "the best has 0.2500 at 25 % and 0.2500 at 50 %" in told and "a standard error of 1.7 points" in told
