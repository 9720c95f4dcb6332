"""Looking for recipes that harm a model least: fixed criteria first, then an optimiser and swaps in turn.

What comes next depends on the seed and on what was measured before, never on the clock: a larger budget gives the same
points and more. So a search that was interrupted is asked the same again, is told from its journal what it knows, and
goes on.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.evaluate.search_candidates import fixed_recipes, weighted_recipes
from studio.evaluate.search_points import Journal, Point, Stage, best
from studio.evaluate.search_refiner import Refiner
from studio.evaluate.search_tuner import Tuner
from studio.evaluate.virtual import Measurement, Ruler
from studio.progress import Progress, silent
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap, check_router
from studio.recipes.recipe import Recipe

TURN = 4
"""Recipes of the optimiser, and then as many swaps, before the next drop count has its turn."""
FRUITLESS = 200
"""So many proposals in a row that give a known map, or none, end a search: there is little left to find."""


@dataclass(frozen=True)
class Proposal:
    """A recipe that is to be measured."""

    stage: Stage
    label: str
    recipe: Recipe


Dialogue = Generator[Proposal, Point | None, None]
"""Proposals; each is answered with the point of its map, or None when it gives none."""


def search(
    ruler: Ruler,
    contributions: Contributions,
    journal: Journal,
    *,
    drops: Sequence[int],
    budget_s: float,
    seed: int = 0,
    most: int | None = None,
    progress: Progress = silent,
) -> list[Point]:
    """All points of the search, those of `journal` first, which is written as they are measured.

    It ends when `budget_s` seconds are spent, those of earlier runs included, or `most` points are measured; the
    reference's own pass comes before that. `ruler` holds the prompts that it goes by. Raises `InputError` for drop
    counts that the model does not allow.
    """
    check_drops(contributions, drops)
    known = {point.measurement.map_hash: point for point in journal.points}
    ruler.prepare(progress)
    spent, since = journal.spent, time.monotonic()
    dialogue = proposals(contributions, drops, seed)
    answer: Point | None = None
    fruitless = 0
    proposal = next(dialogue, None)
    while proposal is not None and fruitless < FRUITLESS:
        used = spent + time.monotonic() - since
        told = min(int(used), int(budget_s))
        progress(told, int(budget_s), "seconds", f"{len(journal.points)} recipes measured: {proposal.label}")
        drop_map = _map_of(contributions, proposal.recipe)
        answer = None if drop_map is None else known.get(drop_map.content_hash)
        fruitless += 1
        if drop_map is not None and answer is None:
            if used >= budget_s or (most is not None and len(journal.points) >= most):
                break
            measurement = ruler.measure(drop_map)
            now = time.monotonic()
            answer = _point(len(journal.points), proposal, drop_map, measurement, now - since)
            spent, since = spent + now - since, now
            journal.add(answer)
            known[drop_map.content_hash] = answer
            fruitless = 0
        try:
            proposal = dialogue.send(answer)
        except StopIteration:
            proposal = None
    progress(int(budget_s), int(budget_s), "seconds", f"{len(journal.points)} recipes measured")
    return journal.points


def check_drops(contributions: Contributions, drops: Sequence[int]) -> None:
    """Raise `InputError` unless every one of `drops` can be dropped from each layer, and there is one."""
    if not drops:
        raise InputError("No number of experts to drop was given.", "Say, for instance, --drop 8 --drop 16.")
    if len(set(drops)) < len(drops):
        raise InputError("A number of experts to drop is given twice.", "Give each once.")
    shape = contributions.shape
    for drop in drops:
        if drop < 1:
            raise InputError(f"{drop} experts cannot be searched for.", "Drop at least one.")
        check_router(shape, drop)


def proposals(contributions: Contributions, drops: Sequence[int], seed: int) -> Dialogue:
    """What is tried, in which order; endless after the fixed criteria."""
    points: list[Point] = []

    def asked(stage: Stage, label: str, recipe: Recipe) -> Generator[Proposal, Point | None, Point | None]:
        point = yield Proposal(stage, label, recipe)
        if point is not None:
            points.append(point)
        return point

    for drop in drops:
        for label, recipe in fixed_recipes(contributions, drop).items():
            yield from asked("fixed", label, recipe)
    for drop in drops:
        for label, recipe in weighted_recipes(contributions, drop):
            yield from asked("weights", label, recipe)
    tuners = {drop: Tuner(contributions, drop, seed + drop) for drop in drops}
    refiners = {drop: Refiner(contributions, seed + drop) for drop in drops}
    while True:
        for drop in drops:
            for _ in range(TURN):
                recipe = tuners[drop].ask()
                point = yield from asked("optimised", f"optimiser, {drop} dropped", recipe)
                tuners[drop].tell(None if point is None else point.kl())
            start = best(points, drop)
            refiners[drop].begin(start.recipe, start.kl())
            for _ in range(TURN):
                swapped = refiners[drop].ask()
                if swapped is None:
                    break
                point = yield from asked("refined", f"swaps, {drop} dropped", swapped)
                refiners[drop].tell(None if point is None else point.kl())


def _map_of(contributions: Contributions, recipe: Recipe) -> DropMap | None:
    """The map that `recipe` gives; None where it gives none that the model can have."""
    try:
        made = make_map(contributions, recipe)
        made.check(contributions.shape)
    except InputError:
        return None
    return made


def _point(number: int, proposal: Proposal, drop_map: DropMap, measurement: Measurement, seconds: float) -> Point:
    return Point(
        number, proposal.stage, proposal.label, drop_map.dropped_count, proposal.recipe, measurement, round(seconds, 3)
    )
