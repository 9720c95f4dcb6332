"""A pruned model without pruning: dropped experts masked in the router."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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

    Their router logits become -inf, and so does the correction that some routers add to scores before they choose.
    Softmax and sigmoid then give them no weight and the top-k never choose them, as when their rows are sliced off the
    router. `DropMap.mask` has this form.

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
    family = family_named(shape.family)
    routers = modules_by_layer(model, family.router_module, shape)
    with ExitStack() as undo:
        for router, row in zip(routers, drop, strict=True):
            undo.callback(_mask_logits(router, torch.from_numpy(row.copy())))
        if family.correction_bias is not None:
            owner, _, name = family.correction_bias.rpartition(".")
            for module, row in zip(modules_by_layer(model, owner, shape), drop, strict=True):
                if hasattr(module, name):
                    undo.callback(_mask_bias(getattr(module, name), torch.from_numpy(row.copy())))
        yield


def _mask_logits(router: Any, dropped: Any) -> Callable[[], None]:
    """Set what the linear map inside `router` gives for `dropped` `[E]` to -inf; gives what undoes it.

    Routers differ in all that follows their linear map, but for that it gives a logit per expert.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Masked(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.nn.functional.linear:
                result = result.masked_fill(dropped.to(result.device), float("-inf"))
            return result

    before = router.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with Masked():
            return before(*args, **kwargs)

    own = "forward" in vars(router)  # where something else wraps this module, it stays wrapped afterwards
    router.forward = forward

    def undo() -> None:
        if own:
            router.forward = before
        else:
            del router.forward

    return undo


def _mask_bias(bias: Any, dropped: Any) -> Callable[[], None]:
    """Set the entries `dropped` of `bias` `[E]` to -inf; gives what undoes it."""
    import torch

    before = bias.detach().clone()

    def write(values: Any) -> None:
        with torch.no_grad():
            bias.copy_(values)

    write(before.masked_fill(dropped.to(bias.device), float("-inf")))
    return lambda: write(before)
