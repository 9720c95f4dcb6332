"""The held-out exercises of the demo model as a task, which any model can be asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

from studio.demo.evaluate import read_exercises
from studio.evaluate.tasks.question import Question
from studio.evaluate.tasks.task import Task, read_task

DEMO = "demo"
HELD_OUT = Path(__file__).resolve().parents[2] / "assets" / "demo-heldout.jsonl"


def demo_task() -> Task:
    """A category per class; the whole answer has to be right, as `Exercise.check` says."""
    questions = tuple(
        Question(f"{one.klass}-{number}", one.klass, one.prompt, (one.answer,), checker=one.check)
        for number, one in enumerate(read_exercises(HELD_OUT), start=1)
    )
    return Task(DEMO, HELD_OUT.name, hashlib.sha256(HELD_OUT.read_bytes()).hexdigest(), questions)


def task_named(text: str | Path) -> Task:
    """The task that a person named: `demo` where no file is called so, else the file. Raises as `read_task` does."""
    return demo_task() if str(text) == DEMO and not Path(text).exists() else read_task(Path(text))
