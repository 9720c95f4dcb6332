"""Which classes of an analysis a recipe looks at, and how much each weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from studio.errors import InputError
from studio.recipes.recipe import POSITION, WILDCARDS, Recipe

Array = npt.NDArray[np.float64]


def chosen_classes(recipe: Recipe, known: Sequence[str]) -> tuple[str, ...]:
    """The classes that take part, in the recipe's order; `InputError` for one that is not among the `known`."""
    if recipe.classes is None:
        return tuple(known)
    if unknown := [klass for klass in recipe.classes if klass not in known]:
        raise InputError(
            f"The analysis has no class {unknown[0]!r}, which the recipe looks at.", f"It has {', '.join(known)}."
        )
    return tuple(recipe.classes)


def weights_of(classes: Sequence[str], class_weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of every one of `classes`, in their order; 1 for those that `class_weights` does not name.

    Keys are names, patterns and positions as `Recipe.class_weights` has them. Raises `InputError` for a name that is
    none of the classes, positions that are not exactly theirs, and weights that are all 0.
    """
    own = {klass: class_weights[klass] for klass in classes if klass in class_weights}
    places = [key for key in class_weights if key.startswith(POSITION) and key not in own]
    patterns = [key for key in class_weights if set(key) & set(WILDCARDS) and key not in own and key not in places]
    if unknown := [key for key in class_weights if key not in own and key not in places and key not in patterns]:
        raise InputError(
            f"The analysis has no class {unknown[0]!r}, which the recipe gives a weight.",
            f"It has {', '.join(classes)}.",
        )
    if places:
        own = _by_position(classes, class_weights, places) | own
    patterns.sort(key=lambda pattern: (-len(pattern), pattern))
    weights = {}
    for klass in classes:
        fitting = (pattern for pattern in patterns if fnmatchcase(klass, pattern))
        weights[klass] = own[klass] if klass in own else class_weights.get(next(fitting, ""), 1.0)
    if not any(weights.values()):
        raise InputError("The recipe gives every class the weight 0.", "Give at least one class a weight above 0.")
    return weights


def _by_position(classes: Sequence[str], weights: Mapping[str, float], places: list[str]) -> dict[str, float]:
    expected = [f"{POSITION}{place}" for place in range(1, len(classes) + 1)]
    if set(places) != set(expected):
        raise InputError(
            f"The recipe has {len(places)} weights by position, and there are {len(classes)} classes: "
            f"{', '.join(classes)}.",
            f"Give {', '.join(expected)}, or name the classes.",
        )
    return {klass: weights[key] for klass, key in zip(classes, expected, strict=True)}


def within(recipe: Recipe, known: Sequence[str], of_floors: Sequence[str]) -> Recipe:
    """`recipe` without what it says about classes that are not among the `known` (in floors: `of_floors`)."""
    kept = None if recipe.classes is None else [klass for klass in recipe.classes if klass in known]
    return recipe.but(
        classes=kept or None,
        class_weights={klass: weight for klass, weight in recipe.class_weights.items() if klass in known},
        protect_class_weights={
            klass: weight for klass, weight in recipe.protect_class_weights.items() if klass in known
        },
        class_minimums=[pair for pair in recipe.class_minimums if pair[0] in of_floors],
    )


def as_array(weights: Mapping[str, float]) -> Array:
    """[C]."""
    return np.array(list(weights.values()), dtype=np.float64)


def by_name(recipe: Recipe, known: Sequence[str], experts: int) -> Recipe:
    """The same recipe in the plain terms of one analysis: weights by class name (those that are not 1), and `drop`.

    Patterns, positions and `keep` are gone, so the result suits this analysis only; a recipe without any stays itself.
    Raises as `weights_of` does.
    """
    named = {*recipe.class_weights, *recipe.protect_class_weights} <= {*known}
    if named and recipe.drop is not None:
        return recipe
    classes = chosen_classes(recipe, known)
    changes = {"drop": recipe.drop_of(experts)}
    plain = {
        name: {klass: weight for klass, weight in weights_of(classes, getattr(recipe, name)).items() if weight != 1.0}
        for name in ("class_weights", "protect_class_weights")
    }
    return recipe.but(**changes, **plain)
