"""What was measured about an artifact, as a card shows it: beside the reference, on the same ground."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studio.checkpoints.convert import CONVERTED, CONVERTED_DIGITS
from studio.checkpoints.digests import digest_file
from studio.errors import FormatError
from studio.evaluate.results import FOLDER, ModelRecord, Result, Value
from studio.evaluate.results_table import compare_results, comparison_text
from studio.publish.artifact import Artifact
from studio.workspace import Workspace


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
    conditions: str = ""
    """On what and how it was measured, in a sentence: the same for all rows."""

    @property
    def has_reference(self) -> bool:
        return any(row.is_reference for row in self.rows)


def comparisons(artifact: Artifact, workspace: Workspace | None = None) -> tuple[Comparison, ...]:
    """What was measured of `artifact`; in `workspace` lie the reference's results.

    The reference is recognised by its hash, whatever it was called: its own, or that of its conversion to GGUF. So
    nothing else of the workspace gets into a card. Raises `FormatError` for a damaged result of the artifact itself.
    """
    own = [Result.read(path) for path in sorted((artifact.folder / FOLDER).glob("*.json"))]
    grounds = {one.ground: one for one in own if one.values}
    found = [] if workspace is None else _readable(sorted(workspace.measures.glob("*.json")))
    of_reference = {
        one.ground: one
        for one in found
        if one.ground in grounds and workspace and _is_of(one.model, artifact.manifest.reference.sha256, workspace)
    }
    return tuple(_comparison(first, own, of_reference.get(ground), artifact) for ground, first in grounds.items())


def _is_of(model: ModelRecord, digest: str, workspace: Workspace) -> bool:
    """Whether `model` is the reference with the hash `digest`, or has the bytes of its conversion."""
    start = digest[:CONVERTED_DIGITS]
    if model.sha256 == digest or Path(model.path).name.startswith(start):
        return True
    converted = (workspace.cache / CONVERTED).glob(f"{start}*.gguf")
    return any(
        path.stat().st_size == model.bytes and digest_file(path, workspace.cache / "digests") == model.sha256
        for path in converted
    )


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
    return Comparison(first.name, measure, tuple(rows), conditions_in_words(first))


def conditions_in_words(result: Result) -> str:
    """On what and how `result` was measured: questions, configuration, sampling, seeds; as far as it tells."""
    asked, how = result.inputs, result.configuration
    parts: list[str] = []
    if isinstance(questions := asked.get("questions"), int):
        subset = asked.get("subset")
        drawn = subset if isinstance(subset, dict) else {}
        each = f", {drawn.get('per_category')} of each class, drawn with seed {drawn.get('seed')}"
        parts.append(f"{questions} question{'s' * (questions != 1)}{each if drawn.get('per_category') else ''}")
    elif asked.get("limit"):
        parts.append(f"at most {asked['limit']} questions")
    if result.reference is not None:
        parts.append(f"against {result.reference.name}")
    if how.get("name"):
        parts.append(f"configuration {how['name']}")
    sampler = how.get("sampler")
    if isinstance(sampler, dict):
        told = {"temperature": "temperature", "top_p": "top-p", "top_k": "top-k", "min_p": "min-p", "seed": "seed"}
        values = [f"{name} {sampler[key]}" for key, name in told.items() if sampler.get(key) is not None]
        parts.append(", ".join([*values, *([f"DRY {how['dry_multiplier']}"] if how.get("dry_multiplier") else [])]))
    if "thinking" in how:
        parts.append("with thoughts" if how["thinking"] else "without thoughts")
    if how.get("context"):
        parts.append(f"context {how['context']} tokens")
    if how.get("scored"):
        parts.append(f"scored: {how['scored']}")
    return f"{result.kind.capitalize()} {result.name}: {'; '.join(parts)}." if parts else ""


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
