"""A recipe's decision about every expert, with the reasons: scores, protection, the cut, and what moved after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.recipes.dropmap import check_router
from studio.recipes.floors import FloorAnalysis, floor_analysis
from studio.recipes.minimums import require_known, with_minimums
from studio.recipes.protection import Protection, places, protection
from studio.recipes.recipe import Recipe
from studio.recipes.scores import Scored, scored

Mask = npt.NDArray[np.bool_]


class ForcedError(InputError):
    """By hand, a person keeps or drops more experts of a layer, or of a group in it, than the count has room for."""

    def __init__(self, field: str, part: str, *, named: int, room: int, shape: MoeShape) -> None:
        super().__init__(
            f"{field} names {named} experts of {part}, and the recipe {field.removeprefix('force_')}s {room}.",
            "Name fewer, or change how many are dropped.",
        )
        self.field, self.part, self.named, self.room = field, part, named, room
        self.needed = named * shape.groups if field == "force_drop" else shape.experts - named * shape.groups
        """The drop count that would have room for them, where `most` allows it."""
        self.most = shape.experts - shape.top_k
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

    Raises as `scored`, `floor_analysis`, `protection` and `check_router` do, and `InputError` when more are to be kept
    (or dropped) by `force_keep` (`force_drop`) than the count allows.
    """
    shape = contributions.shape
    drop = recipe.drop_of(shape.experts)
    check_router(shape, drop)
    values = scored(contributions, recipe)
    floors = floor_analysis(contributions, recipe, second)
    shield = protection(values, floors, recipe, shape)
    _require_room(shield, drop, recipe, shape)
    order = by_groups(_drop_order(values, shield), shape)
    cut = places(order) < drop
    decision = Decision(values, floors, shield, order, cut, dropped=cut)
    return replace(decision, dropped=after_minimums(decision, recipe, shape))


def _drop_order(values: Scored, shield: Protection) -> npt.NDArray[np.int64]:
    """[R, E]: overruled ids, then by ascending score (lower ids first, NaN last), then whom protection is granted last.

    So where more are protected than may be kept, those of the lowest priority go.
    """
    state = np.where(shield.force_drop, 0, np.where(shield.asked, 2, 1))
    key = np.where(shield.asked, -places(shield.granting_order), values.score)
    return np.lexsort((key, state), axis=-1)


def by_groups(order: npt.NDArray[np.int64], shape: MoeShape) -> npt.NDArray[np.int64]:
    """`order` [R, E] with the groups of experts that a router chooses among by turns, so that all lose equally many."""
    if shape.groups == 1:
        return order
    group = order // shape.group_size
    turn = np.zeros_like(order)
    for number in range(shape.groups):
        turn += np.where(group == number, np.cumsum(group == number, axis=1), 0)
    return np.take_along_axis(order, np.argsort(turn, axis=1, kind="stable"), axis=1)


def _require_room(shield: Protection, drop: int, recipe: Recipe, shape: MoeShape) -> None:
    """Raise `InputError` where a person keeps or drops more of a layer, or of a group, than there is room for."""
    for field, mask, room in (
        ("force_keep", shield.force_keep, shape.experts - drop),
        ("force_drop", shield.force_drop, drop),
    ):
        counts = mask.reshape(len(mask), shape.groups, -1).sum(axis=2)  # [R, G]
        row, group = np.unravel_index(int(counts.argmax()), counts.shape)
        if counts[row, group] > room // shape.groups:
            layer = f"layer {shape.layer_ids[row]}" if recipe.scope == "layer" else "every layer"
            part = f"group {group} of {layer}" if shape.groups > 1 else layer
            raise ForcedError(field, part, named=int(counts[row, group]), room=room // shape.groups, shape=shape)


def after_minimums(decision: Decision, recipe: Recipe, shape: MoeShape) -> Mask:
    """`decision.cut` after as many swaps as `class_minimums` need."""
    if not recipe.class_minimums:
        return decision.cut
    floors, shield = decision.floors, decision.protection
    require_known(recipe.class_minimums, floors.classes)
    minimums = {floors.classes.index(klass): count for klass, count in recipe.class_minimums}
    pinned = shield.top | shield.floor | shield.force_keep
    kept = [
        with_minimums(
            ~decision.cut[row],
            decision.scored.score[row],
            floors.best_class[row],
            minimums,
            pinned=pinned[row],
            barred=shield.force_drop[row],
            group=np.arange(shape.experts) // shape.group_size,
        )
        for row in range(len(decision.cut))
    ]
    return ~np.array(kept)
