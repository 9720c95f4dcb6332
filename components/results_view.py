"""The table of results as HTML: a row per model file that opens, heads that sort, links that save. No gradio here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from components.library import Library
from components.markup import class_label, notice, percent_text, table
from components.shown import download_link
from components.sources import built
from studio.checkpoints.convert import cached_path
from studio.checkpoints.digests import digest_file, is_known
from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.reference import Reference
from studio.errors import EspalierError, InputError
from studio.evaluate.file_results import KIND as DIVERGENCE
from studio.evaluate.results import ModelRecord, Result, Value, different_versions, read_results
from studio.evaluate.results_table import (
    BYTES,
    MODEL,
    Column,
    ResultsTable,
    Row,
    as_csv,
    as_markdown,
    table_of,
    value_text,
)
from studio.evaluate.statistics import in_words
from studio.publish.manifest import FILE_NAME as MANIFEST
from studio.publish.manifest import Manifest
from studio.units import size_text
from studio.workspace import Workspace

NOT_MEASURED = notice("Nothing has been measured yet.", "What you measure stands here, and lies with the files.")
_PART = "-00001-of-"
"""In the name of the first part of a split file."""
_NOTHING = Value(value=None)


@dataclass(frozen=True)
class Sorting:
    """What the rows are sorted by: `model`, `bytes`, or the title of a column."""

    key: str = BYTES
    descending: bool = True


@dataclass(frozen=True)
class Measured:
    """The results about the open reference and what was built from it."""

    results: tuple[Result, ...] = ()
    damaged: tuple[InputError, ...] = ()
    reference: str | None = None
    """Path of the reference's own file, as results name it."""
    older: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(path, sha256) of measured files that are no longer what lies there → what became of them."""

    @property
    def models(self) -> list[ModelRecord]:
        """Each once, the largest first."""
        found = {(result.model.path, result.model.sha256): result.model for result in self.results}
        return sorted(found.values(), key=lambda model: -model.bytes)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(name, what `table_of` knows it by) of every model that others can be compared with."""
        paths = [model.path for model in self.models]
        return [(model.name, model.path if paths.count(model.path) == 1 else model.sha256) for model in self.models]

    def against(self, wanted: str | None) -> str | None:
        """`wanted` where it was measured, else the reference where that was, else nothing."""
        known = [value for _, value in self.choices]
        return next((one for one in (wanted, self.reference) if one in known), None)

    def table(self, wanted: str | None) -> ResultsTable:
        """Everything as one table, compared with what `against` says."""
        return table_of(self.results, self.against(wanted))


def measured(library: Library, reference: str) -> Measured:
    """Read what was measured of the reference called so, and of what was built from it."""
    if not reference:
        return Measured()
    workspace, opened = library.workspace, library.reference(reference)
    folders = {file.relative_to(workspace.root).parts[:2] for file in built(workspace.artifacts, opened.name).values()}
    own = _file_of(opened, workspace)
    found, damaged = read_results(workspace)
    ours = [one for one in found if one.model.path == own or tuple(one.model.path.split("/")[:2]) in folders]
    return Measured(tuple(ours), tuple(damaged), own, older_files([one.model for one in ours], workspace))


def older_files(models: Sequence[ModelRecord], workspace: Workspace) -> dict[tuple[str, str], str]:
    """(path, sha256) of those that are no longer what lies at their path → what became of them, in words.

    A file that nobody has hashed since it was made goes by its size and its artifact's manifest: hashing takes a while.
    """
    found = {}
    for model in {(one.path, one.sha256): one for one in models}.values():
        path = workspace.root / model.path
        if not path.is_file():
            found[model.path, model.sha256] = "no longer there"
            continue
        with suppress(EspalierError, OSError):  # a damaged file says so where it is used
            if not _may_be(model, path, workspace):
                found[model.path, model.sha256] = f"of an older file ({model.sha256[:8]}); there is another one now"
    return found


def _may_be(model: ModelRecord, path: Path, workspace: Workspace) -> bool:
    """Whether the file at `path` is the one that was measured, as far as can be told at once."""
    if path.stat().st_size != model.bytes:
        return _PART in path.name and sum(part.path.stat().st_size for part in read_header(path).parts) == model.bytes
    digests = workspace.cache / "digests"
    if is_known(path, digests):
        return digest_file(path, digests) == model.sha256
    story = Manifest.read(path.parent.parent / MANIFEST)
    said = {Path(one.name).name: one.sha256 for one in story.files}
    return said.get(path.name, model.sha256) == model.sha256


def _file_of(reference: Reference, workspace: Workspace) -> str | None:
    """The GGUF of a reference, as results name it; None while a safetensors model was not converted."""
    path = reference.path.resolve()
    if reference.kind != "gguf":
        digests = workspace.cache / "digests"
        if not reference.hash_is_known(digests):
            return None
        path = cached_path(reference.content_hash(cache=digests), workspace.cache).resolve()
    inside = path.is_relative_to(workspace.root)
    return path.relative_to(workspace.root).as_posix() if inside else str(path)


def results_html(found: Measured, wanted: str | None, sorting: Sorting) -> str:
    """The table, and the links that save it. Raises as `table_of` and `sorted_by` do."""
    damaged = "".join(notice(error.what, error.remedy, "warning") for error in found.damaged)
    if not found.results:
        return damaged + NOT_MEASURED
    shown = found.table(wanted).sorted_by(sorting.key, descending=sorting.descending)
    grounds = _grounds(shown)
    head = _heads(shown, grounds, sorting)
    body = "".join(_row(shown, row, grounds, number, found.older) for number, row in enumerate(shown.rows))
    saves = download_link(as_csv(shown), "results.csv", "Save as CSV", "text/csv;charset=utf-8")
    saves += download_link(as_markdown(shown), "results.md", "Save as Markdown", "text/markdown;charset=utf-8")
    return (
        f"{damaged}<div class='scroll results' tabindex='0' role='region' aria-label='Results of all models'>"
        f"<table class='plain'><thead>{head}</thead><tbody>{body}</tbody></table></div>"
        f"<p class='saves'>{saves}</p>{_notes(shown, grounds)}"
    )


@dataclass(frozen=True)
class _Ground:
    """Columns whose numbers were measured alike, and may be compared from row to row."""

    example: Result
    columns: tuple[Column, ...]
    compared: bool
    """Whether some row is compared with the reference on it."""


def _grounds(shown: ResultsTable) -> list[_Ground]:
    """Counts are left to the rows that open."""
    examples: dict[str, Result] = {}
    for row in shown.rows:
        for result in row.results:
            examples.setdefault(result.ground, result)
    return [
        _Ground(
            example,
            tuple(column for column in shown.columns if column.ground == ground and column.unit != "count"),
            any(ground in row.comparisons for row in shown.rows),
        )
        for ground, example in examples.items()
    ]


def ground_text(result: Result) -> str:
    """How a result was measured, in a few words."""
    told, inputs = result.configuration, result.inputs
    if result.kind == DIVERGENCE:
        return f"divergence, {told.get('context')} tokens at a time"
    subset = inputs.get("subset")
    seed = subset.get("seed") if isinstance(subset, dict) else None
    drawn = f", seed {seed}" if seed is not None else ""
    return f"{inputs.get('questions', len(result.answers))} questions{drawn}, {told.get('name')}"


def ground_title(result: Result) -> str:
    """What a result was measured on."""
    return f"{'Text' if result.kind == DIVERGENCE else 'Task'}: {result.name}"


def _heads(shown: ResultsTable, grounds: Sequence[_Ground], sorting: Sorting) -> str:
    above = below = ""
    for ground in grounds:
        width = len(ground.columns) + ground.compared
        title = f"{escape(ground_title(ground.example))}<small>{escape(ground_text(ground.example))}</small>"
        above += f"<th scope='colgroup' colspan='{width}'>{title}</th>"
        for column in ground.columns:
            first = column.better == "higher"
            below += _head(column.title, class_label(column.measure), sorting, falling_first=first)
        if ground.compared and shown.reference:
            below += f"<th scope='col'>Against {escape(shown.reference.name)}</th>"
    model = _head(MODEL, "Model", sorting, falling_first=False, span=2, kind="")
    size = _head(BYTES, "Size", sorting, falling_first=False, span=2)
    return f"<tr class='group'>{model}{size}{above}</tr><tr>{below}</tr>"


def _head(key: str, label: str, sorting: Sorting, *, falling_first: bool, span: int = 1, kind: str = "number") -> str:
    """A head that sorts when it is clicked, the best first, and the other way round when it is clicked again."""
    here = key == sorting.key
    falling = not sorting.descending if here else falling_first
    order = ("descending" if sorting.descending else "ascending") if here else "none"
    return (
        f"<th scope='col' rowspan='{span}' class='{kind}' aria-sort='{order}'>"
        f"<button type='button' data-sort=\"{escape(key)}\" data-descending='{int(falling)}'>{escape(label)}"
        "</button></th>"
    )


def _row(
    shown: ResultsTable, row: Row, grounds: Sequence[_Ground], number: int, older: Mapping[tuple[str, str], str]
) -> str:
    cells = ""
    for ground in grounds:
        for column in ground.columns:
            cells += f"<td class='number'>{_cell(row.values.get(column, _NOTHING))}</td>"
        if ground.compared:
            found = row.comparisons.get(ground.example.ground)
            said = escape(in_words(found)) if found else "the reference" if _is(row, shown.reference) else "–"
            cells += f"<td class='said'>{said}</td>"
    width = 2 + sum(len(ground.columns) + ground.compared for ground in grounds)
    opens = (
        f"<button type='button' data-opens='{number}' aria-expanded='false'>"
        f"<span>{escape(row.model.name)}</span></button>"
    )
    age = older.get((row.model.path, row.model.sha256), "")
    opens += f"<small class='older'>{escape(age)}</small>" if age else ""
    inner = "".join(_details(shown, result) for result in row.results)
    return (
        f"<tr data-model=\"{escape(row.model.name)}\"><th scope='row'>{opens}</th>"
        f"<td class='number'>{size_text(row.model.bytes)}</td>{cells}</tr>"
        f"<tr class='details' data-row='{number}' hidden><td colspan='{width}'>{inner}</td></tr>"
    )


def _is(row: Row, model: ModelRecord | None) -> bool:
    return model is not None and (row.model.path, row.model.sha256) == (model.path, model.sha256)


def _cell(value: Value) -> str:
    """A number, with its interval below."""
    number, _, interval = value_text(value).partition(" (")
    return f"{number}<small>{interval.rstrip(')')}</small>" if interval else number


def _details(shown: ResultsTable, result: Result) -> str:
    """Everything else that is known about one result."""
    counts = [(name, value) for name, value in result.values.items() if value.unit == "count"]
    said = "".join(
        f"<div><dt>{escape(class_label(name))}</dt><dd>{value_text(value)}</dd></div>" for name, value in counts
    )
    return (
        f"<section><h4>{escape(ground_title(result))} <small>{escape(ground_text(result))}</small></h4>"
        f"<dl class='strip'>{said}</dl>{_by_category(result.details)}"
        f"{_versions(shown, result)}{_again(result)}</section>"
    )


def _by_category(details: Mapping[str, Any]) -> str:
    """Accuracies of a task by category, divergences by class."""
    if categories := details.get("categories"):
        rows: list[tuple[str, ...]] = [
            (
                escape(class_label(name)),
                percent_text(one["right"] / one["asked"]) if one["asked"] else "–",
                f"{percent_text(one['low'])} to {percent_text(one['high'])}",
                f"{one['right']} of {one['asked']}",
            )
            for name, one in categories.items()
        ]
        return table(("Category", "Right", "95 % interval", "Answers"), rows, numeric=(1, 2, 3))
    if classes := details.get("by_class"):
        rows = [
            (
                escape(class_label(name)),
                _number(one["kl_mean"]),
                _number(one["kl_p99"]),
                percent_text(one["same_top"]),
                f"{one['tokens']:,}",
            )
            for name, one in classes.items()
        ]
        head = ("Class", "KL divergence (nats)", "99th percentile", "Same top token", "Tokens")
        return table(head, rows, numeric=(1, 2, 3, 4))
    return ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _versions(shown: ResultsTable, result: Result) -> str:
    """A warning where the reference was measured with other programs."""
    others = [one for row in shown.rows if _is(row, shown.reference) for one in row.results]
    same = next((one for one in others if one.ground == result.ground), None)
    warning = different_versions(same, result) if same else ""
    return notice(warning, "", "warning") if warning else ""


def _again(result: Result) -> str:
    """All that decides about the numbers, to measure them again."""
    record = {
        "result": result.file_name,
        "model": result.model.model_dump(),
        "reference": result.reference.model_dump() if result.reference else None,
        "inputs": result.inputs,
        "configuration": result.configuration,
        "versions": result.versions,
    }
    text = json.dumps({key: value for key, value in record.items() if value}, indent=1, ensure_ascii=False)
    return (
        "<details class='numbers'><summary>Everything to run it again</summary>"
        f"<pre class='log'>{escape(text)}</pre></details>"
    )


def _notes(shown: ResultsTable, grounds: Sequence[_Ground]) -> str:
    """Why some of what stands here is not compared."""
    lines = []
    names = [ground.example.name for ground in grounds]
    if several := sorted({name for name in names if names.count(name) > 1}):
        lines.append(
            f"{' and '.join(several)} was measured in more than one way. Each has columns of its own and is compared "
            "within them only: another configuration, other questions or another seed make it another measure."
        )
    if shown.reference is None:
        lines.append(
            "The reference was not measured, so nothing is compared with it: tick it above, and measure it too."
        )
    return "".join(f"<p class='quiet'>{escape(line)}</p>" for line in lines)
