"""A pruned model without pruning: dropped experts masked in the router."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.contributions.modules import modules_by_layer
from studio.errors import InputError, MismatchError
from studio.families.base import MoeShape
from studio.families.lookup import family_named


@contextmanager
def masked(model: Any, drop: npt.NDArray[np.bool_], shape: MoeShape) -> Iterator[None]:
    """While open, `model` (transformers, of `shape`) routes as if the experts in `drop` `[L, E]` (True) were gone.

    Their router logits become -inf, so that softmax routing gives them no weight and the top-k never choose them, as
    when their rows are sliced off the router. `DropMap.mask` has this form.

    Raises `MismatchError` when `drop` has another shape, `InputError` when a layer keeps fewer experts than a token
    uses.
    """
    import torch

    drop = np.asarray(drop, dtype=np.bool_)
    if drop.shape != (shape.layers, shape.experts):
        raise MismatchError(
            f"The mask has the shape {list(drop.shape)}, and the model has {shape.layers} layers of {shape.experts}.",
            "Use a map that was made for this model.",
        )
    kept = (~drop).sum(axis=1)
    if (kept < shape.top_k).any():
        layer = int(np.argmax(kept < shape.top_k))
        raise InputError(
            f"Layer {shape.layer_ids[layer]} would keep {kept[layer]} experts, and every token uses {shape.top_k}.",
            "Drop fewer experts.",
        )
    routers = modules_by_layer(model, family_named(shape.family).router_projection, shape)
    hooks = []
    try:
        for router, row in zip(routers, drop, strict=True):
            hooks.append(router.register_forward_hook(_mask_logits(torch.from_numpy(row.copy()))))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mask_logits(dropped: Any) -> Any:
    """A forward hook that sets the logits `[T, E]` of `dropped` `[E]` to -inf."""

    def hook(module: Any, inputs: Any, logits: Any) -> Any:
        return logits.masked_fill(dropped.to(logits.device), float("-inf"))

    return hook
