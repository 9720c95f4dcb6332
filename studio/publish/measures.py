"""What was measured about an artifact, in the form in which a card shows it.

Results are JSON files in the artifact's `measures`, and those about the reference in the workspace's (see
`studio.evaluate`). A card shows a model beside another only where both were measured on the same ground.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import FormatError
from studio.publish.artifact import MEASURES, Artifact


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Number(_Read):
    """A value with the interval that holds it."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "number"
    better: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        interval = (
            "" if self.low is None or self.high is None else f" [{self._said(self.low)}, {self._said(self.high)}]"
        )
        return f"{self._said(self.value)}{interval}"

    def _said(self, number: float) -> str:
        return f"{number:.1%}" if self.unit == "share" else f"{number:.4g}"


class Measured(_Read):
    """The model that a result is about."""

    name: str
    path: str = ""
    bytes: int = Field(ge=0)
    sha256: str


class Result(_Read):
    """One measure of one model."""

    kind: str
    name: str
    model: Measured
    reference: Measured | None = None
    configuration: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, Any] = Field(default_factory=dict)
    values: dict[str, Number] = Field(min_length=1)

    @property
    def ground(self) -> str:
        """Equal for two results that may be compared."""
        against = self.reference.sha256 if self.reference else None
        return json.dumps([self.kind, self.name, self.configuration, self.inputs, against], sort_keys=True)

    @property
    def headline(self) -> tuple[str, Number]:
        """The measure that sums the result up: the first one."""
        return next(iter(self.values.items()))


@dataclass(frozen=True)
class Comparison:
    """All results on one ground: the artifact's files, and the reference where it was measured alike."""

    title: str
    measure: str
    rows: tuple[tuple[str, int, Number, bool], ...]
    """Name, bytes, value, and whether it is the reference; the reference first, then by size."""


def comparisons(artifact: Artifact, others: Path | None = None) -> tuple[Comparison, ...]:
    """What was measured of `artifact`; `others` is the workspace's folder of results, where the reference's lie.

    The reference is recognised by its hash, or by that in the name of its conversion. Raises `FormatError` for a
    damaged result of the artifact itself.
    """
    own = list(_read(sorted((artifact.folder / MEASURES).glob("*.json"))))
    digest = artifact.manifest.reference.sha256
    more = [] if others is None else list(_read(sorted(others.glob("*.json")), forgiving=True))
    of_reference = [
        one for one in more if one.model.sha256 == digest or Path(one.model.path).name.startswith(digest[:32])
    ]
    grounds = {one.ground: one for one in own}
    return tuple(_comparison(first, own, of_reference, artifact) for first in grounds.values())


def _comparison(first: Result, own: list[Result], of_reference: list[Result], artifact: Artifact) -> Comparison:
    measure = first.headline[0]
    mine = [one for one in own if one.ground == first.ground and measure in one.values]
    theirs = [one for one in of_reference if one.ground == first.ground and measure in one.values]
    rows = [(artifact.manifest.reference.name, one.model.bytes, one.values[measure], True) for one in theirs[:1]]
    rows += [
        (one.model.name, one.model.bytes, one.values[measure], False)
        for one in sorted(mine, key=lambda x: x.model.bytes)
    ]
    return Comparison(first.name, measure, tuple(rows))


def _read(paths: Iterable[Path], *, forgiving: bool = False) -> Iterable[Result]:
    for path in paths:
        try:
            yield Result.model_validate_json(path.read_bytes())
        except ValidationError as error:
            if not forgiving:
                first = error.errors(include_url=False)[0]
                place = ".".join(map(str, first["loc"]))
                raise FormatError(path, place, first["msg"], "Measure again to replace it.") from None
