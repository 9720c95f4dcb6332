"""From a moved slider to what the page needs, after the first change.

Recipe → map → preview → the figure's JSON; and what every count of dropped experts would keep, with the cut and an
explanation of one expert.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.contributions.model import SUMS, Contributions, Question
from studio.families.base import MoeShape
from studio.recipes.apply import make_map
from studio.recipes.boundary import score_curves
from studio.recipes.drop_curve import drop_curve
from studio.recipes.explain import explain
from studio.recipes.presets import PRESETS
from studio.recipes.preview import preview
from studio.recipes.recipe import Recipe
from studio.recipes.views import colour_limits, view

if TYPE_CHECKING:
    from studio.recipes.dropmap import DropMap

QUESTIONS = 240
CHANGES = 60
TOP_K = 8
SCALES = ("raw", "share", "rank")


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "preview_30x128x8_ms": partial(_measure, layers=30, experts=128, classes=8, budget=50.0),
        "preview_61x384x16_ms": partial(_measure, layers=61, experts=384, classes=16, budget=300.0),
        "drop_curve_30x128x8_ms": partial(_measure_curve, layers=30, experts=128, classes=8, budget=50.0),
        "drop_curve_61x384x16_ms": partial(_measure_curve, layers=61, experts=384, classes=16, budget=300.0),
    }


def _measure(layers: int, experts: int, classes: int, budget: float) -> dict[str, Any]:
    """The 95th percentile over random changes of preset, drop count, weights and view, in milliseconds."""
    contributions = _contributions(layers, experts, classes)
    draw, drawn = _figure()
    random = np.random.default_rng(0)

    def change() -> float:
        recipe = _random_recipe(contributions, random)
        klass, scale = str(random.choice(contributions.classes)), str(random.choice(SCALES))
        start = time.perf_counter()
        drop = make_map(contributions, recipe)
        preview(contributions, drop)
        draw(contributions, drop, klass, scale)
        return 1000 * (time.perf_counter() - start)

    first = change()
    for entry in PRESETS.values():  # what depends on the analysis alone is computed once, as when the page opens
        make_map(contributions, entry.recipe)
    for scale in SCALES:
        draw(contributions, make_map(contributions, entry.recipe), "all", scale)
    times = [change() for _ in range(CHANGES)]
    slow = float(np.percentile(times, 95))
    sizes = {
        "layers": layers,
        "experts": experts,
        "classes": classes,
        "questions": QUESTIONS,
        "changes": CHANGES,
        "median_ms": round(statistics.median(times), 2),
        "first_change_ms": round(first, 1),
        "drawn": drawn,
    }
    return {"value": round(slow, 2), "budget": budget, "met": slow <= budget, "sizes": sizes}


def _measure_curve(layers: int, experts: int, classes: int, budget: float) -> dict[str, Any]:
    """The 95th percentile over random recipes of the curve over all counts, the cut, and one explanation together."""
    contributions = _contributions(layers, experts, classes)
    random = np.random.default_rng(0)
    for entry in PRESETS.values():
        make_map(contributions, entry.recipe)
    parts: dict[str, list[float]] = {"curve": [], "cut": [], "explanation": []}
    for _ in range(CHANGES):
        recipe = _random_recipe(contributions, random)
        works: tuple[tuple[str, Callable[[], object]], ...] = (
            ("curve", partial(drop_curve, contributions, recipe)),
            ("cut", partial(score_curves, contributions, recipe)),
            ("explanation", partial(explain, contributions, recipe, 0, 0)),
        )
        for name, work in works:
            start = time.perf_counter()
            work()
            parts[name].append(1000 * (time.perf_counter() - start))
    slow = float(np.percentile(np.sum(list(parts.values()), axis=0), 95))
    sizes = {"layers": layers, "experts": experts, "classes": classes, "questions": QUESTIONS, "changes": CHANGES}
    medians = {f"{name}_median_ms": round(statistics.median(times), 2) for name, times in parts.items()}
    return {"value": round(slow, 2), "budget": budget, "met": slow <= budget, "sizes": {**sizes, **medians}}


def _random_recipe(contributions: Contributions, random: np.random.Generator) -> Recipe:
    base = list(PRESETS.values())[random.integers(len(PRESETS))].recipe
    classes = contributions.classes
    return base.but(
        normalise=str(random.choice(["none", "mean", "rank", "zscore"])),
        breadth_bonus=float(random.choice([0.0, 0.5])),
        protect_top_per_class=int(random.choice([0, 4])),
        floor_analysis="same",
        floor=int(random.choice([0, 20])),
        class_minimums=[(classes[0], TOP_K), (classes[1], TOP_K)] if random.random() < 0.3 else [],
        drop=int(random.integers(1, contributions.shape.experts - TOP_K)),
        class_weights={klass: float(random.uniform(0, 3)) for klass in contributions.classes},
    )


def _figure() -> tuple[Callable[[Contributions, DropMap, str, str], object], str]:
    """The page's own figure where there is a page, else its numbers; and which of them it is."""
    try:
        from components.shown import map_json, marks_json
        from components.state import View
    except ImportError:
        return (lambda contributions, drop, klass, scale: colour_limits(view(contributions, klass, scale))), "view"

    def draw(contributions: Contributions, drop: DropMap, klass: str, scale: str) -> object:
        return map_json(contributions, View(klass, None, scale)), marks_json(contributions, drop, None)

    return draw, "figure"


def _contributions(layers: int, experts: int, classes: int) -> Contributions:
    random = np.random.default_rng(1)
    shape = (QUESTIONS, layers, experts)
    return Contributions(
        shape=MoeShape("gemma4", tuple(range(layers)), experts, TOP_K, hidden_size=2816, expert_size=704),
        model="synthetic",
        questions=tuple(Question(f"q{index}", f"class {index % classes}") for index in range(QUESTIONS)),
        sums={name: np.floor(random.lognormal(3, 1.5, shape)) for name in SUMS},
    )
