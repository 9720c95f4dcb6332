"""The number of experts that a size allows is the largest one, and agrees with the table of sizes."""

from __future__ import annotations

import pytest

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import InputError
from studio.quantize.counts import Room, most_that_fit, taken
from studio.quantize.fit import card_bytes
from studio.quantize.forecast import predict_bytes
from studio.quantize.table import rows
from studio.quantize.tiers import TIERS
from studio.units import GIB

COUNTS = range(128, 7, -1)


@pytest.mark.parametrize("tier", ["Q4_K_M", "Q6_K", "CD-Q4_K_M"])
@pytest.mark.parametrize("gib", [7.5, 12.0])
def test_a_file_of_that_size_has_the_most_experts_that_fit(gemma4: GgufHeader, tier: str, gib: float) -> None:
    room, ranking = Room(int(gib * GIB)), tuple(range(30))
    found = taken(gemma4, TIERS[tier], COUNTS, room, ranking=ranking)
    assert [one.kept_experts for one in found] == list(COUNTS)
    best = most_that_fit(found, room)
    sizes = [predict_bytes(gemma4, TIERS[tier], best.kept_experts + more, ranking=ranking) for more in (0, 1)]
    assert best.file_bytes == best.bytes == sizes[0] <= room.bytes < sizes[1]


@pytest.mark.parametrize("card", [12, 16])
def test_a_card_has_room_for_what_the_table_says_fits_it(gemma4: GgufHeader, card: int) -> None:
    room = Room(card_bytes(card), 8192)
    best = most_that_fit(taken(gemma4, TIERS["Q4_K_M"], COUNTS, room), room)
    given = {"card_bytes": room.bytes, "ram_bytes": GIB, "context": 8192}
    (row,) = rows(gemma4, [TIERS["Q4_K_M"]], list(COUNTS), **given)  # type: ignore[arg-type]
    assert best.kept_experts == max(cell.kept_experts for cell in row.cells if cell.placement == "card")
    assert best.bytes > best.file_bytes


def test_no_room_is_said_with_what_is_needed(gemma4: GgufHeader) -> None:
    room = Room(GIB)
    with pytest.raises(InputError, match=r"Even with 8 experts .* room for 1\.") as error:
        most_that_fit(taken(gemma4, TIERS["Q8_0"], COUNTS, room), room)
    assert "smaller tier" in error.value.remedy
