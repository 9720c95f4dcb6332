"""What both formats check before experts are cut out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.errors import FormatError, UnsupportedError
from studio.families import Family, MoeShape


def check_layers(path: Path, shape: MoeShape, layers: Mapping[str, int]) -> None:
    """Raise `FormatError` unless the expert tensors (name → layer) lie in the layers of `shape`, and in each one."""
    if missing := sorted(set(shape.layer_ids) - set(layers.values())):
        raise FormatError(
            path, f"layer {missing[0]}", "it has no expert tensors, though the model's header announces them"
        )
    for name, layer in layers.items():
        if layer not in shape.layer_ids:
            last = shape.layer_ids[-1]
            raise FormatError(path, f"tensor {name!r}", f"the model's header announces layers up to {last} only")


def refuse_unknown_experts(path: Path, family: Family, others: Sequence[str], marker: str) -> None:
    """Raise `UnsupportedError` when a tensor that would stay as it is looks like an expert's.

    Copied whole beside pruned ones it would give a model that no runtime loads.
    """
    for name in others:
        if marker in name:
            raise UnsupportedError(
                f"{path} keeps experts in the tensor {name!r}, a layout that Espalier does not know for {family.name}.",
                "Use the original, unquantized checkpoint.",
            )
