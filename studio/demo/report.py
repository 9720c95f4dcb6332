"""What pruning costs the demo model: the table in its card.

    python -m studio.demo.report

Every way of choosing experts drops 25, 50 and 75 % of them; each pruned model (masked, which is the same as pruned)
answers the held-out exercises, and the share of right answers per class goes into the card, between its two markers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studio.contributions.file import load
from studio.contributions.model import Contributions
from studio.demo.evaluate import accuracy, read_exercises
from studio.demo.exercises import CLASSES, Exercise
from studio.demo.model import load_model
from studio.demo.samples import ASSETS
from studio.evaluate.masking import masked
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from studio.recipes.recipe import Recipe

logger = logging.getLogger(__name__)


RANDOM_SEEDS = range(5)
SHARES = (0.25, 0.5, 0.75)
BEGIN, END = "<!-- pruning-table -->", "<!-- /pruning-table -->"

Row = tuple[str, Sequence[DropMap]]
"""What the row is called, and the maps whose accuracies are averaged."""


def ways(contributions: Contributions, drop: int) -> Iterator[Row]:
    """Every way of dropping `drop` experts per layer that the card compares."""
    yield "random (mean of 5 seeds)", [random_map(contributions, drop, seed) for seed in RANDOM_SEEDS]
    yield "frequency", [make_map(contributions, Recipe(criterion="frequency", drop=drop))]
    yield "total contribution (98e-v3)", [make_map(contributions, preset("98e-v3", drop))]
    yield "maximum over classes (98e-v4)", [make_map(contributions, preset("98e-v4", drop))]
    yield "coverage (109e-v3)", [make_map(contributions, preset("109e-v3", drop))]
    only_code = {klass: float(klass == "code") for klass in contributions.classes}
    yield "code specialist", [make_map(contributions, preset("98e-v3", drop, only_code))]


def random_map(contributions: Contributions, drop: int, seed: int) -> DropMap:
    """A map that knows nothing: `drop` experts of every layer by lot."""
    shape = contributions.shape
    lots = np.random.default_rng(seed).random((shape.layers, shape.experts))
    mask = np.argsort(np.argsort(lots, axis=1), axis=1) < drop
    return DropMap.from_mask(mask, shape.layer_ids, family=shape.family)


def measure(model: Any, tokenizer: Any, exercises: Sequence[Exercise], contributions: Contributions) -> list[list[str]]:
    """The table's rows: share dropped, way, and accuracy in percent per class of `CLASSES`."""
    rows = [["0 %", "the whole model", *_percents([accuracy(model, tokenizer, exercises)])]]
    for share in SHARES:
        drop = round(share * contributions.shape.experts)
        for name, maps in ways(contributions, drop):
            reached = []
            for drop_map in maps:
                with masked(model, drop_map.mask, contributions.shape):
                    reached.append(accuracy(model, tokenizer, exercises))
            rows.append([f"{share:.0%}".replace("%", " %"), name, *_percents(reached)])
            logger.info("%s", rows[-1])
    return rows


def _percents(reached: Sequence[dict[str, float]]) -> list[str]:
    return [f"{100 * np.mean([one[klass] for one in reached]):.0f}" for klass in CLASSES]


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The rows as a Markdown table."""
    header = ["dropped", "chosen by", *CLASSES]
    lines = [header, ["---"] * 2 + ["---:"] * len(CLASSES), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def into_card(card: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """`card` with `table` between its markers."""
    before, _, rest = card.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n{table}\n{end}{after}"


def main(
    model_dir: Annotated[Path, typer.Option("--model")] = ASSETS / "demo-model",
    contributions_path: Annotated[Path, typer.Option("--contributions")] = ASSETS / "demo-contributions.safetensors",
    held_out: Annotated[Path, typer.Option(help="JSON lines with class, prompt and answer")] = ASSETS
    / "demo-heldout.jsonl",
) -> None:
    """Measures all ways of pruning and writes the table into the model's card."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, tokenizer = load_model(model_dir)
    table = as_markdown(measure(model, tokenizer, read_exercises(held_out), load(contributions_path)))
    card = model_dir / "README.md"
    card.write_text(into_card(card.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
