"""Two maps side by side: what is said is what the engine found, and the kept map stays as it was."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from components.compare import (
    KEPT,
    MAP,
    PRESET,
    RECIPE,
    classes_html,
    compared_html,
    label_of,
    other_choices,
    other_map,
)
from components.library import Library, Opened
from components.state import Kept, StudioState
from studio.contributions.model import Contributions, Question
from studio.errors import EspalierError, InputError, MismatchError
from studio.families import MoeShape
from studio.recipes.difference import ClassChange, map_difference
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import PRESETS
from studio.recipes.recipe import Recipe

ATTACK = "<img src=x onerror=alert(1)>"


@pytest.fixture
def opened(library: Library, contributions: Contributions) -> Opened:
    reference = library.reference("pear")
    key = library.open_analysis(library.workspace.contributions / "pear.safetensors", reference)
    return library.open(StudioState.opening("pear", key, reference.shape))


def drop(*layers: tuple[int, ...]) -> DropMap:
    return DropMap("gemma4", 8, layers, tuple(range(len(layers))))


def test_the_difference_counts_who_leaves_and_who_comes_back(opened: Opened) -> None:
    first, second = drop((0, 1), (0, 1), (0, 1)), drop((0, 1), (0, 2), (6, 7))
    html = compared_html(replace(opened, drop=second), Kept("the first", first))
    assert "from A to B 3 leave and 3 come back" in html and "agree on 75.0 % of the experts" in html
    assert "Layer 2 changes most, 4 of 8 experts; 1 of 3 layers do not change" in html
    assert "<td>6, 7</td><td>0, 1</td>" in html and "<td>–</td><td>–</td>" in html
    assert "A is the first" in html

    def boxes(kind: str) -> int:
        found = re.search(rf"class='{kind}' d='([^']*)'", html)
        return found[1].count("M") if found else 0

    assert (boxes("gone"), boxes("both")) == (2, 2), "neighbours are one box"


def test_equal_maps_have_no_figure(opened: Opened) -> None:
    assert opened.drop is not None
    html = compared_html(opened, Kept("the same", opened.drop))
    assert "drop the same experts" in html and "<figure" not in html


def test_without_an_analysis_classes_are_not_compared(opened: Opened) -> None:
    bare = replace(opened, contributions=None, drop=drop((6, 7), (6, 7), (6, 7)))
    assert "Class" not in compared_html(bare, Kept("other", drop((0, 1), (0, 1), (0, 1))))


def test_a_map_of_another_grid_is_refused(opened: Opened) -> None:
    with pytest.raises(MismatchError):
        compared_html(opened, Kept("other", drop((0, 1))))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        ((0.1, -0.2), "Math gains most (+10.0 %), Code loses most (−20.0 %)"),
        ((0.1, 0.2), "No class loses; Code gains most (+20.0 %)"),
        ((-0.1, -0.2), "Every class loses; Code most (−20.0 %)"),
        ((0.0, 0.0), "No class gains or loses"),
    ],
)
def test_the_classes_are_told_by_their_net_change(net: tuple[float, float], said: str) -> None:
    changes = [
        ClassChange(name, max(change, 0), max(-change, 0)) for name, change in zip(("math", "code"), net, strict=True)
    ]
    assert said in classes_html(changes)


def test_there_is_something_to_compare_with_from_the_start(library: Library, opened: Opened) -> None:
    values = [value for _, value in other_choices(library, None)]
    assert values == [f"{PRESET}{name}" for name in PRESETS]
    for value in values:
        other = other_map(library, opened, value)
        assert opened.drop is not None and other.drop.dropped_count == opened.drop.dropped_count


def test_the_kept_map_survives_every_change(library: Library, opened: Opened) -> None:
    assert opened.drop is not None
    kept = Kept(label_of(opened), opened.drop)
    assert (kept.name, other_choices(library, kept)[0]) == ("98e-v4, 2 dropped", ("Kept: 98e-v4, 2 dropped", KEPT))
    aside = replace(opened.state, aside=kept)
    changed = library.open(aside.choosing("98e-v3", 4, {"math": 5.0}))
    assert other_map(library, changed, KEPT) is kept
    assert "leave and" in compared_html(changed, kept) and "98e-v3, 4 dropped" in compared_html(changed, kept)


def test_saved_maps_and_recipes_can_be_chosen(library: Library, opened: Opened) -> None:
    saved = drop((6, 7), (5, 7), (4, 7))
    (library.workspace.maps / "mine.json").write_text(saved.to_json())
    (library.workspace.recipes / "soup.json").write_text(Recipe(drop=3).to_json())
    values = [value for _, value in other_choices(library, None)]
    assert values[-2:] == [f"{MAP}mine.json", f"{RECIPE}soup.json"]
    assert other_map(library, opened, f"{MAP}mine.json").drop == saved
    assert other_map(library, opened, f"{RECIPE}soup.json").drop.dropped_count == 3


@pytest.mark.parametrize("choice", ["", KEPT, "preset:none", "map:../recipes/soup.json", "map:/etc/passwd"])
def test_only_what_is_offered_is_opened(library: Library, opened: Opened, choice: str) -> None:
    (library.workspace.recipes / "soup.json").write_text(Recipe(drop=3).to_json())
    with pytest.raises(InputError, match="not there"):
        other_map(library, opened, choice)


def test_a_damaged_file_is_told(library: Library, opened: Opened) -> None:
    (library.workspace.maps / "broken.json").write_text(json.dumps({"0": "x"}))
    with pytest.raises(EspalierError, match="broken"):
        other_map(library, opened, f"{MAP}broken.json")


def test_a_large_grid_is_some_hundred_kilobytes(opened: Opened) -> None:
    random = np.random.default_rng(0)
    order = random.random((2, 61, 384)).argsort(axis=2)
    first, second = (DropMap.from_mask(one < 96, range(61)) for one in order)
    shape = MoeShape("gemma4", tuple(range(61)), 384, 8, 8, 8)
    values = random.lognormal(size=(16, 61, 384))
    questions = tuple(Question(f"q{index}", f"class {index}") for index in range(16))
    large = Contributions(shape, "m", questions, {"weighted_norm_squared": values})
    html = compared_html(replace(opened, contributions=large, drop=second), Kept("other", first))
    assert map_difference(first, second).agreement.mean() < 0.7, "hardly anything is the same"
    assert len(html) < 700_000


def test_names_are_never_markup(opened: Opened) -> None:
    other = Kept(ATTACK, drop((6, 7), (6, 7), (6, 7)))
    assert "<img" not in compared_html(opened, other) + classes_html([ClassChange(ATTACK, 0.1, 0.2)])
