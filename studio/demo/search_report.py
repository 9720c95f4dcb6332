"""What searching for a recipe gains on the demo model: the table in its card.

    python -m studio.demo.search_report

A search goes by freshly generated held-out exercises. Its best recipes and the fixed ways to choose experts, with 25
and 50 % dropped, are then measured on the held-out exercises that come with the model, none of which the search has
seen: divergence from the whole model, and the share of right answers.

A number of recipes ends the search, not a time, so one machine gives the same card again; about ten minutes on two
cores. The search is kept in the workspace: a run that was interrupted goes on, one that was not is read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from textwrap import fill
from typing import Annotated

import numpy as np
import typer

from studio.contributions.calibration import Calibration
from studio.contributions.file import load
from studio.contributions.model import Contributions
from studio.contributions.prompts import Prompt
from studio.contributions.sources import prompts_of
from studio.demo.evaluate import accuracy, held_out, read_exercises
from studio.demo.exercises import CLASSES, Exercise
from studio.demo.report import into_card
from studio.demo.samples import ASSETS
from studio.evaluate.held_out import held_out as measured_on
from studio.evaluate.held_out import question_of
from studio.evaluate.search_candidates import random_map
from studio.evaluate.search_run import Finalist, SearchRequest, SearchResult, run_search
from studio.evaluate.virtual import Measurement, Ruler, VirtualModel
from studio.recipes.dropmap import DropMap
from studio.workspace import Workspace

logger = logging.getLogger(__name__)

MODEL, HELD_OUT = ASSETS / "demo-model", ASSETS / "demo-heldout.jsonl"
SHARES = (0.25, 0.5)
SEARCH_SEED = 7
SEARCHED = 30
"""Exercises of each class that the search goes by, as far as there are so many that do not come with the model."""
RECIPES = 150
"""That are measured before the search ends."""
A_DAY_S = 86_400.0
RANDOM_SEEDS = range(3)
BEGIN, END = "<!-- search-table -->", "<!-- /search-table -->"
NAMES = {
    "total": "total contribution (98e-v3)",
    "max over classes": "maximum over classes (98e-v4)",
    "optimised": "search: recipe and class weights",
    "refined": "search: experts swapped",
}


def search_prompts(unseen: Calibration) -> Calibration:
    """Exercises for the search, none of them in `unseen`."""
    taken = {question_of(prompt) for prompt in unseen.prompts}
    made = [_prompt(number, exercise) for number, exercise in enumerate(held_out(2 * SEARCHED, SEARCH_SEED))]
    free = Calibration(tuple(prompt for prompt in made if question_of(prompt) not in taken), ("held-out exercises",))
    return free.at_most(SEARCHED)


def _prompt(number: int, exercise: Exercise) -> Prompt:
    return Prompt(str(number), exercise.klass, ({"role": "user", "content": exercise.prompt},), exercise.answer)


Measured = tuple[DropMap | None, Measurement | None]
"""A map, and its divergence on the unseen exercises where it is known."""


class Examiner:
    """Measures maps on the exercises that the search has not seen, and lets each model answer them."""

    def __init__(self, contributions: Contributions, unseen: Calibration, exercises: Sequence[Exercise]) -> None:
        self._virtual = VirtualModel.load(MODEL)
        self._ruler = Ruler(self._virtual, measured_on(self._virtual.tokenizer, unseen))
        self._exercises = exercises
        self.contributions = contributions

    def row(self, share: str, name: str, maps: Sequence[Measured]) -> list[str]:
        """A line of the table, averaged over `maps`: divergence over classes and right answers per class.

        Each comes with its divergence from the whole model where that is known already.
        """
        divergences, reached = [], []
        for drop_map, known in maps:
            divergences.append((known or self._ruler.measure(drop_map)).kl)
            with self._virtual.pruned(drop_map):
                reached.append(accuracy(self._virtual.model, self._virtual.tokenizer, self._exercises))
        line = [share, name, f"{np.mean(divergences):.4f}", *_percents(reached)]
        logger.info("%s", line)
        return line


def _percents(reached: Sequence[Mapping[str, float]]) -> list[str]:
    per_class = [float(np.mean([one[klass] for one in reached])) for klass in CLASSES]
    return [f"{100 * float(np.mean(per_class)):.1f}", *(f"{100 * value:.0f}" for value in per_class)]


def table(examiner: Examiner, finalists: Sequence[Finalist]) -> str:
    """All finalists as a Markdown table."""
    rows = [examiner.row("0 %", "the whole model", [(None, None)])]
    for one in finalists:
        share = f"{100 * one.drop // examiner.contributions.shape.experts} %"
        maps: list[Measured] = [(one.drop_map, one.unseen)]
        name = NAMES.get(one.label, one.label)
        if one.recipe is None:
            maps = [(random_map(examiner.contributions, one.drop, seed), None) for seed in RANDOM_SEEDS]
            name = f"random (mean of {len(maps)} seeds)"
        rows.append(examiner.row(share, name, maps))
    header = ["dropped", "chosen by", "divergence", "right", *CLASSES]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def story(found: SearchResult, searched: int, unseen: int, answered: int) -> str:
    """What the table shows, and how far it can be trusted, in words; all figures are those of this search.

    `searched`, `unseen` and `answered` are numbers of exercises: of the search, of the divergences, and of the answers.
    """
    best: dict[int, float] = {}
    for one in found.finalists:
        if one.searched is not None:
            best[one.drop] = min(one.searched.kl, best.get(one.drop, one.searched.kl))
    experts = found.finalists[0].drop_map.experts
    own = " and ".join(f"{kl:.4f} at {100 * drop // experts} %" for drop, kl in best.items())
    error = 100 * sqrt(0.9 * 0.1 / answered)
    return (
        f"{len(found.points)} recipes were measured, on {searched} other held-out exercises. Divergence is the mean "
        f"over classes of the KL divergence from the whole model, in nats per token of {unseen} answers; right answers "
        f"are greedy, of {answered}, in percent: the mean of the classes, then each. One search with one seed. What it "
        f"goes by flatters it: on its own exercises the best has {own}. Right answers that differ by a point or two "
        f"differ by chance: {answered} answers have a standard error of {error:.1f} points at 90 %."
    )


def main(
    recipes: Annotated[int, typer.Option(min=1, help="that the search measures")] = RECIPES,
    contributions_path: Annotated[Path, typer.Option("--contributions")] = ASSETS / "demo-contributions.safetensors",
    per_class: Annotated[int, typer.Option(min=1, help="exercises of each class to answer at the end")] = 60,
    card: Annotated[Path, typer.Option(help="the card to write the table into")] = MODEL / "README.md",
) -> None:
    """Searches, measures, and writes table and text into the model's card."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    contributions, unseen = load(contributions_path), prompts_of(str(HELD_OUT))
    drops = tuple(round(share * contributions.shape.experts) for share in SHARES)
    request = SearchRequest(MODEL, contributions, search_prompts(unseen), drops, unseen=unseen)
    workspace = Workspace.open()
    folder = workspace.searches / f"demo-card-{recipes}"
    found = run_search(request, folder, budget_s=A_DAY_S, most=recipes, cache=workspace.cache / "logits")
    answered = [e for klass in CLASSES for e in [e for e in read_exercises(HELD_OUT) if e.klass == klass][:per_class]]
    made = table(Examiner(contributions, unseen, answered), found.finalists)
    told = story(found, len(request.prompts.prompts), len(unseen.prompts), len(answered))
    text = into_card(card.read_text(encoding="utf-8"), f"{fill(told, 120)}\n\n{made}", BEGIN, END)
    card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
