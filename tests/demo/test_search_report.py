"""The report on searching: prompts of its own, and a table that replaces the one before."""

from __future__ import annotations

from studio.contributions.sources import prompts_of
from studio.demo.exercises import CLASSES
from studio.demo.report import into_card
from studio.demo.search_report import BEGIN, END, HELD_OUT, MODEL, SEARCHED, search_prompts
from studio.evaluate.held_out import question_of


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
