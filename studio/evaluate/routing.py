"""Watching the routers of a virtual model while it answers: who fires, and who would have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.contributions.modules import modules_by_layer
from studio.evaluate.masking import masked
from studio.families.base import MoeShape
from studio.families.lookup import family_named
from studio.recipes.dropmap import DropMap

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Routing:
    """What the routers did for the tokens of one answer.

    A token is routed once in every layer: where it is predicted, at the token before it.
    """

    layer_ids: tuple[int, ...]
    tokens: int
    fired: Counts
    """[L, E]: tokens for which each expert was chosen."""
    missed: Counts
    """[L, E]: tokens for which the router, unmasked, would have chosen an expert that is dropped.

    That is said of the state which the virtual model is in; the reference's own state would be another one by then.
    """
    touched: Counts
    """[L]: tokens for which at least one of the choices would have been a dropped expert."""

    @property
    def missed_share(self) -> float:
        """Share of all choices, 0 to 1, that would have been dropped experts."""
        choices = int(self.fired.sum())
        return float(self.missed.sum() / choices) if choices else 0.0

    @property
    def touched_share(self) -> npt.NDArray[np.float64]:
        """[L]: share of the tokens for which a layer would have used a dropped expert."""
        return self.touched / max(1, self.tokens)

    @property
    def missed_by_layer(self) -> npt.NDArray[np.float64]:
        """[L]: share of a layer's choices that would have been dropped experts."""
        return np.asarray(self.missed.sum(axis=1) / np.maximum(1, self.fired.sum(axis=1)), np.float64)

    def most_missed(self, count: int) -> list[tuple[int, int, int]]:
        """(layer id, expert, tokens) of the dropped experts that would have been chosen most often."""
        order = np.argsort(-self.missed, axis=None, kind="stable")[:count]
        places = [divmod(int(place), self.missed.shape[1]) for place in order]
        found = [(self.layer_ids[row], expert, int(self.missed[row, expert])) for row, expert in places]
        return [one for one in found if one[2]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "layer_ids": list(self.layer_ids),
            "tokens": self.tokens,
            **{name: getattr(self, name).tolist() for name in ("fired", "missed", "touched")},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Routing:
        """The counterpart of `to_json`."""
        arrays = {name: np.array(content[name], dtype=np.int64) for name in ("fired", "missed", "touched")}
        return cls(tuple(content["layer_ids"]), content["tokens"], **arrays)


class Watch:
    """Counts what the routers choose for the last token of every pass over one conversation."""

    def __init__(self, shape: MoeShape, drop: npt.NDArray[np.bool_]) -> None:
        self._shape = shape
        self._drop = drop
        self._fired, self._missed = (np.zeros((shape.layers, shape.experts), dtype=np.int64) for _ in range(2))
        self._touched = np.zeros(shape.layers, dtype=np.int64)
        self._passes = 0

    def see(self, row: int, chosen: Sequence[int], wanted: Sequence[int] | None) -> None:
        """In one layer, the experts `chosen` for a token, and those that the unmasked router would have."""
        self._passes += row == 0
        self._fired[row, list(chosen)] += 1
        missed = [expert for expert in wanted or () if self._drop[row, expert]]
        self._missed[row, missed] += 1
        self._touched[row] += bool(missed)

    @property
    def routing(self) -> Routing:
        """What was counted so far."""
        return Routing(
            self._shape.layer_ids, self._passes, self._fired.copy(), self._missed.copy(), self._touched.copy()
        )


@contextmanager
def watched(model: Any, drop: DropMap | None, shape: MoeShape, watch: Watch | None = None) -> Iterator[Watch]:
    """While open, `model` is the one that `drop` leaves (the reference for None), and its routers are counted.

    An answer that others interrupt goes on counting in its own `watch`.

    Every router of transformers gives a token's experts, `[T, K]`, as the last of what it returns. Raises as `masked`
    and `DropMap.check` do.
    """
    if drop is not None:
        drop.check(shape)
    mask = np.zeros((shape.layers, shape.experts), dtype=np.bool_) if drop is None else drop.mask
    family = family_named(shape.family)
    routers = modules_by_layer(model, family.router_module, shape)
    biases = [None] * shape.layers
    if family.correction_bias is not None:
        owner, _, name = family.correction_bias.rpartition(".")
        biases = [getattr(module, name, None) for module in modules_by_layer(model, owner, shape)]
    plain = [
        (router.forward, None if bias is None else bias.detach().clone())
        for router, bias in zip(routers, biases, strict=True)
    ]
    watch = watch or Watch(shape, mask)
    with masked(model, mask, shape), ExitStack() as undo:
        for row, (router, bias) in enumerate(zip(routers, biases, strict=True)):
            unmasked = _Unmasked(*plain[row], bias) if mask[row].any() else None
            undo.callback(_watch(router, row, unmasked, watch))
        yield watch


class _Unmasked:
    """A router as it was before it was masked."""

    def __init__(self, forward: Any, values: Any, bias: Any) -> None:
        self._forward = forward
        self._values = values
        self._bias = bias

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._bias is None:
            return self._forward(*args, **kwargs)
        masked_values = self._bias.detach().clone()
        self._bias.data.copy_(self._values)
        try:
            return self._forward(*args, **kwargs)
        finally:
            self._bias.data.copy_(masked_values)


def _watch(router: Any, row: int, unmasked: _Unmasked | None, watch: Watch) -> Any:
    """Count what `router` chooses from here on; gives what undoes it."""
    before = router.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        result = before(*args, **kwargs)
        wanted = None if unmasked is None else unmasked(*args, **kwargs)[-1][-1].tolist()
        watch.see(row, result[-1][-1].tolist(), wanted)
        return result

    router.forward = forward  # `masked` has put its own there, or nobody has

    def undo() -> None:
        router.forward = before

    return undo
