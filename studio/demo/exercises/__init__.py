"""Exercises in five classes, made by pure functions of a `random.Random`.

An answer is right where `check_answer` says so: for math, logic, code and science the whole text must equal the one
right answer (a last full stop and the case of the first letter do not count); for creative the text must have the form
that the prompt asks for. So anything that knows `class`, `prompt` and `answer` can check.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from studio.demo.exercises import chat, code, creative, logic, math, science
from studio.demo.exercises.base import HELD_OUT_ONE_IN, Exercise, is_held_out, normalise

__all__ = ["CHECKABLE", "CLASSES", "HELD_OUT_ONE_IN", "Exercise", "check_answer", "distinct", "generate", "is_held_out"]

CLASSES = ("math", "logic", "code", "science", "creative")
# The classes whose exercises have exactly one right answer.
CHECKABLE = CLASSES[:4]

_GENERATORS: dict[str, Callable[[random.Random], Exercise]] = {
    "math": math.exercise,
    "logic": logic.exercise,
    "code": code.exercise,
    "science": science.exercise,
    "creative": creative.exercise,
    "chat": chat.exercise,
}


def generate(klass: str, rng: random.Random, held_out: bool = False) -> Exercise:
    """One exercise of a class, from the training side or the held-out side. Raises KeyError for an unknown class."""
    make = _GENERATORS[klass]
    while True:
        exercise = make(rng)
        if exercise.held_out == held_out:
            return exercise


def distinct(klass: str, seed: int, held_out: bool = False) -> Iterator[Exercise]:
    """Exercises of one class with no prompt twice, the same for ever for one seed. Endless: take what you need."""
    rng = random.Random(f"{klass}-{seed}")
    seen: set[str] = set()
    while True:
        exercise = generate(klass, rng, held_out)
        if exercise.prompt not in seen:
            seen.add(exercise.prompt)
            yield exercise


def check_answer(klass: str, prompt: str, answer: str, text: str) -> bool:
    """Whether `text`, a model's whole answer without its thought, is right for this class, prompt and answer."""
    if klass == "creative":
        return creative.check_form(prompt, text)
    return normalise(text) == normalise(answer)
