"""One table over all models that were measured: a row per model file, a column per measure. Pure data and text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from studio.errors import InputError
from studio.evaluate.results import TOO_LONG, ModelRecord, Result, Value, require_same_ground
from studio.evaluate.statistics import Comparison, compare, p_text, points
from studio.staging import staged

MODEL, BYTES = "model", "bytes"
"""What a table can be sorted by besides its columns."""


@dataclass(frozen=True)
class Column:
    """One measure on one ground: what stands in a column is comparable from row to row."""

    ground: str
    measure: str
    title: str
    """Unlike that of any other column."""
    unit: str
    better: str


@dataclass(frozen=True)
class Row:
    """One model file."""

    model: ModelRecord
    values: Mapping[Column, Value]
    comparisons: Mapping[str, Comparison]
    """Ground → this model against the table's reference, where both answered the same questions."""
    results: tuple[Result, ...]


@dataclass(frozen=True)
class ResultsTable:
    """Rows and columns, in the order they are shown."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reference: ModelRecord | None
    """What the others are compared with."""

    def sorted_by(self, key: str, *, descending: bool | None = None) -> ResultsTable:
        """The rows by `key`: `model`, `bytes`, or the title of a column; a part of it is enough where only one column
        has it, and the beginning goes before any other.

        The best is first unless `descending` says otherwise; rows without a value are last. Raises `InputError`.
        """
        if key in (MODEL, BYTES):
            rows = sorted(self.rows, key=lambda row: (row.model.bytes if key == BYTES else 0, row.model.name))
            return replace(self, rows=tuple(reversed(rows) if descending else rows))
        column = self._column(key)
        falling = column.better == "higher" if descending is None else descending
        known = [row for row in self.rows if _number(row, column) is not None]
        rows = sorted(known, key=lambda row: _number(row, column) or 0.0, reverse=falling)
        return replace(self, rows=(*rows, *(row for row in self.rows if _number(row, column) is None)))

    def _column(self, key: str) -> Column:
        part = key.casefold()
        exact = [column for column in self.columns if column.title == key]
        beginning = [column for column in self.columns if column.title.casefold().startswith(part)]
        found = exact or beginning or [column for column in self.columns if part in column.title.casefold()]
        if len(found) != 1:
            problem = "no column has that in its title" if not found else f"{len(found)} columns have that in theirs"
            titles = ", ".join([MODEL, BYTES, *(column.title for column in self.columns)])
            raise InputError(f"The results cannot be sorted by {key!r}: {problem}.", f"There are {titles}.")
        return found[0]


def table_of(results: Sequence[Result], against: str | None = None) -> ResultsTable:
    """The table of `results`; `against` is the name, the path or the beginning of the sha256 of the reference's file.

    Raises `InputError` for a reference that was not measured, or that is not one file.
    """
    columns = _columns(results)
    by_model: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_model.setdefault((result.model.path, result.model.sha256), []).append(result)
    models = {key: found[0].model for key, found in by_model.items()}
    reference = None if against is None else _chosen(list(models.values()), against)
    of_reference = {
        result.ground: result for result in results if reference is not None and _same_file(result.model, reference)
    }
    rows = [
        Row(
            model=models[key],
            values={
                column: result.values[column.measure]
                for result in found
                for column in columns
                if column.ground == result.ground and column.measure in result.values
            },
            comparisons={
                result.ground: compare_results(of_reference[result.ground], result)
                for result in found
                if not (reference and _same_file(models[key], reference))
                and result.ground in of_reference
                and result.answers
            },
            results=tuple(found),
        )
        for key, found in by_model.items()
    ]
    return ResultsTable(tuple(columns), tuple(rows), reference)


def compare_results(reference: Result, candidate: Result) -> Comparison:
    """The candidate's answers against the reference's, question by question.

    A question that either could not be asked, its prompt being too long, is left out of both. Raises `MismatchError`
    when they were not measured alike.
    """
    require_same_ground(reference, candidate)
    before = {answer.id: answer for answer in reference.answers if answer.outcome != TOO_LONG}
    after = {answer.id: answer for answer in candidate.answers if answer.outcome != TOO_LONG}
    shared = [identity for identity in before if identity in after]
    return compare([before[one].right for one in shared], [after[one].right for one in shared])


def as_markdown(table: ResultsTable) -> str:
    """The table for a model card or an issue."""
    lines = [_line(_titles(table)), _line(["---", *["---:"] * (len(_titles(table)) - 1)])]
    lines += [_line(_cells(table, row)) for row in table.rows]
    return "\n".join(lines) + "\n"


def as_csv(table: ResultsTable) -> str:
    """The table for a spreadsheet: numbers as they are, intervals and comparisons in columns of their own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = ["model", "path", "sha256", "bytes"]
    for column in table.columns:
        titles += [column.title, f"{column.title} low", f"{column.title} high"]
    grounds = _compared_grounds(table)
    for name in grounds.values():
        titles += [f"{name} {what}" for what in ("difference", "better", "worse", "p")]
    writer.writerow(titles)
    for row in table.rows:
        cells: list[object] = [row.model.name, row.model.path, row.model.sha256, row.model.bytes]
        for column in table.columns:
            value = row.values.get(column, _NOTHING)
            cells += [value.value, value.low, value.high]
        for ground in grounds:
            found = row.comparisons.get(ground)
            cells += [found.difference, found.better, found.worse, found.p] if found else [None] * 4
        writer.writerow([_safe(cell) for cell in cells])
    return text.getvalue()


def export(table: ResultsTable, path: Path, *, overwrite: bool = False) -> None:
    """Write the table as `.csv` or `.md`, as the name of `path` ends. Raises `InputError` for any other ending."""
    writers = {".csv": as_csv, ".md": as_markdown}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path} is neither a .csv nor a .md file.", "Choose one of these endings.")
    text = writers[path.suffix.lower()](table)
    with staged(path, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")


def value_text(value: Value) -> str:
    """A number as a person reads it, with its interval: `83.2 % (78.4 to 87.1)`."""
    if value.value is None:
        return "–"
    text = _plain(value.value, value.unit)
    interval = ""
    if value.low is not None and value.high is not None:
        interval = f" ({_plain(value.low, value.unit)} to {_plain(value.high, value.unit)})"
    return f"{text} %{interval}" if value.unit == "share" else f"{text}{interval}"


def comparison_text(comparison: Comparison) -> str:
    """A comparison in the room of a cell: `−2.5 points, p = 0.28 (12 better, 19 worse)`."""
    return (
        f"{points(comparison.difference)} points, {p_text(comparison.p)} "
        f"({comparison.better} better, {comparison.worse} worse)"
    )


def in_words(result: Result) -> str:
    """What a model scored, and all that is counted apart, in one sentence."""
    first, *others = result.values
    counted = [
        f"{name}: {value.value:.0f}"
        for name in others
        if (value := result.values[name]).unit == "count" and value.value and name != TOO_LONG
    ]
    too_long = sum(answer.outcome == TOO_LONG for answer in result.answers)
    if too_long:
        room = f"{result.configuration.get('context')} tokens or the model's own context"
        counted.append(f"{too_long} more too long for {room}, and not scored")
    scored = len(result.answers) - too_long
    asked = f" of {scored} question{'s' * (scored != 1)}" if result.answers else ""
    apart = f"; {', '.join(counted)}" if counted else ""
    return f"{result.model.name}: {first} {value_text(result.values[first])}{asked}{apart}."


_NOTHING = Value(value=None)


def _columns(results: Sequence[Result]) -> list[Column]:
    """In the order they are met; a count that is 0 everywhere says nothing and is left out."""
    seen: dict[tuple[str, str], tuple[Result, Value]] = {}
    telling: set[tuple[str, str]] = set()
    for result in results:
        for measure, value in result.values.items():
            seen.setdefault((result.ground, measure), (result, value))
            if value.unit != "count" or value.value:
                telling.add((result.ground, measure))
    kept = {key: result for key, (result, _) in seen.items() if key in telling}
    plain = {key: f"{result.name} {key[1]}" for key, result in kept.items()}
    named = {key: f"{plain[key]} [{result.configuration.get('name')}]" for key, result in kept.items()}
    hashed = {
        key: f"{plain[key]} [{', '.join(map(str, _apart(result)))}, {key[0][:6]}]" for key, result in kept.items()
    }
    return [
        Column(
            ground=key[0],
            measure=key[1],
            title=next(titles[key] for titles in (plain, named, hashed) if _alone(titles, key) or titles is hashed),
            unit=seen[key][1].unit,
            better=seen[key][1].better,
        )
        for key in kept
    ]


def _apart(result: Result) -> list[JsonValue]:
    """What a person tells results of one name apart by."""
    questions = result.inputs.get("questions")
    return [result.configuration.get("name"), *([f"{questions} questions"] if questions else [])]


def _alone(titles: Mapping[tuple[str, str], str], key: tuple[str, str]) -> bool:
    """Whether no other column has that title."""
    return list(titles.values()).count(titles[key]) == 1


def _chosen(models: Sequence[ModelRecord], wanted: str) -> ModelRecord:
    found = [model for model in models if wanted in (model.path, model.sha256)]
    found = found or [model for model in models if model.name == wanted]
    if not found and len(wanted) >= 6:
        found = [model for model in models if model.sha256.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(sorted(model.path for model in models)) or "none"
        problem = "was not measured" if not found else "is the name of several models that were measured"
        raise InputError(f"{wanted} {problem}.", f"Measured are: {known}.")
    return found[0]


def _same_file(one: ModelRecord, other: ModelRecord) -> bool:
    """Whatever it was called."""
    return (one.path, one.sha256) == (other.path, other.sha256)


def _number(row: Row, column: Column) -> float | None:
    return row.values.get(column, _NOTHING).value


def _compared_grounds(table: ResultsTable) -> dict[str, str]:
    """Ground → what to call its comparison; only those that some row has."""
    found = {ground for row in table.rows for ground in row.comparisons}
    against = table.reference.name if table.reference else ""
    names: dict[str, str] = {}
    for column in table.columns:
        if column.ground in found and column.ground not in names:
            names[column.ground] = f"{column.title} against {against}"
    return names


def _titles(table: ResultsTable) -> list[str]:
    compared = _compared_grounds(table)
    return ["Model", "GiB", *(column.title for column in table.columns), *compared.values()]


def _cells(table: ResultsTable, row: Row) -> list[str]:
    values = [value_text(row.values.get(column, _NOTHING)) for column in table.columns]
    compared = [
        comparison_text(row.comparisons[ground]) if ground in row.comparisons else "–"
        for ground in _compared_grounds(table)
    ]
    return [row.model.name, f"{row.model.bytes / 2**30:.2f}", *values, *compared]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _safe(cell: object) -> object:
    """A spreadsheet takes a text that begins like this for a formula, and runs it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def _plain(number: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * number:.1f}"
    return f"{number:.0f}" if unit == "count" else f"{number:.4g}"
