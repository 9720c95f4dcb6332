"""Several analyses of one model as one: their classes united, their questions one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from studio.contributions.model import SUMS, UNKNOWN_FAMILY, Contributions, Question
from studio.errors import InputError, MismatchError
from studio.families.base import MoeShape

Value = TypeVar("Value")

_OTHER_MODEL = "Merge only analyses of the same model."


def merge(analyses: Sequence[Contributions], model: str | None = None) -> Contributions:
    """All questions of `analyses`, with the sums that every one of them has; `source` names those that are lost.

    What an analysis does not say about its model (its name, family or sizes) the others may say. `model` says that all
    are of that one, where they call it by different names. A question whose id is taken already gets a number behind
    it.

    Raises `InputError` for fewer than two analyses, for the same question with the same numbers in two of them, and
    where no sum is common to all; `MismatchError` naming what differs between their models.
    """
    if len(analyses) < 2:
        raise InputError("There is nothing to merge.", "Name at least two analyses.")
    common = [name for name in SUMS if all(name in one.sums for one in analyses)]
    lost = [name for name in SUMS if name not in common and any(name in one.sums for one in analyses)]
    if not common:
        each = " and ".join(f"[{', '.join(one.sums)}]" for one in analyses)
        raise InputError(f"The analyses have no sum in common: {each}.", "Analyze the model again with Espalier.")
    _refuse_repeated(analyses, common)
    return Contributions(
        shape=_common_shape([one.shape for one in analyses]),
        model=model or _common_model([one.model for one in analyses]),
        questions=_distinct([question for one in analyses for question in one.questions]),
        sums={name: np.concatenate([one.sums[name] for one in analyses]) for name in common},
        source=_source(analyses, lost),
        estimated=tuple(name for name in common if any(name in one.estimated for one in analyses)),
    )


def _source(analyses: Sequence[Contributions], lost: Sequence[str]) -> str:
    parts = "; ".join(dict.fromkeys(one.source or "an analysis of unknown origin" for one in analyses))
    left_out = f"; left out, because not all of them have it: {', '.join(lost)}" if lost else ""
    return f"merged of {len(analyses)}: {parts}{left_out}"


def _common_model(names: Sequence[str]) -> str:
    """The first name; the folder or owner before a name, and how it is capitalised, make no difference."""
    known = [name for name in names if name]
    for name in known:
        if _bare(name) != _bare(known[0]):
            raise MismatchError(
                f"One analysis is of {known[0]} and another of {name}.",
                f"{_OTHER_MODEL} If both are the same one, say what to call it with --model.",
            )
    return known[0] if known else ""


def _bare(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].removesuffix(".gguf").casefold()


def _common_shape(shapes: Sequence[MoeShape]) -> MoeShape:
    """What all `shapes` together say; a part that one does not know is taken from another."""
    first = shapes[0]
    for other in shapes[1:]:
        if not first.same_grid(other):
            theirs = [f"{one.layers} layers × {one.experts} experts" for one in (first, other)]
            differs = " and ".join(theirs) if theirs[0] != theirs[1] else f"{theirs[0]}, but of other layers"
            raise MismatchError(f"The analyses are of different grids: {differs}.", _OTHER_MODEL)
    family = _agreed(shapes, "family", lambda one: one.family if one.family != UNKNOWN_FAMILY else None)
    return replace(
        next((one for one in shapes if one.family == family), first),
        # An import that knows no better claims one expert per token.
        top_k=_agreed(shapes, "experts per token", lambda one: one.top_k if one.top_k > 1 else None) or first.top_k,
        hidden_size=_agreed(shapes, "hidden size", lambda one: one.hidden_size or None) or 0,
        expert_size=_agreed(shapes, "neurons per expert", lambda one: one.expert_size or None) or 0,
    )


def _agreed(shapes: Sequence[MoeShape], what: str, known: Callable[[MoeShape], Value | None]) -> Value | None:
    """What those `shapes` that know it agree about; None where none does."""
    values = list(dict.fromkeys(value for shape in shapes if (value := known(shape)) is not None))
    if len(values) > 1:
        raise MismatchError(f"The analyses disagree about the model: {what} {values[0]} and {values[1]}.", _OTHER_MODEL)
    return values[0] if values else None


def _refuse_repeated(analyses: Sequence[Contributions], common: Sequence[str]) -> None:
    """The same question with the same numbers in two analyses would count twice."""
    seen: set[tuple[object, ...]] = set()
    for one in analyses:
        for row, question in enumerate(one.questions):
            numbers = (question.id, question.klass, *(one.sums[name][row].tobytes() for name in common))
            if numbers in seen:
                raise InputError(
                    f"The question {question.id!r} of the class {question.klass!r} is in two of the analyses, with the "
                    "same numbers, and would count twice.",
                    "Leave one of them out.",
                )
            seen.add(numbers)


def _distinct(questions: Sequence[Question]) -> tuple[Question, ...]:
    """`questions`, each with an id of its own: the second "code" becomes "code (2)"."""
    every, taken = {question.id for question in questions}, set[str]()
    result = []
    for question in questions:
        name, number = question.id, 1
        while name in taken or (number > 1 and name in every):
            number += 1
            name = f"{question.id} ({number})"
        taken.add(name)
        result.append(replace(question, id=name))
    return tuple(result)
