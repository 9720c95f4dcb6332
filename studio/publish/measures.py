"""What was measured about an artifact, as a card shows it: beside the reference, on the same ground."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studio.errors import FormatError
from studio.evaluate.results import FOLDER, Result, Value
from studio.evaluate.results_table import compare_results, comparison_text
from studio.publish.artifact import Artifact


@dataclass(frozen=True)
class Row:
    """One model in one measure."""

    name: str
    bytes: int
    value: Value
    is_reference: bool = False
    against: str = ""
    """How its answers compare with the reference's, question by question, where both were asked the same."""


@dataclass(frozen=True)
class Comparison:
    """All results on one ground: the reference first, where it was measured alike, then the artifact's by size."""

    title: str
    measure: str
    rows: tuple[Row, ...]


def comparisons(artifact: Artifact, others: Path | None = None) -> tuple[Comparison, ...]:
    """What was measured of `artifact`; `others` is the workspace's folder of results, where the reference's lie.

    The reference is recognised by its hash, or by that in the name of its conversion, so that nothing else of the
    workspace gets into a card. Raises `FormatError` for a damaged result of the artifact itself.
    """
    own = [Result.read(path) for path in sorted((artifact.folder / FOLDER).glob("*.json"))]
    digest = artifact.manifest.reference.sha256
    of_reference = {
        one.ground: one
        for one in ([] if others is None else _readable(sorted(others.glob("*.json"))))
        if one.model.sha256 == digest or Path(one.model.path).name.startswith(digest[:32])
    }
    grounds = {one.ground: one for one in own if one.values}
    return tuple(_comparison(first, own, of_reference.get(ground), artifact) for ground, first in grounds.items())


def _comparison(first: Result, own: list[Result], reference: Result | None, artifact: Artifact) -> Comparison:
    measure = next(iter(first.values))
    mine = [one for one in own if one.ground == first.ground and measure in one.values]
    rows = [
        Row(one.model.name, one.model.bytes, one.values[measure], against=_against(reference, one))
        for one in sorted(mine, key=lambda one: one.model.bytes)
    ]
    if reference is not None and measure in reference.values:
        name = artifact.manifest.reference.name
        rows.insert(0, Row(name, reference.model.bytes, reference.values[measure], is_reference=True))
    return Comparison(first.name, measure, tuple(rows))


def _against(reference: Result | None, candidate: Result) -> str:
    if reference is None or not reference.answers or not candidate.answers:
        return ""
    return comparison_text(compare_results(reference, candidate))


def _readable(paths: Iterable[Path]) -> Iterable[Result]:
    for path in paths:
        try:
            yield Result.read(path)
        except FormatError:  # somebody else's; it says so where it is shown
            continue
