"""Every change can be taken back and done again, and a slider on its way is one change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from components.history import ONE_MOVE_S, Choice, History
from components.state import StudioState
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
    assert [step.what for step in history.past] == ["overrule experts", "overrule experts"]


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
