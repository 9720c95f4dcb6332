"""What one browser tab shows, as plain frozen values: nothing of gradio, and no arrays."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from components.history import Choice, History
from components.markup import class_label
from studio.errors import InputError
from studio.families import MoeShape
from studio.recipes.dropmap import DropMap, most_droppable
from studio.recipes.presets import PUBLISHED_EXPERTS, preset, preset_named
from studio.recipes.recipe import Recipe

Scale = Literal["raw", "share", "rank"]
ALL = "all"
"""The class selector's choice of all classes together."""

OWN = "own"
"""The preset of a recipe that was loaded from a file and is none of the published ones."""


@dataclass(frozen=True)
class View:
    """What the map is coloured by."""

    klass: str = ALL
    minus: str | None = None
    """The class that is subtracted; None: nothing is."""
    scale: Scale = "share"

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise InputError(f"There is no scale {self.scale!r}.", f"There are {', '.join(get_args(Scale))}.")
        if self.minus is not None and ALL in (self.klass, self.minus):
            raise InputError("A difference needs two classes.", "Choose one class on each side.")

    def within(self, classes: tuple[str, ...]) -> View:
        """This view, as far as an analysis with `classes` can show it."""
        klass = self.klass if self.klass in classes else ALL
        minus = self.minus if self.minus in classes and klass != ALL else None
        return View(klass, minus, self.scale)


def most_dropped(shape: MoeShape, wanted: int | None = None) -> int:
    """The most experts that a layer of `shape` can lose, but not more than `wanted`: equally many of each group."""
    most = most_droppable(shape)
    return most if wanted is None else min(wanted, most) // shape.groups * shape.groups


HERE = "here"
"""The card of this machine."""


@dataclass(frozen=True)
class Target:
    """Where the smaller model is to run, as the table of all tiers asks."""

    card: str = ""
    """GiB of a card, `HERE` for the one of this machine; empty: whichever comes first."""
    context: int = 8192
    """Tokens of a conversation."""
    shown: bool = False
    """Whether the table is open."""


@dataclass(frozen=True)
class Kept:
    """A map that was put aside to compare with; it stays as it was whatever is chosen later."""

    label: str
    drop: DropMap

    @property
    def name(self) -> str:
        return f"{self.label}, {self.drop.dropped_count} dropped"


@dataclass(frozen=True)
class StudioState:
    """One tab: which model and analysis are open, what is chosen, what is looked at.

    `reference` is the name that jobs know the model by; `analysis` the content hash of the contributions.
    """

    reference: str
    analysis: str | None
    recipe: Recipe
    preset: str
    view: View = View()
    imported: DropMap | None = None
    """A published map that is shown instead of the recipe's own."""
    second: str | None = None
    """Content hash of the second analysis, which floors and minimums go by where the recipe wants one."""
    target: Target = Target()
    imatrix: str | None = None
    """Name of an importance matrix of this model, in the workspace."""
    tuning: bool = False
    """Whether the single options of the recipe are open."""
    cell: tuple[int, int] | None = None
    """(row, expert) of the cell whose numbers are shown."""
    aside: Kept | None = None
    """The map A of a comparison, which no change of the recipe touches."""
    history: History = field(default_factory=History)
    answered: int = 0
    """Number of the last message of the map (assets/heatmap_work.js) that this state follows from."""
    user: str = ""
    """Whose tab this is, so that what it shows can be kept; empty until the browser has asked for it."""

    @classmethod
    def opening(cls, reference: str, analysis: str | None, shape: MoeShape | None) -> StudioState:
        """What the page shows first: a quarter of the experts dropped (or what top-k allows of it), by the preset that
        keeps specialists."""
        first = "98e-v4"
        drop = most_dropped(shape, shape.experts // 4) if shape else 0
        return cls(reference, analysis, preset(first, drop, {}), first)

    def opening_another(self, reference: str, analysis: str | None, shape: MoeShape) -> StudioState:
        """What this tab shows of another grid, for which nothing fits that was chosen."""
        opened = StudioState.opening(reference, analysis, shape)
        same = {name: getattr(self, name) for name in ("view", "target", "tuning", "answered", "user")}
        return replace(opened, **same)

    @property
    def choice(self) -> Choice:
        """What makes the map."""
        return Choice(self.preset, self.recipe, self.imported, self.second)

    def having(self, choice: Choice, what: str = "") -> StudioState:
        """Another choice, as one step of the history, which is called `what` where that is given."""
        return self._at(self.history.after(self.choice, choice, time.monotonic(), what), choice)

    def _at(self, history: History, choice: Choice) -> StudioState:
        return replace(self, **vars(choice), history=history)

    def choosing(self, name: str, drop: int, weights: Mapping[str, float]) -> StudioState:
        """Another preset, drop count or class weights; what is said by hand stays, an imported map is left behind."""
        return self.having(Choice(name, self._named(name, drop, weights), second=self.second))

    def _named(self, name: str, drop: int, weights: Mapping[str, float]) -> Recipe:
        if name == OWN:
            taking_part = self.recipe.classes or weights
            weights = {klass: weight for klass, weight in weights.items() if klass in taking_part}
            return self.recipe.but(drop=drop, class_weights=weights)
        by_hand = {"force_keep": self.recipe.force_keep, "force_drop": self.recipe.force_drop}
        return preset(name, drop, dict(weights)).but(**by_hand)

    def cooking(self, recipe: Recipe, experts: int = PUBLISHED_EXPERTS) -> StudioState:
        """Another recipe, for layers of `experts`; it is named where it is one of the presets."""
        return self.cooking_with(self.second, recipe, experts)

    def cooking_with(self, second: str | None, recipe: Recipe, experts: int) -> StudioState:
        """Another recipe and another second analysis (None: no longer one), in one step."""
        return self.having(Choice(preset_named(recipe, experts) or OWN, recipe, second=second))

    def overruling(self, recipe: Recipe) -> StudioState:
        """The same recipe with other experts kept or dropped by hand; an imported map is left behind."""
        return self.having(replace(self.choice, recipe=recipe, imported=None))

    def undone(self) -> StudioState:
        """One step back in the history."""
        return self._at(*self.history.undo(self.choice))

    def redone(self) -> StudioState:
        """One step forward in the history."""
        return self._at(*self.history.redo(self.choice))

    def at_step(self, place: int) -> StudioState:
        """After the first `place` steps of the history. Raises as `History.to` does."""
        return self._at(*self.history.to(place, self.choice))

    def looking(self, view: View) -> StudioState:
        """Another view of the same choice."""
        return replace(self, view=view)

    def targeting(self, target: Target) -> StudioState:
        """Sizes for another card or another length of conversation."""
        return replace(self, target=target)

    def weighing(self, imatrix: str | None) -> StudioState:
        """With another importance matrix, or without."""
        return replace(self, imatrix=imatrix)

    def pointing(self, row: object, expert: object) -> StudioState:
        """At a cell; whether the map has it is for the engine to say."""
        if type(row) is not int or type(expert) is not int:
            raise InputError(f"{row!r}, {expert!r} is no cell of the map.", "Click a cell.")
        return replace(self, cell=(row, expert))

    def finding(self, recipe: Recipe, experts: int, what: str) -> StudioState:
        """A recipe that was found for this analysis, in one step that is called `what`."""
        return self.having(Choice(preset_named(recipe, experts) or OWN, recipe, second=self.second), what)

    def showing(self, imported: DropMap | None) -> StudioState:
        """An imported map, or (None) the recipe's own again."""
        return self.having(replace(self.choice, imported=imported))


def weights_json(classes: tuple[str, ...], weights: Mapping[str, float]) -> str:
    """The class weights as assets/weights.js reads them."""
    return json.dumps(
        [{"name": klass, "label": class_label(klass), "weight": weights.get(klass, 1.0)} for klass in classes]
    )


def weights_from_json(text: str, classes: tuple[str, ...]) -> dict[str, float]:
    """What assets/weights.js sent, checked; classes that count once are left out, as a recipe does.

    Raises `InputError` for anything that a recipe cannot have.
    """
    try:
        sent = {str(entry["name"]): float(entry["weight"]) for entry in json.loads(text)}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError("The class weights that the page sent cannot be read.", "Reload the page.") from error
    for klass, weight in sent.items():
        if klass not in classes or not 0 <= weight < math.inf:
            raise InputError(f"The class {klass!r} cannot have the weight {weight}.", "Give 0 or more.")
    return {klass: sent[klass] for klass in classes if klass in sent and sent[klass] != 1.0}
