"""The maps that the published generator made, reproduced exactly from the same analysis and the same arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.recipes.recipe import Recipe

ORACLE = Path(__file__).parent / "data" / "oracle"
CASES: list[dict[str, Any]] = json.loads((ORACLE / "expected.json").read_text())


@pytest.fixture(scope="module")
def generic() -> Contributions:
    return import_analysis(ORACLE / "generic.json", top_k=4)


def options(arguments: list[str]) -> dict[str, list[str]]:
    """`--name value value …` as a dictionary."""
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for argument in arguments:
        if argument.startswith("--"):
            values = found[argument] = []
        else:
            values.append(argument)
    return found


def recipe_of(arguments: list[str], contributions: Contributions) -> Recipe:
    """The generator's arguments as a recipe. `--protect-top` has no field: alone, it never changes a map."""
    given = options(arguments)
    threshold = given.get("--outlier-wnorm-thresh")
    return Recipe(
        criterion="weighted_norm",
        alpha=float(given.get("--alpha", ["2"])[0]),
        add_tokens=given.get("--score-mode", ["legacy"]) == ["legacy"],
        outliers=given.get("--outlier-mode", ["keep"])[0],
        outlier_threshold=float(threshold[0]) if threshold else None,
        normalise=given.get("--normalize", ["rank"])[0],
        aggregate=given["--strategy"][0],
        class_weights=dict(zip(contributions.classes, map(float, given["--class-weights"]), strict=True)),
        drop=contributions.shape.experts - int(given["--target"][0]),
    )


@pytest.mark.parametrize("case", CASES, ids=[f"case {case['case']}" for case in CASES])
def test_the_generators_map_is_reproduced(case: dict[str, Any], generic: Contributions) -> None:
    drop = make_map(generic, recipe_of(case["args"], generic))
    assert json.loads(drop.to_json()) == case["drop_map"]


def test_98e_v4_is_the_generators_maximum_of_mean_normalised_classes(generic: Contributions) -> None:
    (case,) = (case for case in CASES if options(case["args"]).get("--normalize") == ["mean"])
    drop = make_map(generic, preset("98e-v4", drop=8).but(outliers="keep"))
    assert json.loads(drop.to_json()) == case["drop_map"]
