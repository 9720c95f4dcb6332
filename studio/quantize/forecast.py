"""File sizes for every tier and every number of kept experts, quick enough for a slider.

The types that a tier chooses hardly depend on how many experts there are, and the bytes of an expert tensor are
proportional to them. So one plan per tier is made, and the sizes at other numbers follow from it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from studio.checkpoints.gguf_header import GgufHeader, aligned
from studio.families import family_named, shape_of_gguf
from studio.quantize.plan import check_kept, make_plan
from studio.quantize.tiers import Tier


def predict_bytes(header: GgufHeader, tier: Tier, kept_experts: int | None = None) -> int:
    """Size in bytes of the file that `tier` makes of the model of `header`, exactly (provenance apart).

    Raises as `plan.make_plan`.
    """
    forecast = next((known for known in _recent if known.header is header), None)
    if forecast is None:
        forecast = Forecast(header)
        _recent.append(forecast)
    return forecast.file_bytes(tier, kept_experts)


class Forecast:
    """The sizes of one model's files."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self._whole: dict[Tier, int] = {}
        self._pruned: dict[tuple[Tier, int], _Sizes] = {}

    def file_bytes(self, tier: Tier, kept_experts: int | None = None) -> int:
        """Size in bytes of the file of `tier`, pruned to `kept_experts` per layer where that is given."""
        if kept_experts is None:
            if tier not in self._whole:
                self._whole[tier] = make_plan(self.header, tier).file_bytes
            return self._whole[tier]
        check_kept(shape_of_gguf(self.header.values), kept_experts)
        key = tier, _alike(kept_experts)
        if key not in self._pruned:
            self._pruned[key] = _sizes(self.header, tier, kept_experts)
        return self._pruned[key].file_bytes(kept_experts)


@dataclass(frozen=True)
class _Sizes:
    """Where the bytes of a pruned file are."""

    other: int
    """Bytes of everything but the tensors with experts: header, other tensors, their padding."""
    one_expert: tuple[int, ...]
    """Bytes of a single expert, of each tensor with experts."""
    alignment: int

    def file_bytes(self, kept_experts: int) -> int:
        return self.other + sum(aligned(one * kept_experts, self.alignment) for one in self.one_expert)


def _sizes(header: GgufHeader, tier: Tier, kept_experts: int) -> _Sizes:
    plan = make_plan(header, tier, kept_experts=kept_experts)
    family = family_named(shape_of_gguf(header.values).family)
    with_experts = [tensor.size for tensor in plan.tensors if family.gguf_layer(tensor.name) is not None]
    padded = sum(aligned(size, header.alignment) for size in with_experts)
    return _Sizes(plan.file_bytes - padded, tuple(size // kept_experts for size in with_experts), header.alignment)


def _alike(experts: int) -> int:
    """The same for numbers of experts that llama.cpp does not tell apart: the rule asks for 1, 4 and 8 of them."""
    if experts in (1, 8):
        return experts
    return 2 if experts < 4 else 4


_recent: deque[Forecast] = deque(maxlen=4)
