"""What a person chose before, and what they took back: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

from components.change import change_text, changed_fields
from studio.errors import InputError
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe

KEPT_STEPS = 500
"""Of one tab; a step has a few kilobytes."""
ONE_MOVE_S = 0.7
"""Changes of the same control that follow each other faster are one step: a slider on its way."""
_GRADUAL = (
    *("drop", "class_weights", "alpha", "outlier_threshold", "protect_top_per_question", "breadth_bonus"),
    *("protect_top", "protect_class_weights", "protect_top_per_class", "floor", "floor_clamp", "class_minimums"),
)
"""Fields of a recipe that sliders, or digits one after the other, change."""


@dataclass(frozen=True)
class Choice:
    """What makes a map, and so what undo brings back."""

    preset: str
    recipe: Recipe
    imported: DropMap | None = None
    second: str | None = None
    """Content hash of the second analysis, which floors go by."""


@dataclass(frozen=True)
class Step:
    """A change in words, and what was there on the other side of it."""

    what: str
    choice: Choice
    gradual: str = ""
    """The field that a slider changed, empty for any other change."""


@dataclass(frozen=True)
class History:
    """The steps of a tab; the last of `past` is the next to take back, the last of `future` the next to do again."""

    past: tuple[Step, ...] = ()
    future: tuple[Step, ...] = ()
    changed: float = field(default=float("-inf"), compare=False)
    """When the last step was made, in seconds of any clock."""

    def after(self, before: Choice, after: Choice, now: float, what: str = "") -> History:
        """The history once `before` has become `after`, unchanged where they are the same; `what` are the words for it,
        where what changed does not say it."""
        if before == after:
            return self
        what, gradual = (what, "") if what else _difference(before, after)
        past = (*self.past, Step(what, before, gradual))
        if gradual and self.past and self.past[-1].gradual == gradual and now - self.changed < ONE_MOVE_S:
            first = self.past[-1].choice
            past = (*self.past[:-1], Step(_difference(first, after)[0] or "back again", first, gradual))
        return History(past[-KEPT_STEPS:], (), now)

    def undo(self, current: Choice) -> tuple[History, Choice]:
        """The choice before the last step, and the history there; both as they are where there is no step."""
        if not self.past:
            return self, current
        step = self.past[-1]
        return History(self.past[:-1], (*self.future, Step(step.what, current))), step.choice

    def redo(self, current: Choice) -> tuple[History, Choice]:
        """The choice after the step that was taken back last, and the history there."""
        if not self.future:
            return self, current
        step = self.future[-1]
        return History((*self.past, Step(step.what, current)), self.future[:-1]), step.choice

    @property
    def steps(self) -> tuple[str, ...]:
        """Every change in words, the first first: those that count, then those that were taken back."""
        return tuple(step.what for step in (*self.past, *reversed(self.future)))

    def to(self, place: int, current: Choice) -> tuple[History, Choice]:
        """The choice after the first `place` of `steps`, and the history there. `InputError` where there are fewer."""
        if type(place) is not int or not 0 <= place <= len(self.steps):
            raise InputError(f"The history has no step {place!r}.", "Choose one of the list.")
        history, choice = self, current
        while len(history.past) > place:
            history, choice = history.undo(choice)
        while len(history.past) < place:
            history, choice = history.redo(choice)
        return history, choice


def _difference(before: Choice, after: Choice) -> tuple[str, str]:
    """(what changed in words, the field where a slider did it)."""
    if after.imported is not None:
        return "an imported map", ""
    if before.imported is not None:
        return "back to a recipe", ""
    old, new = before.recipe, after.recipe
    fields = changed_fields(old, new)
    gradual = fields[0] if len(fields) == 1 and fields[0] in _GRADUAL else ""
    if before.preset != after.preset:
        return f"ranked by {after.preset}, not {before.preset}", gradual
    if before.second != after.second and not fields:
        return "floors from another analysis", ""
    return change_text(old, new), gradual
