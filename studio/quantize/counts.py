"""The number of experts chosen by size: the most that a file of some bytes, or a graphics card, has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import InputError
from studio.quantize.fit import compute_bytes, even_need, kv_bytes
from studio.quantize.forecast import Sizes, forecast_of
from studio.quantize.tiers import Tier
from studio.units import GIB


@dataclass(frozen=True)
class Room:
    """What a model has to fit."""

    bytes: int
    context: int | None = None
    """Tokens of a conversation that is held on a card of `bytes` beside the model; None: a file has to fit alone."""


@dataclass(frozen=True)
class Taken:
    """What the model takes with some number of kept experts."""

    kept_experts: int
    file_bytes: int
    """Size of the file, provenance apart."""
    bytes: int
    """What is compared with the room: the file, or on a card the weights and all that runs beside them."""


def taken(
    header: GgufHeader,
    tier: Tier,
    kept_counts: Sequence[int],
    room: Room,
    *,
    imatrix: frozenset[str] | None = None,
    ranking: tuple[int, ...] | None = None,
) -> list[Taken]:
    """What the model of `header` takes in `tier` with each of `kept_counts` experts per layer, in their order.

    `imatrix` and `ranking` are as for `plan.make_plan`, and this raises as that and `kv_bytes` do.
    """
    forecast = forecast_of(header)
    beside = even_need(0, 0, kv_bytes(header, room.context), compute_bytes(header), 1).on_card if room.context else 0

    def of(sizes: Sizes, kept: int) -> Taken:
        size = sizes.file_bytes(kept)
        return Taken(kept, size, size - sizes.header + beside if room.context else size)

    return [of(forecast.sizes(tier, kept, imatrix=imatrix, ranking=ranking), kept) for kept in kept_counts]


def most_that_fit(found: Sequence[Taken], room: Room) -> Taken:
    """The one of `found` with the most experts that `room` has room for.

    Raises `InputError` where none fits, with what the smallest takes.
    """
    fitting = [one for one in found if one.bytes <= room.bytes]
    if not fitting:
        least = min(found, key=lambda one: one.bytes)
        raise InputError(
            f"Even with {least.kept_experts} experts in every layer it takes {least.bytes / GIB:.4g} GiB, and there is "
            f"room for {room.bytes / GIB:.4g}.",
            "Choose a smaller tier, or more room.",
        )
    return max(fitting, key=lambda one: one.kept_experts)
