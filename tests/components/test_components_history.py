"""Every change can be taken back and done again, and a slider on its way is one change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.change import change_text
from components.history import ONE_MOVE_S, Choice, History, Step
from components.state import StudioState
from components.steps import steps_html
from studio.errors import InputError
from studio.families import MoeShape
from studio.recipes.recipe import Recipe

SLOW = 2 * ONE_MOVE_S


def choice(drop: int, **fields: object) -> Choice:
    return Choice("own", Recipe(drop=drop, **fields))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_undo_goes_back_to_the_start_and_redo_to_the_end(drops: list[int]) -> None:
    history, current, seen = History(), choice(9), [choice(9)]
    for number, drop in enumerate(drops):
        history = history.after(current, choice(drop), number * SLOW)
        current = choice(drop)
        if current != seen[-1]:
            seen.append(current)
    for expected in [*reversed(seen[:-1]), seen[0]]:  # once more than there are steps
        history, current = history.undo(current)
        assert current == expected
    for expected in [*seen[1:], seen[-1]]:
        history, current = history.redo(current)
        assert current == expected


def test_a_slider_on_its_way_is_one_step_and_a_pause_ends_it() -> None:
    history = History().after(choice(8), choice(9), 0.0).after(choice(9), choice(10), 0.1)
    assert history.undo(choice(10))[1] == choice(8)
    later = history.after(choice(10), choice(11), 0.1 + SLOW)
    assert later.undo(choice(11))[1] == choice(10)


def test_what_is_said_by_hand_is_a_step_however_fast_it_comes() -> None:
    one, two = choice(8, force_keep={"0": [1]}), choice(8, force_keep={"0": [1, 2]})
    history = History().after(choice(8), one, 0.0).after(one, two, 0.01)
    assert [step.what for step in history.past] == [
        "kept by hand: layer 0, expert 1",
        "kept by hand: layer 0, expert 2",
    ]


def test_a_slider_on_its_way_is_told_from_where_it_began() -> None:
    history = History().after(choice(8), choice(9), 0.0).after(choice(9), choice(12), 0.1)
    assert history.steps == ("drop 8 → 12",)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"drop": 32}, {"drop": 40}, "drop 32 → 40"),
        ({"keep": 9}, {"drop": 3}, "drop 3"),
        ({}, {"class_weights": {"code": 3.0}}, "Code weight 1 → 3"),
        ({}, {"class_weights": {"a": 0.5, "b": 2, "c": 3}}, "A weight 1 → 0.5, B weight 1 → 2 and 1 more"),
        ({}, {"normalise": "rank", "pool_classes": True}, "pool classes no → yes, normalise none → rank"),
        ({}, {"class_minimums": [("code", 3)]}, "class minimums changed"),
        ({}, {"force_keep": {"4": [7]}}, "kept by hand: layer 4, expert 7"),
        ({"force_keep": {"4": [7]}}, {"force_drop": {"4": [7]}}, "dropped by hand: layer 4, expert 7"),
        ({"force_drop": {"4": [7]}}, {}, "released: layer 4, expert 7"),
        ({}, {"force_drop": {"4": [1, 2], "5": [1, 2]}}, "dropped by hand: 4 experts of 2 layers"),
        ({"force_keep": {"0": [7], "1": [7]}}, {"force_keep": {"all": [7]}}, "kept by hand: all layers, expert 7"),
    ],
)
def test_a_step_says_in_a_few_words_what_changed(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    assert change_text(*(Recipe(**({} if "keep" in one else {"drop": 3}) | one) for one in (before, after))) == words


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 8))
def test_every_step_can_be_gone_to_and_come_back_from(drops: list[int], place: int) -> None:
    history, current, seen = History(), choice(9), [choice(9)]
    for number, drop in enumerate(drops):
        history, before = history.after(current, choice(drop), number * SLOW), current
        current = choice(drop)
        seen += [current] if current != before else []
    place = min(place, len(history.steps))
    there, found = history.to(place, current)
    assert found == seen[place] and there.steps == history.steps
    assert there.to(len(seen) - 1, found)[1] == current
    for wrong in (-1, len(seen), True, "1", None):
        with pytest.raises(InputError, match="no step"):
            history.to(wrong, current)  # type: ignore[arg-type]


def test_the_list_marks_where_one_is_and_holds_no_markup() -> None:
    history = History((Step("<img>", choice(8)), Step("drop 8 → 9", choice(8))), (Step("drop 9 → 10", choice(10)),))
    html = steps_html(history)
    assert "<img" not in html and html.count("<li") == 4
    assert "data-step='2' aria-current='step'>drop 8 → 9<" in html
    assert html.count("class=undone") == 1 and html.index("drop 9 → 10") < html.index("drop 8 → 9")


def test_a_change_after_undo_leaves_what_was_undone_behind() -> None:
    history, current = History().after(choice(8), choice(9), 0.0).undo(choice(9))
    assert history.future and not history.after(current, choice(3), 1.0).future


def test_nothing_changed_is_no_step() -> None:
    assert History().after(choice(8), choice(8), 0.0) == History()


def test_what_is_said_by_hand_outlives_another_preset() -> None:
    state = StudioState.opening("pear", "hash", MoeShape("gemma4", (0,), 32, 4, 1, 1))
    by_hand = state.overruling(state.recipe.but(force_drop={"0": [3]}))
    chosen = by_hand.choosing("98e-v3", 9, {})
    assert chosen.recipe.force_drop == {"0": [3]} and chosen.preset == "98e-v3"
    assert chosen.undone().undone().choice == state.choice
    assert state.cooking(by_hand.recipe).preset == "98e-v4", "what is said by hand does not make it another ranking"
