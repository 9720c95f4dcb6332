"""Finding a family's modules in a loaded model, layer by layer."""

from __future__ import annotations

import re
from typing import Any

from studio.errors import MismatchError, UnsupportedError
from studio.families.base import MoeShape


def modules_by_layer(model: Any, path: str, shape: MoeShape) -> tuple[Any, ...]:
    """The module at `path` below each decoder layer of a transformers model, in the order of `shape.layer_ids`.

    Raises `UnsupportedError` when no layer has such a module, `MismatchError` when other layers have it than `shape`
    says.
    """
    pattern = re.compile(rf"(?:.+\.)?(\d+)\.{re.escape(path)}")
    found = {}
    for name, module in model.get_decoder().named_modules():
        if match := pattern.fullmatch(name):
            layer = int(match.group(1))
            if layer in found:
                raise UnsupportedError(f"{type(model).__name__} has two modules {path!r} in layer {layer}.")
            found[layer] = module
    if not found:
        raise UnsupportedError(
            f"{type(model).__name__} has no module {path!r} in any decoder layer.",
            f"Is it a model of the family {shape.family}?",
        )
    if tuple(sorted(found)) != shape.layer_ids:
        raise MismatchError(
            f"{type(model).__name__} has experts in the layers {sorted(found)}, and not in {list(shape.layer_ids)}.",
            "The shape has to be read from the config.json of this model.",
        )
    return tuple(found[layer] for layer in shape.layer_ids)


def input_device(model: Any) -> Any:
    """Where `model` takes its tokens: with its embeddings, which accelerate may have put elsewhere than other layers.

    Weights that it moved to the CPU's memory or the disk stand on no device at all until they are used.
    """
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        return embeddings.weight.device
    import torch

    return torch.device(device)
