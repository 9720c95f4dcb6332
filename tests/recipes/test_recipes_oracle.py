"""The maps that the published generator made, reproduced exactly from the same analyses and the same arguments."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions
from studio.recipes.apply import make_map
from studio.recipes.boundary import near_ties
from studio.recipes.decision import decide
from studio.recipes.floors import with_layer_floors
from studio.recipes.generator import recipe_of_arguments
from studio.recipes.presets import preset
from studio.recipes.recipe import Recipe

ORACLE = Path(__file__).parent / "data" / "oracle"
SIZES = {"6 x 32": ORACLE, "30 x 128": ORACLE / "gemma4"}


def content(folder: Path, name: str) -> bytes:
    packed = folder / f"{name}.xz"
    return lzma.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()


CASES: list[tuple[str, dict[str, Any]]] = [
    (size, case) for size, folder in SIZES.items() for case in json.loads(content(folder, "expected.json"))
]
NAMES = [f"{size}, case {case['case']}" for size, case in CASES]

Open = Callable[[str, str | None], Contributions | None]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    folder = tmp_path_factory.mktemp("oracle")

    @cache
    def load(size: str, name: str | None) -> Contributions | None:
        if name is None:
            return None
        path = folder / f"{size} {name}"
        path.write_bytes(content(SIZES[size], name))
        return import_analysis(path, top_k=4)

    return load


def recipe_of(size: str, case: dict[str, Any]) -> Recipe:
    recipe = recipe_of_arguments(json.dumps(case["args"]))
    floors = case["layer_floor"]
    return with_layer_floors(recipe, content(SIZES[size], floors)) if floors else recipe


@pytest.mark.parametrize(("size", "case"), CASES, ids=NAMES)
def test_the_generators_map_is_reproduced(size: str, case: dict[str, Any], opened: Open) -> None:
    contributions, second = opened(size, case["contributions"]), opened(size, case["floor_contributions"])
    assert contributions is not None
    drop = make_map(contributions, recipe_of(size, case), second)
    assert json.loads(drop.to_json()) == case["drop_map"]


@pytest.mark.parametrize(("size", "case"), CASES, ids=NAMES)
def test_a_recipe_says_as_much_after_it_was_a_file(size: str, case: dict[str, Any]) -> None:
    recipe = recipe_of(size, case)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.keep == int(case["args"][1])


def test_98e_v4_is_the_generators_maximum_of_mean_normalised_classes(opened: Open) -> None:
    case = next(case for _, case in CASES if "--normalize mean" in " ".join(case["args"]))
    generic = opened("6 x 32", "generic.json")
    assert generic is not None
    drop = make_map(generic, preset("98e-v4", drop=8).but(outliers="keep"))
    assert json.loads(drop.to_json()) == case["drop_map"]


def test_near_ties_are_what_the_generators_summary_counts(opened: Open) -> None:
    """Written out as there: kept experts below 1.01 times the score of the last one dropped."""
    case = next(case for size, case in CASES if size == "6 x 32" and case["case"] == 12)
    targeted, generic = opened("6 x 32", "targeted.json"), opened("6 x 32", "generic.json")
    assert targeted is not None
    decision = decide(targeted, recipe_of("6 x 32", case).but(class_minimums=[]), generic)
    for row, count in enumerate(near_ties(decision)):
        scores, cut = decision.scored.score[row], decision.cut[row]
        assert count == sum(score < scores[cut].max() * 1.01 for score in scores[~cut])


VERSION_1: list[dict[str, Any]] = json.loads((ORACLE.parent / "version-1.json").read_text())


@pytest.mark.parametrize("known", VERSION_1, ids=[one["recipe_hash"][:8] for one in VERSION_1])
def test_a_recipe_of_version_1_keeps_its_hash_and_its_map(known: dict[str, Any], opened: Open) -> None:
    recipe = Recipe.from_json(known["recipe"])
    assert json.loads(recipe.to_json()) == known["recipe"]
    assert recipe.content_hash == known["recipe_hash"]
    generic = opened("6 x 32", "generic.json")
    assert generic is not None
    assert make_map(generic, recipe).content_hash == known["map_hash"]
