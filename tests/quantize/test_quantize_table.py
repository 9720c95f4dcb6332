"""The table of all tiers says what the plans say, at once."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import InputError
from studio.quantize.fit import card_bytes, kv_bytes
from studio.quantize.plan import make_plan
from studio.quantize.table import Row, counts_around, rows
from studio.quantize.tiers import TIERS
from studio.units import GIB

ALL = list(TIERS.values())
RANKING = tuple(range(30))


def table(
    header: GgufHeader, *names: str, counts: tuple[int, ...] = (96,), card: int = 24, **more: object
) -> list[Row]:
    given = {"card_bytes": card_bytes(card), "ram_bytes": 64 * GIB, "context": 8192, **more}
    return rows(header, [TIERS[name] for name in names] or ALL, counts, **given)  # type: ignore[arg-type]


def test_every_cell_is_the_plan_s_own_size(gemma4: GgufHeader) -> None:
    for row in table(gemma4, counts=(128, 98, 8), ranking=RANKING):
        for cell in row.cells:
            plan = make_plan(gemma4, TIERS[row.tier], kept_experts=cell.kept_experts, ranking=RANKING)
            assert cell.bytes == plan.file_bytes
            values = sum(tensor.elements for tensor in plan.tensors)
            assert cell.bits_per_weight == pytest.approx(8 * plan.tensor_bytes / values, rel=1e-5)
            assert cell.gib * GIB == pytest.approx(cell.bytes) == pytest.approx(cell.gb * 1e9)


def test_bits_per_weight_are_those_of_the_types(gemma4: GgufHeader) -> None:
    half, eight = (row.cells[0].bits_per_weight for row in table(gemma4, "F16", "Q8_0"))
    assert 16 <= half < 16.1 and 8.5 <= eight < 8.6


def test_all_tiers_at_twelve_counts_take_less_than_a_second(gemma4: GgufHeader) -> None:
    header = replace(gemma4)  # one that no forecast knows
    counts = tuple(range(128, 32, -8))
    assert len(counts) == 12
    times = []
    for ranking in (RANKING, tuple(reversed(RANKING)), (*RANKING[1:], 0)):
        start = time.process_time()
        found = table(header, counts=counts, ranking=ranking)
        times.append(time.process_time() - start)
    assert len(found) == len(TIERS) and all(len(row.cells) == 12 for row in found)
    assert min(times) < 1


def test_a_tier_by_layer_says_that_it_needs_a_ranking(gemma4: GgufHeader) -> None:
    (without,), (ranked,) = table(gemma4, "CD-Q4_K_M"), table(gemma4, "CD-Q4_K_M", ranking=RANKING)
    assert "ranking" in without.problem and not without.cells
    assert not ranked.problem and len(ranked.cells) == 1


def test_missing_importance_and_fallbacks_are_told(gemma4: GgufHeader) -> None:
    (blind,) = table(gemma4, "IQ2_XXS")
    assert blind.without_importance and sum(blind.fallbacks.values()) >= 30
    names = frozenset(tensor.name for tensor in gemma4.tensors)
    (seeing,) = table(gemma4, "IQ2_XXS", imatrix=names)
    assert not seeing.without_importance


def test_a_smaller_card_never_fits_better(gemma4: GgufHeader) -> None:
    order = ["no", "RAM", "layers in RAM", "experts in RAM", "card"]
    by_card = [table(gemma4, card=card, counts=(128, 64), ranking=RANKING) for card in (12, 24, 48, 80)]
    for smaller, larger in pairwise(by_card):
        for one, other in zip(smaller, larger, strict=True):
            for cell, roomier in zip(one.cells, other.cells, strict=True):
                assert order.index(cell.placement) <= order.index(roomier.placement)
    assert {cell.placement for found in by_card for row in found for cell in row.cells} >= {"card", "experts in RAM"}


def test_a_longer_conversation_needs_more(gemma4: GgufHeader) -> None:
    assert kv_bytes(gemma4, 262144) >= kv_bytes(gemma4, 8192)


def test_the_counts_shown_are_possible_and_hold_the_chosen_one() -> None:
    assert counts_around(128, 8, 98) == [128, 112, 98, 96, 80, 64]
    assert counts_around(8, 6, 6) == [8, 7, 6]
    assert counts_around(128, 8, 128) == [128, 112, 96, 80, 64]


def test_an_impossible_count_is_refused(gemma4: GgufHeader) -> None:
    with pytest.raises(InputError, match="129"):
        table(gemma4, counts=(129,))
    with pytest.raises(InputError):
        table(gemma4, counts=())
