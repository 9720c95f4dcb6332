"""Which experts may not be dropped, and by which rule; and whom a person overrules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.errors import InputError, MismatchError
from studio.families.base import MoeShape
from studio.recipes.floors import FloorAnalysis
from studio.recipes.recipe import ALL_LAYERS, Recipe
from studio.recipes.scores import Scored

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Protection:
    """Masks [R, E] over the rows of `Scored`."""

    top: Mask
    per_class: Mask
    """[C, R, E]."""
    floor: Mask
    force_keep: Mask
    force_drop: Mask
    priority: Array
    """[R, E]: who stays protected where more are protected than may be kept: the highest."""

    @property
    def asked(self) -> Mask:
        """Whoever a rule protects and nobody overrules, and `force_keep`; they may be too many."""
        mask: Mask = (self.top | self.per_class.any(axis=0) | self.floor) & ~self.force_drop
        return mask | self.force_keep

    @property
    def granting_order(self) -> npt.NDArray[np.int64]:
        """[R, E]: ids as protection is granted: overruled, by priority (among equals the lower ids), everyone else."""
        state = np.where(self.force_keep, 0, np.where(self.asked, 1, 2))
        order = np.lexsort((-self.priority, state), axis=-1)
        for row in np.flatnonzero(np.isnan(self.priority).any(axis=1)):
            groups = [np.flatnonzero(state[row] == group) for group in range(3)]
            order[row] = np.concatenate([sorted_by(ids, -self.priority[row]) for ids in groups])
        return order


def protection(scored: Scored, floors: FloorAnalysis, recipe: Recipe, shape: MoeShape) -> Protection:
    """Raises `InputError` and `MismatchError` for experts and layers to overrule that do not exist."""
    rows, experts = scored.score.shape
    nothing = np.zeros((rows, experts), dtype=np.bool_)
    per_class = np.zeros((0, rows, experts), dtype=np.bool_)
    if recipe.protect_top_per_class:
        per_class = highest(scored.normalised, recipe.protect_top_per_class)
    return Protection(
        top=highest(scored.protecting, recipe.protect_top) if recipe.protect_top else nothing,
        per_class=per_class,
        floor=nothing if floors.pooled is None else highest(floors.pooled, floors.counts[:, None]),
        force_keep=forced_mask("force_keep", recipe.force_keep, rows, shape),
        force_drop=forced_mask("force_drop", recipe.force_drop, rows, shape),
        priority=scored.score if floors.pooled is None else floors.pooled,
    )


def highest(values: Array, count: int | npt.NDArray[np.int64]) -> Mask:
    """The `count` highest of the last axis; among equals the lower ids, and NaN last of all."""
    mask: Mask = places(np.argsort(-values, axis=-1, kind="stable")) < count
    return mask


def places(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The place of every id in `order`, which lists ids along the last axis."""
    result = np.empty_like(order)
    np.put_along_axis(result, order, np.broadcast_to(np.arange(order.shape[-1]), order.shape), axis=-1)
    return result


def sorted_by(ids: npt.NDArray[np.int64], keys: Array) -> npt.NDArray[np.int64]:
    """Ascending `ids` of one row by ascending `keys` [E], by Python's own sort.

    That is what the published generator does here, and it decides how NaN moves, which compares with nothing.
    """
    return np.array(sorted(ids.tolist(), key=keys.tolist().__getitem__), dtype=np.int64)


def forced_mask(field: str, forced: Mapping[str, Sequence[int]], rows: int, shape: MoeShape) -> Mask:
    """[R, E]: whom `forced`, the recipe's `field`, names; `rows` is the number of layers, or 1 for all together.

    Raises `InputError` for an expert and `MismatchError` for a layer that `shape` has not.
    """
    mask = np.zeros((rows, shape.experts), dtype=np.bool_)
    for layer, ids in forced.items():
        if beyond := [expert for expert in ids if expert >= shape.experts]:
            where = "every layer" if layer == ALL_LAYERS else f"layer {layer}"
            raise InputError(
                f"{field} names expert {beyond[0]} of {where}, and the ids go from 0 to {shape.experts - 1}.",
                "Take it out.",
            )
        if layer == ALL_LAYERS:
            mask[:, ids] = True
        elif int(layer) in shape.layer_ids:
            mask[shape.layer_ids.index(int(layer)), ids] = True
        else:
            raise MismatchError(
                f"{field} names layer {layer}, which the analysis does not have.",
                f"It has {shape.layer_ids[0]} to {shape.layer_ids[-1]}: choose the recipe of this model.",
            )
    return mask
