"""What a search has found: measured recipes, the best of them for every size, and the file that they are kept in."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.errors import FormatError, InputError, MismatchError
from studio.evaluate.virtual import Measurement
from studio.recipes.recipe import Recipe

Stage = Literal["fixed", "weights", "optimised", "refined"]
"""How a recipe came up: a criterion as it is, with one class weighted, from the optimiser, or by swapping experts."""

JOURNAL = "journal.jsonl"
_FORMAT = 1


@dataclass(frozen=True)
class Point:
    """A recipe and what it does to the model, on the prompts that the search goes by."""

    number: int
    """0, 1, … as they were measured."""
    stage: Stage
    label: str
    drop: int
    """Experts dropped in every layer."""
    recipe: Recipe
    measurement: Measurement
    seconds: float
    """Spent by the search since the point before."""

    def kl(self, klass: str | None = None) -> float:
        """Mean divergence, nats per token: of one class, or the mean of all classes."""
        return self.measurement.kl if klass is None else self.measurement.classes[klass].kl_mean

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **{name: getattr(self, name) for name in ("number", "stage", "label", "drop", "seconds")},
            "recipe": json.loads(self.recipe.to_json()),
            "measurement": self.measurement.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Point:
        """The counterpart of `to_json`."""
        return cls(
            content["number"],
            content["stage"],
            content["label"],
            content["drop"],
            Recipe.from_json(content["recipe"]),
            Measurement.from_json(content["measurement"]),
            content["seconds"],
        )


def best(points: Iterable[Point], drop: int, stages: Sequence[Stage] | None = None, klass: str | None = None) -> Point:
    """The point of `drop` with the least divergence, of the given stages; the first of equal ones.

    Raises `InputError` when there is none.
    """
    among = [point for point in points if point.drop == drop and (stages is None or point.stage in stages)]
    if not among:
        raise InputError(f"Nothing was measured that drops {drop} experts.", "Give the search more time.")
    return min(among, key=lambda point: (_rank(point.kl(klass)), point.number))


def frontier(points: Iterable[Point], klass: str | None = None) -> tuple[Point, ...]:
    """Those of `points` that no other beats in both size and divergence, the smallest model first."""
    found: list[Point] = []
    ordered = sorted(points, key=lambda point: (point.drop, _rank(point.kl(klass)), point.number))
    for point in ordered:  # from the largest model: a smaller one that is as good makes it superfluous
        if found and found[-1].drop == point.drop:
            continue
        while found and _rank(found[-1].kl(klass)) >= _rank(point.kl(klass)):
            found.pop()
        found.append(point)
    return tuple(reversed(found))


def _rank(value: float) -> float:
    return float("inf") if math.isnan(value) else value


class Journal:
    """The points of one search in `folder`, a line each, written as they are measured.

    The first line says what the search was asked. A line that was being written when the process died is forgotten.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        """Begin a journal, or go on with the one that is there; `MismatchError` when it answers another question."""
        self._path = folder / JOURNAL
        self.points: list[Point] = []
        head = json.dumps({"format": _FORMAT, "asked": dict(asked)}, sort_keys=True)
        folder.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            self._append(head)
            return
        known = read_journal(folder)
        if json.dumps({"format": _FORMAT, "asked": known.asked}, sort_keys=True) != head:
            changed = sorted(
                name for name in {*known.asked, *asked} if json.loads(head)["asked"].get(name) != known.asked.get(name)
            )
            raise MismatchError(
                f"{folder} holds another search, with other {', '.join(changed)}.",
                "Choose another folder, or remove this one.",
            )
        self.points = list(known.points)
        if known.torn:
            with self._path.open("r+b") as file:
                file.truncate(known.bytes)

    @property
    def spent(self) -> float:
        """Seconds that the search took so far."""
        return sum(point.seconds for point in self.points)

    def add(self, point: Point) -> None:
        """Write a new point down."""
        self._append(json.dumps(point.to_json(), allow_nan=False))
        self.points.append(point)

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Kept:
    """What a journal holds."""

    asked: Mapping[str, Any]
    points: tuple[Point, ...]
    torn: bool
    """Whether its last line was not finished."""
    bytes: int
    """Up to the last finished line."""


def read_journal(folder: Path) -> Kept:
    """The journal in `folder`, which a search may be writing just now; `FormatError` when it is damaged."""
    path = folder / JOURNAL
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    *lines, rest = data.split(b"\n")
    number = 0
    try:
        head = json.loads(lines[0])
        asked = head["asked"]
        points = []
        for line in lines[1:]:
            number += 1
            points.append(Point.from_json(json.loads(line)))
    except (ValueError, KeyError, IndexError, TypeError, InputError) as error:
        raise FormatError(path, f"line {number + 1}", f"this is no search ({error})", "Remove the folder.") from error
    return Kept(asked, tuple(points), bool(rest), len(data) - len(rest))
