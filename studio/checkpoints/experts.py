"""What both formats check before experts are cut out of them, and which row of a map holds for which tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.errors import FormatError, UnsupportedError
from studio.families import Family, MoeShape
from studio.recipes.dropmap import DropMap

DRAFT = "mtp"
"""The block that drafts tokens ahead (multi-token prediction): what published maps call it."""

Block = int | str
"""A decoder layer with experts, or `DRAFT`."""


def block_of(path: Path, shape: MoeShape, drafts: range, name: str, layer: int | None) -> Block:
    """The block that the expert tensor `name` belongs to; `layer` is what its name says, None for a named draft block.

    `drafts` are the numbers of blocks that draft tokens ahead. Raises `FormatError` for a layer that should not be.
    """
    if layer is None or layer in drafts:
        return DRAFT
    if layer not in shape.layer_ids:
        listed = f"layers up to {shape.layer_ids[-1]} only" if layer > shape.layer_ids[-1] else "no experts in it"
        raise FormatError(path, f"tensor {name!r}", f"the model's header announces {listed}")
    return layer


def check_layers(path: Path, shape: MoeShape, blocks: Mapping[str, Block]) -> None:
    """Raise `FormatError` unless the expert tensors (name → block) lie in each of the layers of `shape`."""
    if missing := sorted(set(shape.layer_ids) - set(blocks.values())):
        raise FormatError(
            path, f"layer {missing[0]}", "it has no expert tensors, though the model's header announces them"
        )


def kept_in(drop: DropMap, block: Block) -> tuple[int, ...]:
    """Ids kept in `block`, ascending.

    A drafting block that the map does not mention follows the last decoder layer: the config has one number of experts
    for all, nothing measures this block, and what it drafts is checked by the model, so that a poor choice there costs
    speed, and never an answer.
    """
    if isinstance(block, int):
        return drop.kept_in_layer(block)
    gone = set(dict(drop.extra).get(block, drop.dropped[-1]))
    return tuple(expert for expert in range(drop.experts) if expert not in gone)


def refuse_unknown_experts(path: Path, family: Family, others: Sequence[str], marker: str) -> None:
    """Raise `UnsupportedError` when the name of a tensor that would stay as it is has `marker` in it, as experts' have.

    Copied whole beside pruned ones it would give a model that no runtime loads.
    """
    for name in others:
        if marker in name:
            raise UnsupportedError(
                f"{path} keeps experts in the tensor {name!r}, a layout that Espalier does not know for {family.name}.",
                "Use the original, unquantized checkpoint.",
            )
