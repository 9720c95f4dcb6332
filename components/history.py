"""What a person chose before, and what they took back: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    def after(self, before: Choice, after: Choice, now: float) -> History:
        """The history once `before` has become `after`, unchanged where they are the same."""
        if before == after:
            return self
        what, gradual = _difference(before, after)
        past = (*self.past, Step(what, before, gradual))
        if gradual and self.past and self.past[-1].gradual == gradual and now - self.changed < ONE_MOVE_S:
            past = (*self.past[:-1], Step(what, self.past[-1].choice, gradual))
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


def _difference(before: Choice, after: Choice) -> tuple[str, str]:
    """(what changed in words, the field where a slider did it)."""
    if after.imported is not None:
        return "use an imported map", ""
    if before.imported is not None:
        return "go back to a recipe", ""
    old, new = before.recipe, after.recipe
    fields = [name for name in Recipe.model_fields if name != "version" and getattr(old, name) != getattr(new, name)]
    gradual = fields[0] if len(fields) == 1 and fields[0] in _GRADUAL else ""
    if fields == ["drop"]:
        return f"drop {new.drop} in place of {old.drop}", gradual
    if fields and set(fields) <= {"force_keep", "force_drop"}:
        return "overrule experts", ""
    if len(fields) == 1:
        return f"change {fields[0].replace('_', ' ')}", gradual
    return "rank experts in another way" if fields else "take floors from another analysis", ""
