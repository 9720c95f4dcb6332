"""What a Python expression gives, what a loop prints, and one-line functions."""

from __future__ import annotations

from random import Random

from studio.demo.exercises.base import Exercise, in_words
from studio.demo.exercises.words import WORDS

_FUNCTIONS = ["grow", "shift", "scale", "step", "bump", "change", "make", "turn", "move", "apply", "run", "work"]
_ARGUMENTS = ["n", "x", "y", "a", "k", "v", "t", "m"]


def exercise(rng: Random) -> Exercise:
    """One exercise of class "code"; its answer is the value, the printed text or the source of the function."""
    prompt, answer, thought = rng.choices(_FORMS, _WEIGHTS)[0](rng)
    return Exercise("code", prompt, answer, thought)


def _ask(rng: Random, expression: str) -> str:
    return rng.choice(
        (
            "What does {} give?",
            "What does {} return?",
            "Python: {}",
            "What is the value of {} in Python?",
            "Evaluate the Python code {}",
            ">>> {}",
            "print({})",
        )
    ).format(expression)


def _list_function(rng: Random) -> tuple[str, str, str]:
    name = rng.choice(("len", "max", "min", "sum", "sorted"))
    if name == "sum":
        values = [rng.randint(0, 6) for _ in range(2)]
        steps = [str(sum(values[: i + 1])) for i in range(len(values))]
        return _ask(rng, f"sum({values})"), str(sum(values)), " then ".join(steps)
    values = (
        rng.sample(range(10), rng.randint(2, 3))
        if name == "sorted"
        else [rng.randint(0, 9) for _ in range(rng.randint(2, 3))]
    )
    result = {"len": len, "max": max, "min": min, "sorted": sorted}[name](values)  # type: ignore[operator]
    thought = {
        "len": "count the items",
        "max": "the largest",
        "min": "the smallest",
        "sorted": f"smallest is {min(values)}",
    }[name]
    return _ask(rng, f"{name}({values})"), str(result), thought


def _list_index(rng: Random) -> tuple[str, str, str]:
    values = [rng.randint(0, 9) for _ in range(3)]
    form = rng.randrange(4)
    if form == 0:
        i = rng.randrange(2)
        return _ask(rng, f"{values}[{i}]"), str(values[i]), f"index {i} is item {i + 1}"
    if form == 1:
        return _ask(rng, f"{values}[-1]"), str(values[-1]), "the last item"
    if form == 2:
        return _ask(rng, f"{values}[::-1]"), str(values[::-1]), "from the end to the start"
    if rng.random() < 0.5:
        return _ask(rng, f"{values}[:2]"), str(values[:2]), "the first 2"
    return _ask(rng, f"{values}[1:]"), str(values[1:]), "without the first 1"


def _string(rng: Random) -> tuple[str, str, str]:
    word = rng.choice(WORDS)
    form = rng.randrange(4)
    letters = " ".join(word)
    if form == 0:
        return _ask(rng, f'len("{word}")'), str(len(word)), f"{letters}: {len(word)}"
    if form == 1:
        return _ask(rng, f'"{word}".upper()'), f"'{word.upper()}'", letters
    if form == 2:
        i = rng.randrange(3)
        return _ask(rng, f'"{word}"[{i}]'), f"'{word[i]}'", letters
    return _ask(rng, f'"{word}"[:2]'), f"'{word[:2]}'", letters


def _number(rng: Random) -> tuple[str, str, str]:
    a, b = rng.randint(0, 12), rng.randint(2, 3)
    operator = rng.choice(("//", ">", "<", "abs", "min", "max", "**"))
    if operator == "//":
        return _ask(rng, f"{a} // {b}"), str(a // b), f"{a // b} × {b} = {a // b * b}"
    if operator == "abs":
        c = rng.randint(-15, 15)
        return _ask(rng, f"abs({c})"), str(abs(c)), "without the sign"
    if operator in ("min", "max"):
        c, d = rng.randint(0, 9), rng.randint(0, 9)
        return (
            _ask(rng, f"{operator}({c}, {d})"),
            str(min(c, d) if operator == "min" else max(c, d)),
            f"compare {c} and {d}",
        )
    if operator == "**":
        return _ask(rng, f"{b} ** 2"), str(b**2), f"{b} × {b}"
    value = a > b if operator == ">" else a < b
    return _ask(rng, f"{a} {operator} {b}"), str(value), f"compare {a} and {b}"


def _loop(rng: Random) -> tuple[str, str, str]:
    start = rng.randint(0, 5)
    stop = start + rng.randint(2, 3)
    ask = rng.choice(("What does this print?\n{}", "What is the output?\n{}", "Run this:\n{}"))
    form = rng.randrange(3)
    if form == 0:
        code = f"for i in range({start}, {stop}):\n    print(i, end=' ')"
        return ask.format(code), " ".join(map(str, range(start, stop))), f"from {start} up to {stop - 1}"
    if form == 1:
        factor = rng.randint(2, 3)
        code = f"for i in range(1, {stop - start + 1}):\n    print(i * {factor}, end=' ')"
        return (
            ask.format(code),
            " ".join(str(i * factor) for i in range(1, stop - start + 1)),
            f"i from 1 to {stop - start}",
        )
    count, step = rng.randint(2, 3), rng.randint(1, 3)
    code = f"t = {start}\nfor i in range({count}):\n    t += {step}\nprint(t)"
    steps = " then ".join(str(start + i * step) for i in range(1, count + 1))
    return ask.format(code), str(start + count * step), steps


def _assign(rng: Random) -> tuple[str, str, str]:
    first, second = rng.sample(_ARGUMENTS, 2)
    a, b = rng.randint(1, 8), rng.randint(1, 5)
    operator = rng.choice("+-*")
    if operator == "*":
        a = rng.randint(1, 6)
    if operator == "-":
        a = max(a, b)
    value = {"+": a + b, "-": a - b, "*": a * b}[operator]
    code = f"{first} = {a}\n{second} = {b}\nprint({first} {operator} {second})"
    ask = rng.choice(("What does this print?\n{}", "What is the output?\n{}", "Run this:\n{}"))
    return ask.format(code), str(value), f"{a} {operator} {b}"


def _function(rng: Random) -> tuple[str, str, str]:
    name, x, k = rng.choice(_FUNCTIONS), rng.choice(_ARGUMENTS), rng.randint(2, 30)
    what, body = rng.choice(
        (
            (f"adds {k} to {x}", f"{x} + {k}"),
            (f"subtracts {k} from {x}", f"{x} - {k}"),
            (f"multiplies {x} by {k}", f"{x} * {k}"),
            (f"divides {x} by {k}", f"{x} / {k}"),
            (f"returns the square of {x}", f"{x} ** 2"),
            (f"tells whether {x} is even", f"{x} % 2 == 0"),
            (f"tells whether {x} is greater than {k}", f"{x} > {k}"),
            (f"returns the length of {x}", f"len({x})"),
            (f"reverses {x}", f"{x}[::-1]"),
            (f"returns the last item of {x}", f"{x}[-1]"),
        )
    )
    ask = rng.choice(
        ("Write a function {} that {}.", "Define a Python function {} that {}.", "I need a function {} that {}.")
    )
    return ask.format(name, what), f"def {name}({x}): return {body}", ""


def _list_literal(rng: Random) -> tuple[str, str, str]:
    a = [rng.randint(1, 6) for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.5:
        b = [rng.randint(0, 9) for _ in range(rng.randint(1, 2))]
        return _ask(rng, f"{a} + {b}"), str(a + b), "join the lists"
    k = rng.randint(2, 3)
    return _ask(rng, f"[v * {k} for v in {a}]"), str([v * k for v in a]), in_words(f"{v} × {k}" for v in a)


_FORMS = (_list_function, _list_index, _string, _number, _loop, _assign, _function, _list_literal)
_WEIGHTS = (4, 2, 3, 2, 1, 3, 4, 2)
