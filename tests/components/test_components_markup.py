"""Numbers as people say them, and nothing from outside as markup."""

from __future__ import annotations

import re
from typing import Any

import pytest

from components.markup import class_label, count_text, duration_text, facts, failure, meters, percent_text, station_head
from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.apply import make_map
from studio.recipes.recipe import Recipe
from studio.units import size_text

ATTACK = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (34_710_324, "33.1 MiB"), (17 * 2**30, "17 GiB")],
)
def test_sizes_are_binary_and_say_so(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (1, "100 %"), (0.874, "87.4 %"), (0.99996, "> 99.9 %"), (0.0001, "< 0.1 %")]
)
def test_almost_all_is_not_said_to_be_all(share: float, text: str) -> None:
    assert percent_text(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_counts() -> None:
    assert [count_text(n) for n in (950, 17_341_440, 25.2e9)] == ["950", "17.3 million", "25.2 billion"]


@pytest.mark.parametrize(
    "markup",
    [
        station_head(1, ATTACK, ATTACK),
        facts([(ATTACK, ATTACK, ATTACK)]),
        meters([(ATTACK, 0.5, True)]),
        failure(InputError(ATTACK, ATTACK)),
    ],
)
def test_text_from_outside_is_never_markup(markup: str) -> None:
    assert "<img" not in markup


def test_a_meter_never_leaves_its_track() -> None:
    assert "width:100.00%" in meters([("math", 7.0, False)])


def test_class_labels_begin_with_a_capital() -> None:
    assert [class_label(klass) for klass in ("code", "", "LCB hard")] == ["Code", "", "LCB hard"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"force_drop": {"1": [0, 1, 2]}},
            "and 2 leave every layer. Set “Experts to drop in every layer” to 3 or more",
        ),
        ({"force_drop": {"1": list(range(7))}}, "At most 6 can leave a layer of this model: release 5 of them"),
        (
            {"force_keep": {"1": list(range(7))}},
            "and 6 stay in every layer. Set “Experts to drop in every layer” to 1 or fewer",
        ),
    ],
)
def test_too_many_said_by_hand_is_answered_with_what_to_do_on_the_page(
    contributions: Contributions, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        make_map(contributions, Recipe(drop=2, **fields))
    assert words in " ".join(re.sub("<[^>]+>", " ", failure(caught.value)).split())
