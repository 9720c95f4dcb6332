"""Questions with MMLU-Pro's columns, as a parquet file or as JSON lines.

`question_id`, `question`, `options`, `answer` (a letter), `answer_index`, `category`, `cot_content`, `src`; what is not
among `COLUMNS` may be missing. Options called N/A fill lists up, and are left out, as the benchmark's own evaluation
does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from studio.errors import FormatError, InputError
from studio.evaluate.tasks.question import Question, WrongField, question_of

COLUMNS = ("question", "options", "answer", "category")
"""Needed ones."""
_FILLED_UP = "N/A"
_REMEDY = (
    "MMLU-Pro has the columns question_id, question, options, answer, answer_index, category, cot_content and src."
)


def read_mmlu_pro(path: Path) -> Iterator[Question]:
    """The questions of `path`, row by row.

    Raises `InputError` when there is no such file or pyarrow is missing, `FormatError` with row and column for a row
    that is not like MMLU-Pro's.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.", "Name MMLU-Pro's test set, as parquet or JSON lines.")
    rows = _parquet_rows(path) if _is_parquet(path) else _json_rows(path)
    for number, row in enumerate(rows, start=1):
        try:
            yield _question(row, number)
        except WrongField as error:
            raise FormatError(path, f"row {number}", str(error), _REMEDY) from None


def _question(row: Any, number: int) -> Question:
    if not isinstance(row, Mapping):
        raise WrongField("", "this is not a JSON object")
    for column in COLUMNS:
        if row.get(column) is None:
            raise WrongField(column, "is missing")
    options, letter = row["options"], str(row["answer"]).strip().upper()
    if not isinstance(options, list):
        raise WrongField("options", "has to be a list")
    index = ascii_uppercase.find(letter) if len(letter) == 1 else -1
    if not 0 <= index < len(options):
        raise WrongField("answer", f"is {row['answer']!r:.60}, and there are {len(options)} options")
    stated = row.get("answer_index")
    if stated is not None and stated != index:
        raise WrongField("answer_index", f"is {stated!r:.60}, and the answer {letter} is number {index}")
    kept = [position for position, option in enumerate(options) if str(option).strip() != _FILLED_UP]
    if index not in kept:
        raise WrongField("answer", f"is {letter}, an option that says {_FILLED_UP}")
    identity = row.get("question_id")
    entry = {
        "id": f"mmlu-pro-{number if identity is None else identity}",
        "category": row["category"],
        "question": row["question"],
        "options": [options[position] for position in kept],
        "answer": ascii_uppercase[kept.index(index)],
    }
    return question_of(entry, number)


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError(f"{path} is a parquet file, and pyarrow is not installed.", "pip install pyarrow") from None
    try:
        with ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise FormatError(path, "", f"it cannot be read as parquet ({error})") from error


def _json_rows(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise FormatError(path, f"line {number}", f"this is not JSON ({error})", _REMEDY) from error
