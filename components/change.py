"""What is different between two recipes, in the few words that a list of steps has room for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from components.markup import class_label
from studio.recipes.recipe import ALL_LAYERS, Recipe

_MOST_PARTS = 2
"""So many differences are named; more are counted."""
_BY_HAND = ("force_keep", "force_drop")

Cells = Collection[tuple[str, int]]


def changed_fields(old: Recipe, new: Recipe) -> list[str]:
    """The fields that differ, in the order of the recipe."""
    return [name for name in Recipe.model_fields if name != "version" and getattr(old, name) != getattr(new, name)]


def change_text(old: Recipe, new: Recipe) -> str:
    """Such as "drop 32 → 40", "Code weight 1 → 3", "kept by hand: layer 4, expert 7"."""
    fields = changed_fields(old, new)
    parts = [part for name in fields if name not in _BY_HAND for part in _WORDS.get(name, _plain(name))(old, new)]
    if set(fields) & {*_BY_HAND}:
        parts += _by_hand(old, new)
    more = f" and {len(parts) - _MOST_PARTS} more" if len(parts) > _MOST_PARTS else ""
    return ", ".join(parts[:_MOST_PARTS]) + more


def _plain(name: str) -> Callable[[Recipe, Recipe], list[str]]:
    words = name.replace("_", " ")

    def told(old: Recipe, new: Recipe) -> list[str]:
        before, after = getattr(old, name), getattr(new, name)
        if any(isinstance(value, (Mapping, list)) for value in (before, after)):
            return [f"{words} changed"]
        return [f"{words} {_value(before)} → {_value(after)}"]

    return told


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " to ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _counts(old: Recipe, new: Recipe) -> list[str]:
    """Of both ways to say how many leave; where the way itself changes, the new one is enough."""
    for name in ("drop", "keep"):
        before, after = getattr(old, name), getattr(new, name)
        if before is not None and after is not None:
            return [f"{name} {before} → {after}"]
    return [f"drop {new.drop}" if new.drop is not None else f"keep {new.keep}"]


def _weights(old: Recipe, new: Recipe) -> list[str]:
    before, after = old.class_weights, new.class_weights
    return [
        f"{class_label(klass)} weight {before.get(klass, 1.0):g} → {after.get(klass, 1.0):g}"
        for klass in sorted({*before, *after})
        if before.get(klass, 1.0) != after.get(klass, 1.0)
    ]


_WORDS: Mapping[str, Callable[[Recipe, Recipe], list[str]]] = {
    "drop": _counts,
    "keep": lambda old, new: [] if old.drop != new.drop else _counts(old, new),
    "class_weights": _weights,
}


def _by_hand(old: Recipe, new: Recipe) -> list[str]:
    kept, dropped = _cells(old.force_keep, new.force_keep), _cells(old.force_drop, new.force_drop)
    came = [(f"{what} by hand", cells[0]) for what, cells in (("kept", kept), ("dropped", dropped))]
    gone = {*kept[1], *dropped[1]} - {*kept[0], *dropped[0]}  # who was kept and is dropped now is not released
    return [f"{what}: {_named(sorted(cells))}" for what, cells in (*came, ("released", gone)) if cells]


def _cells(old: Mapping[str, Sequence[int]], new: Mapping[str, Sequence[int]]) -> tuple[Cells, Cells]:
    """((layer, expert) that came, those that went); one said for all layers is not said again for each."""
    before, after = ({(layer, expert) for layer, ids in one.items() for expert in ids} for one in (old, new))
    came = {cell for cell in after - before if (ALL_LAYERS, cell[1]) not in before}
    gone = {cell for cell in before - after if (ALL_LAYERS, cell[1]) not in after}
    return came, gone


def _named(cells: Sequence[tuple[str, int]]) -> str:
    layers = {layer for layer, _ in cells}
    layer = next(iter(layers))
    where = "all layers" if layer == ALL_LAYERS else f"layer {layer}"
    if len(cells) == 1:
        return f"{where}, expert {cells[0][1]}"
    return f"{len(cells)} experts of {where}" if len(layers) == 1 else f"{len(cells)} experts of {len(layers)} layers"
