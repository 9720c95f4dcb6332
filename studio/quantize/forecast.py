"""File sizes for every tier and every number of kept experts, quick enough for a slider.

The types that a tier chooses hardly depend on how many experts there are, and the bytes of an expert tensor are
proportional to them. So one plan per tier is made, and the sizes at other numbers follow from it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from studio.checkpoints.gguf_header import GgufHeader, aligned
from studio.families import family_named, shape_of_gguf
from studio.quantize.plan import TensorPlan, check_kept, make_plan
from studio.quantize.tiers import Tier


def predict_bytes(
    header: GgufHeader,
    tier: Tier,
    kept_experts: int | None = None,
    *,
    imatrix: frozenset[str] | None = None,
    ranking: tuple[int, ...] | None = None,
) -> int:
    """Size in bytes of the file that `tier` makes of the model of `header`, exactly (provenance apart).

    `imatrix` and `ranking` are as for `plan.make_plan`, and this raises as that does.
    """
    return forecast_of(header).file_bytes(tier, kept_experts, imatrix=imatrix, ranking=ranking)


def forecast_of(header: GgufHeader) -> Forecast:
    """The forecast of `header`; those of a few models are kept."""
    with _lock:
        forecast = next((known for known in _recent if known.header is header), None)
        if forecast is None:
            forecast = Forecast(header)
            _recent.append(forecast)
        return forecast


@dataclass(frozen=True)
class Sizes:
    """Where the bytes of a tier's file are, for all numbers of experts that llama.cpp treats alike."""

    other: int
    """Bytes of everything but the tensors with experts: header, other tensors, their padding."""
    header: int
    """Bytes of the header, which are among `other`."""
    one_expert: tuple[int, ...]
    """Bytes of a single expert, of each tensor with experts; none where the number of experts was not asked for."""
    routed: int
    """Bytes of a single expert in the tensors that llama.cpp can leave in main memory: all but the router."""
    alignment: int
    values_of_others: int
    """Weights outside of the tensors with experts."""
    values_of_expert: int
    """Weights of a single expert, in all its tensors."""
    fallbacks: Mapping[str, int]
    """What tensors get instead of the type that the tier wants ("Q4_K → Q5_0") → how many tensors."""
    without_importance: tuple[str, ...]
    """Tensors whose type cannot be made without an importance matrix, and have none."""

    def file_bytes(self, kept_experts: int) -> int:
        """Size of the file."""
        return self.other + self.expert_bytes(kept_experts)

    def expert_bytes(self, kept_experts: int) -> int:
        """Bytes of the tensors with experts, padding included."""
        return sum(aligned(one * kept_experts, self.alignment) for one in self.one_expert)

    def values(self, kept_experts: int) -> int:
        """How many weights the model has."""
        return self.values_of_others + kept_experts * self.values_of_expert


class Forecast:
    """The sizes of one model's files; the threads of a page may share it."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self._known: dict[_Key, Sizes] = {}
        self._lock = threading.Lock()

    def file_bytes(
        self,
        tier: Tier,
        kept_experts: int | None = None,
        *,
        imatrix: frozenset[str] | None = None,
        ranking: tuple[int, ...] | None = None,
    ) -> int:
        """Size in bytes of the file of `tier`, pruned to `kept_experts` per layer where that is given."""
        sizes = self.sizes(tier, kept_experts, imatrix=imatrix, ranking=ranking)
        return sizes.file_bytes(kept_experts or 0)

    def sizes(
        self,
        tier: Tier,
        kept_experts: int | None = None,
        *,
        imatrix: frozenset[str] | None = None,
        ranking: tuple[int, ...] | None = None,
    ) -> Sizes:
        """Where the bytes of `tier` are. Raises as `plan.make_plan`."""
        if kept_experts is not None:
            check_kept(shape_of_gguf(self.header.values), kept_experts)
        key = tier, None if kept_experts is None else _alike(kept_experts), imatrix, ranking
        with self._lock:
            if key not in self._known:
                if len(self._known) >= _MOST_PLANS:  # every other matrix or ranking adds all tiers anew
                    self._known.clear()
                plan = make_plan(self.header, tier, imatrix=imatrix, kept_experts=kept_experts, ranking=ranking)
                self._known[key] = _sizes(self.header, plan, kept_experts)
            return self._known[key]


_Key = tuple[Tier, int | None, frozenset[str] | None, tuple[int, ...] | None]


def _sizes(header: GgufHeader, plan: TensorPlan, kept_experts: int | None) -> Sizes:
    with_experts = []
    if kept_experts is not None:
        family = family_named(shape_of_gguf(header.values).family)
        with_experts = [tensor for tensor in plan.tensors if family.gguf_layer(tensor.name) is not None]
    one = tuple(tensor.size // (kept_experts or 1) for tensor in with_experts)
    of_expert = sum(tensor.elements for tensor in with_experts)
    return Sizes(
        other=plan.file_bytes - sum(aligned(tensor.size, header.alignment) for tensor in with_experts),
        header=plan.header_bytes,
        one_expert=one,
        routed=sum(size for size, tensor in zip(one, with_experts, strict=True) if EXPERTS in tensor.name),
        alignment=header.alignment,
        values_of_others=sum(tensor.elements for tensor in plan.tensors) - of_expert,
        values_of_expert=of_expert // (kept_experts or 1),
        fallbacks=Counter(why.partition(":")[0] for why in plan.fallbacks.values()),
        without_importance=plan.without_importance,
    )


def _alike(experts: int) -> int:
    """The same for numbers of experts that llama.cpp does not tell apart: the rule asks for 1, 4 and 8 of them."""
    if experts in (1, 8):
        return experts
    return 2 if experts < 4 else 4


EXPERTS = "_exps."
"""What the names of tensors with routed experts have in them, but not that of the router."""
_MOST_PLANS = 1 << 10
_recent: deque[Forecast] = deque(maxlen=4)
_lock = threading.Lock()
