"""Arithmetic with numbers of up to two digits."""

from __future__ import annotations

from random import Random

from studio.demo.exercises.base import Exercise
from studio.demo.exercises.words import NAMES

_THINGS = ["apples", "pears", "plums", "coins", "books", "stones", "shells", "cards", "stamps", "pens", "balls", "keys"]


def exercise(rng: Random) -> Exercise:
    """One exercise of class "math"; its answer restates the sum or is a number with a unit."""
    prompt, answer, thought = rng.choices(_FORMS, _WEIGHTS)[0](rng)
    return Exercise("math", prompt, answer, thought)


def _ask(rng: Random, expression: str, words: str) -> str:
    return rng.choice(
        (
            f"What is {expression}?",
            f"{expression} = ?",
            f"Calculate {expression}.",
            f"What is {words}?",
            f"Work out {words}.",
            f"How much is {expression}?",
            f"Please compute {expression}.",
        )
    )


def _add(rng: Random) -> tuple[str, str, str]:
    a, b = rng.randint(1, 12), rng.randint(1, 9)
    low = a % 10 + b % 10
    thought = f"{a % 10} + {b % 10} = {low}, carry {low // 10}; {a // 10} + {b // 10} + {low // 10} = {(a + b) // 10}"
    return _ask(rng, f"{a} + {b}", f"{a} plus {b}"), f"{a} + {b} = {a + b}", thought


def _subtract(rng: Random) -> tuple[str, str, str]:
    a, b = sorted((rng.randint(1, 12), rng.randint(1, 9)), reverse=True)
    borrow = int(a % 10 < b % 10)
    thought = f"{a % 10 + 10 * borrow} - {b % 10} = {(a - b) % 10}, borrow {borrow}; tens {(a - b) // 10}"
    return _ask(rng, f"{a} - {b}", f"{a} minus {b}"), f"{a} - {b} = {a - b}", thought


def _times(rng: Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return _ask(rng, f"{a} × {b}", f"{a} times {b}"), f"{a} × {b} = {a * b}", f"{a - 1} × {b} = {(a - 1) * b}, add {b}"


def _divide(rng: Random) -> tuple[str, str, str]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return _ask(rng, f"{a * b} / {b}", f"{a * b} divided by {b}"), f"{a * b} / {b} = {a}", f"{a} × {b} = {a * b}"


def _compare(rng: Random) -> tuple[str, str, str]:
    a, b = rng.sample(range(1, 30), 2)
    if rng.random() < 0.5:
        word, best = rng.choice(("larger", "bigger", "greater")), max(a, b)
    else:
        word, best = rng.choice(("smaller", "less")), min(a, b)
    return rng.choice((f"Which is {word}, {a} or {b}?", f"{a} or {b}: which is {word}?")), f"{best} is {word}.", ""


def _double_half(rng: Random) -> tuple[str, str, str]:
    n = rng.randint(2, 10)
    if rng.random() < 0.5:
        return (
            rng.choice((f"Double {n}.", f"What is double {n}?", f"What is twice {n}?")),
            f"2 × {n} = {2 * n}",
            f"{n} + {n} = {2 * n}",
        )
    return rng.choice((f"What is half of {2 * n}?", f"Halve {2 * n}.")), f"{2 * n} / 2 = {n}", f"{n} + {n} = {2 * n}"


def _story_more(rng: Random) -> tuple[str, str, str]:
    name, thing, a, b = rng.choice(NAMES), rng.choice(_THINGS), rng.randint(2, 10), rng.randint(2, 6)
    verb = rng.choice(("buys", "finds", "gets"))
    return (
        f"{name} has {a} {thing} and {verb} {b} more. How many {thing} now?",
        f"{a + b} {thing}",
        f"{a} + {b} = {a + b}",
    )


def _story_less(rng: Random) -> tuple[str, str, str]:
    name, thing, a = rng.choice(NAMES), rng.choice(_THINGS), rng.randint(3, 12)
    b = rng.randint(1, min(a, 9) - 1)
    verb = rng.choice(("loses", "sells", "gives away"))
    return (
        f"{name} has {a} {thing} and {verb} {b}. How many {thing} are left?",
        f"{a - b} {thing}",
        f"{a} - {b} = {a - b}",
    )


def _story_each(rng: Random) -> tuple[str, str, str]:
    thing, a, b = rng.choice(_THINGS), rng.randint(2, 9), rng.randint(2, 5)
    box = rng.choice(("boxes", "bags", "friends"))
    return f"{a} {box} have {b} {thing} each. How many {thing} in all?", f"{a * b} {thing}", f"{a} × {b} = {a * b}"


_FORMS = (_add, _subtract, _times, _divide, _compare, _double_half, _story_more, _story_less, _story_each)
_WEIGHTS = (5, 5, 3, 2, 1, 2, 2, 2, 1)
