"""Every tier at several numbers of experts: how large the files are, and where they run. Nothing is computed for it but
plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import InputError, UnsupportedError
from studio.quantize.fit import compute_bytes, even_need, kv_by_layer
from studio.quantize.forecast import Sizes, forecast_of
from studio.quantize.placement import Kind, placement
from studio.quantize.tiers import Tier
from studio.units import GIB

SHARES = (Fraction(1), Fraction(7, 8), Fraction(3, 4), Fraction(5, 8), Fraction(1, 2))
"""The shares of experts that are shown beside the chosen one."""


@dataclass(frozen=True)
class Cell:
    """One file that could be made."""

    kept_experts: int
    bytes: int
    """The size of the file, header included and provenance apart."""
    bits_per_weight: float
    """Bits of the file's tensors per weight."""
    placement: Kind

    @property
    def gib(self) -> float:
        """Size in GiB, 2³⁰ bytes."""
        return self.bytes / GIB

    @property
    def gb(self) -> float:
        """Size in GB, 10⁹ bytes."""
        return self.bytes / 1e9


@dataclass(frozen=True)
class Row:
    """One tier."""

    tier: str
    cells: tuple[Cell, ...]
    """In the order of the numbers that were asked for; none where `problem` says why."""
    fallbacks: Mapping[str, int]
    """What tensors get instead of the type that the tier wants ("Q4_K → Q5_0") → how many tensors."""
    without_importance: tuple[str, ...]
    """Tensors whose type cannot be made without an importance matrix, and have none."""
    problem: str = ""
    """Why the tier cannot be planned."""


def rows(
    header: GgufHeader,
    tiers: Sequence[Tier],
    kept_counts: Sequence[int],
    *,
    imatrix: frozenset[str] | None = None,
    ranking: tuple[int, ...] | None = None,
    card_bytes: int,
    ram_bytes: int,
    context: int,
) -> list[Row]:
    """What each of `tiers` makes of the model of `header` with each of `kept_counts` experts per layer.

    `imatrix` holds the names of tensors that an importance matrix covers, `ranking` names layers, the most important
    first. Placement is on a card of `card_bytes` beside `ram_bytes` of main memory, with a conversation of `context`
    tokens. Fallbacks and missing importance are those of the first count. Raises `InputError` where a count is
    impossible or the header describes its attention wrongly.
    """
    kv, compute = kv_by_layer(header, context), compute_bytes(header)
    forecast = forecast_of(header)

    def cell(sizes: Sizes, kept: int) -> Cell:
        size = sizes.file_bytes(kept)
        weights = size - sizes.header
        need = even_need(weights, kept * sizes.routed, sum(kv), compute, len(kv))
        return Cell(kept, size, 8 * weights / sizes.values(kept), placement(need, card_bytes, ram_bytes).kind)

    def row(tier: Tier) -> Row:
        if tier.layers is not None and not ranking:
            return Row(tier.name, (), {}, (), "needs a ranking of the layers: contributions or an importance matrix")
        try:
            found = [forecast.sizes(tier, kept, imatrix=imatrix, ranking=ranking) for kept in kept_counts]
        except UnsupportedError as error:
            return Row(tier.name, (), {}, (), error.what)
        cells = tuple(cell(sizes, kept) for sizes, kept in zip(found, kept_counts, strict=True))
        return Row(tier.name, cells, found[0].fallbacks, found[0].without_importance)

    if not kept_counts:
        raise InputError("No number of experts was given.", "Give at least one.")
    return [row(tier) for tier in tiers]


def counts_around(experts: int, top_k: int, chosen: int) -> list[int]:
    """Numbers of experts to show: all, some shares of them, and `chosen`, the largest first; none below `top_k`."""
    shares = {int(share * experts) for share in SHARES}
    return sorted({count for count in (*shares, chosen) if top_k <= count <= experts}, reverse=True)
