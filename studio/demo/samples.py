"""The exercises that come with the demo model: some to analyze it with, others that it has never seen.

python -m studio.demo.samples
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from studio.demo.evaluate import held_out, write_exercises
from studio.demo.exercises import CLASSES, distinct

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CALIBRATION, HELD_OUT = 40, 100
"""Exercises of each class."""
SEED = 1


def main(out: Annotated[Path, typer.Option(help="folder to write to")] = ASSETS) -> None:
    """Writes demo-prompts.jsonl, of the training side, and demo-heldout.jsonl."""
    calibration = [exercise for klass in CLASSES for exercise in islice(distinct(klass, SEED), CALIBRATION)]
    write_exercises(out / "demo-prompts.jsonl", calibration)
    write_exercises(out / "demo-heldout.jsonl", held_out(HELD_OUT, SEED))


if __name__ == "__main__":
    typer.run(main)
