"""A recipe's decision about every expert, with the reasons: scores, protection, the cut, and what moved after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.recipes.dropmap import check_top_k
from studio.recipes.floors import FloorAnalysis, floor_analysis
from studio.recipes.minimums import require_known, with_minimums
from studio.recipes.protection import Protection, places, protection
from studio.recipes.recipe import Recipe
from studio.recipes.scores import Scored, scored

Mask = npt.NDArray[np.bool_]


class ForcedError(InputError):
    """A person keeps or drops more experts of `layer` by hand than the drop count has room for."""

    def __init__(self, field: str, layer: int, *, named: int, room: int, experts: int, top_k: int) -> None:
        super().__init__(
            f"{field} names {named} experts of layer {layer}, and the recipe {field.removeprefix('force_')}s {room}.",
            "Name fewer, or change how many are dropped.",
        )
        self.field, self.layer, self.named, self.room = field, layer, named, room
        self.needed = named if field == "force_drop" else experts - named
        """The drop count that would have room for them, where `most` allows it."""
        self.most = experts - top_k
        """The most that can be dropped, whatever is asked."""


@dataclass(frozen=True, eq=False)
class Decision:
    """Masks [R, E]; R rows are the layers, or one where all layers drop the same experts."""

    scored: Scored
    floors: FloorAnalysis
    protection: Protection
    order: npt.NDArray[np.int64]
    """[R, E]: ids, first dropped first; whatever the count, its first so many are cut. Groups of experts take turns."""
    cut: Mask
    """Dropped by score, before minima per class."""
    dropped: Mask


def decide(contributions: Contributions, recipe: Recipe, second: Contributions | None = None) -> Decision:
    """What `recipe` does with every expert; `second` is the analysis that floors go by, where the recipe has some.

    Raises as `scored`, `floor_analysis` and `protection` do, and `InputError` when fewer experts would be kept than the
    router uses, or more are to be kept (or dropped) by `force_keep` (`force_drop`) than the count allows.
    """
    shape = contributions.shape
    drop = recipe.drop_of(shape.experts)
    check_top_k(shape.experts, drop, shape.top_k)
    values = scored(contributions, recipe)
    floors = floor_analysis(contributions, recipe, second)
    shield = protection(values, floors, recipe, shape)
    _require_room(shield, drop, shape)
    order = _by_groups(_drop_order(values, shield), drop, shape)
    cut = places(order) < drop
    return Decision(values, floors, shield, order, cut, after_minimums(cut, values, floors, shield, recipe))


def _drop_order(values: Scored, shield: Protection) -> npt.NDArray[np.int64]:
    """[R, E]: overruled ids, then by ascending score (lower ids first, NaN last), then whom protection is granted last.

    So where more are protected than may be kept, those of the lowest priority go.
    """
    state = np.where(shield.force_drop, 0, np.where(shield.asked, 2, 1))
    key = np.where(shield.asked, -places(shield.granting_order), values.score)
    return np.lexsort((key, state), axis=-1)


def _by_groups(order: npt.NDArray[np.int64], drop: int, shape: MoeShape) -> npt.NDArray[np.int64]:
    """`order` with the groups of experts that a router chooses among by turns, so that all lose equally many.

    Raises `InputError` when `drop` cannot be shared out.
    """
    if shape.groups == 1:
        return order
    if drop % shape.groups:
        lower = drop - drop % shape.groups
        raise InputError(
            f"This model routes by {shape.groups} groups of experts, and {drop} cannot be dropped equally from each.",
            f"Drop {lower} or {lower + shape.groups}.",
        )
    group = order // (shape.experts // shape.groups)
    turn = np.zeros_like(order)
    for number in range(shape.groups):
        turn += np.where(group == number, np.cumsum(group == number, axis=1), 0)
    return np.take_along_axis(order, np.argsort(turn, axis=1, kind="stable"), axis=1)


def _require_room(shield: Protection, drop: int, shape: MoeShape) -> None:
    for field, mask, room in (
        ("force_keep", shield.force_keep, shape.experts - drop),
        ("force_drop", shield.force_drop, drop),
    ):
        counts = mask.sum(axis=1)
        if (row := int(counts.argmax())) >= 0 and counts[row] > room:
            raise ForcedError(
                field,
                shape.layer_ids[row],
                named=int(counts[row]),
                room=room,
                experts=shape.experts,
                top_k=shape.top_k,
            )


def after_minimums(cut: Mask, values: Scored, floors: FloorAnalysis, shield: Protection, recipe: Recipe) -> Mask:
    """`cut` [R, E] after the swaps that the `class_minimums` of `recipe` need."""
    if not recipe.class_minimums:
        return cut
    require_known(recipe.class_minimums, floors.classes)
    minimums = {floors.classes.index(klass): count for klass, count in recipe.class_minimums}
    pinned = shield.top | shield.floor | shield.force_keep
    kept = [
        with_minimums(
            ~cut[row],
            values.score[row],
            floors.best_class[row],
            minimums,
            pinned=pinned[row],
            barred=shield.force_drop[row],
        )
        for row in range(len(cut))
    ]
    return ~np.array(kept)
