"""Prompts in the rows of a table: a parquet file, or a data set on the Hub. Their libraries are optional."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.contributions.prompts import KEYS, BrokenEntry, Prompt, Reading, prompt_of
from studio.errors import Cancelled, FormatError, InputError

Choice = Callable[[int], Sequence[int]]
"""Which rows are read, of that many."""

HUB = "hf:"
_DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def of_parquet(path: Path, reading: Reading, chosen: Choice) -> list[Prompt]:
    """The prompts in the rows of a parquet file that are `chosen`; only the columns that matter are read.

    Raises `InputError` where pyarrow is not installed, `FormatError` with row and column for what is not a prompt.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"Reading {path} needs pyarrow.", "Install it: pip install pyarrow.") from None
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read(columns=_wanted(path, file.schema_arrow.names, reading.columns))
            numbers = chosen(table.num_rows)
            rows = table.take(pyarrow.array(numbers, pyarrow.int64())).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(path, "", f"this is not a whole parquet file ({_line(error)})") from error
    return _of_rows(path, numbers, rows, reading)


def of_dataset(source: str, reading: Reading, chosen: Choice) -> list[Prompt]:
    """The prompts in the rows of a data set that are `chosen`; `source` is hf:owner/name[:config][:split].

    The split is by default train; labels are read as their names. A folder owner/name here goes before the Hub, as the
    library `datasets` has it. Raises `InputError` where that is not installed, or nothing is found or reached,
    `FormatError` with row and column for what is not a prompt.
    """
    name, config, split = _dataset(source)
    try:
        import datasets
    except ImportError:
        raise InputError(f"Reading {source} needs the library datasets.", "Install it: pip install datasets.") from None
    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(name, config or None, split=split or "train")
    except Cancelled:
        raise
    except ConnectionError as error:
        raise InputError(
            f"The data set {name} is not on this machine, and the Hub cannot be reached ({_line(error)}).",
            "Go online and unset HF_HUB_OFFLINE, or use built-in prompts or a file.",
        ) from error
    except Exception as error:  # the Hub's, the library's, and those of a dozen file formats
        raise InputError(
            f"The data set {source} cannot be loaded: {_line(error)}.",
            "It is hf:OWNER/NAME:CONFIG:SPLIT; configuration and split may be left out.",
        ) from error
    dataset = dataset.select_columns(_wanted(source, dataset.column_names, reading.columns))
    labels = {
        name: dict(enumerate(feature.names))
        for name, feature in dataset.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    numbers = chosen(len(dataset))
    rows = ({**row, **{name: of.get(row[name]) for name, of in labels.items()}} for row in dataset.select(numbers))
    return _of_rows(source, numbers, rows, reading)


def _of_rows(source: Path | str, numbers: Sequence[int], rows: Iterable[Any], reading: Reading) -> list[Prompt]:
    """The prompts in rows of a table; `numbers` says where each row stands, from 0."""
    remedy = "Name columns with, for instance, prompt=question, and the class of all rows where no column holds it."
    prompts: list[Prompt] = []
    row_of_id: dict[str, int] = {}
    for number, row in zip(numbers, rows, strict=True):
        try:
            prompt = prompt_of(row, number, reading)
            if prompt.id in row_of_id:
                raise BrokenEntry(f'"id" {prompt.id!r} is that of row {row_of_id[prompt.id]} too')
        except BrokenEntry as error:
            raise FormatError(source, f"row {number}", str(error), remedy) from None
        row_of_id[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise FormatError(source, "", "there is not one row in it")
    return prompts


def _dataset(source: str) -> tuple[str, str, str]:
    """Name, configuration and split of a data set; "" where none is given."""
    name, *rest = source.removeprefix(HUB).split(":")
    if not _DATASET.fullmatch(name) or len(rest) > 2:
        raise InputError(
            f"{source!r} does not name a data set.",
            "Write hf:OWNER/NAME, hf:OWNER/NAME:CONFIG or hf:OWNER/NAME::SPLIT.",
        )
    config, split = (*rest, "", "")[:2]
    return name, config, split


def _wanted(source: Path | str, there: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """The columns to read: those that were named, and those that are called as an entry's keys are."""
    for key, name in columns.items():
        if name not in there:
            raise FormatError(source, f"column {name!r}", f"it is not there, so that nothing is the {key}", _has(there))
    wanted = [name for name in (columns.get(key, key) for key in KEYS) if name in there]
    if not {columns.get(key, key) for key in ("prompt", "messages", "text")} & set(wanted):
        remedy = f"Name the column of the questions, for instance prompt=question. {_has(there)}"
        raise FormatError(source, "", "no column is the prompt", remedy)
    return list(dict.fromkeys(wanted))


def _has(names: Sequence[str]) -> str:
    return f"Its columns are {', '.join(names)}."


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
