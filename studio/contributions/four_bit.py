"""Experts in four bits, so that a model fits on a GPU that its weights would not fit on.

transformers leaves experts as they are when bitsandbytes quantizes a model: it looks for linear layers, and experts are
one weight of three dimensions. Here they are packed as NF4 (QLoRA, arXiv:2305.14314), one layer at a time, by
bitsandbytes' parametrization, which unpacks a layer's experts whenever they are read. Everything else, a small part of
such a model, stays as it was loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from studio.contributions.modules import modules_by_layer
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.families.lookup import family_named
from studio.progress import Progress, silent

NAME = "nf4"
BITS = 4.5
"""Per weight: four, and a scale in fp32 for every block."""
_BLOCK = 64
_WEIGHTS = ("gate_up_proj", "up_proj", "down_proj")


def require_bitsandbytes() -> None:
    """Raise `InputError` unless it is installed."""
    if find_spec("bitsandbytes") is None:
        raise InputError(
            "Experts in four bits need bitsandbytes, which is not installed.", "Run: pip install bitsandbytes"
        )


def require_blocks(columns: Iterable[int]) -> None:
    """Raise `InputError` unless experts' weights with so many `columns` are whole numbers of blocks."""
    for count in columns:
        if count % _BLOCK:
            raise InputError(
                f"The experts have weights of {count} columns, and only multiples of {_BLOCK} are packed in four bits.",
                "Choose another dtype.",
            )


def packed_bytes(model: Any, shape: MoeShape) -> int:
    """What `model` takes with its experts packed, and the experts of one layer unpacked beside them."""
    weights = [weight for _, _, weight in _expert_weights(model, shape)]
    loose = sum(int(weight.nbytes) for weight in weights)
    packed = sum(int(weight.numel() * BITS / 8) for weight in weights)
    everything = int(model.get_memory_footprint())
    return everything - loose + packed + loose // shape.layers


def pack_experts(model: Any, shape: MoeShape, device: Any, progress: Progress = silent) -> None:
    """Pack the experts of `model`, which lies in memory on the CPU, and put it on `device`, layer by layer.

    Raises `InputError` for experts whose columns are no whole number of blocks.
    """
    from bitsandbytes.nn.parametrize import replace_parameter_4bit
    from torch.nn import Parameter

    weights = list(_expert_weights(model, shape))
    require_blocks(weight.shape[-1] for _, _, weight in weights)
    for number, (module, name, weight) in enumerate(weights):
        setattr(module, name, Parameter(weight.to(device), requires_grad=False))
        replace_parameter_4bit(module, name, quant_type="nf4", blocksize=_BLOCK)
        progress(number + 1, len(weights), "weights", "packing the experts")
    model.to(device)


def _expert_weights(model: Any, shape: MoeShape) -> list[tuple[Any, str, Any]]:
    """(module, name, weight) of all experts."""
    modules = modules_by_layer(model, family_named(shape.family).experts_module, shape)
    return [
        (module, name, module._parameters[name])
        for module in modules
        for name in _WEIGHTS
        if name in module._parameters
    ]
