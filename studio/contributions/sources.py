"""Where prompts come from: those that come with Espalier, a person's files, data sets on the Hub.

A source is a text: `builtin`, `builtin:code,math`, `hf:owner/name[:config][:split]`, or the path of a file: `.txt`
(plain passages), `.parquet`, anything else JSON lines.
A folder `owner/name` here goes before the data set of that name on the Hub, as the library `datasets` has it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio.contributions.calibration import Calibration
from studio.contributions.prompts import KEYS, BrokenEntry, Prompt, Reading, prompt_of, read_prompts
from studio.errors import FormatError, InputError

BUILTIN = "builtin"
BUILTIN_CLASSES = ("math", "logic", "code", "science", "creative", "tools", "multilingual", "long-context")
TEXT_CLASS = "text"
"""The class of plain passages when the person names none."""

_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "calibration"
_DATASET = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB = "hf:"


def prompts_of(
    sources: str | Sequence[str] = BUILTIN,
    *,
    columns: Mapping[str, str] | None = None,
    klass: str | None = None,
    limit: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> Calibration:
    """The prompts of one or several sources, in their order.

    `columns` says how JSON lines, tables and data sets call the keys of an entry (`{"prompt": "question"}`); `klass` is
    the class of what names none. `limit` draws that many rows of each file or data set, `per_class` then at most that
    many prompts of each class, both by `seed`. Where two sources use an id for different prompts, both get the name of
    their source in front.

    Raises `InputError` for a source that is not there or cannot be reached, `FormatError` with the place in it for one
    that is broken.
    """
    given = [sources] if isinstance(sources, str) else list(sources)
    if not given:
        raise InputError("No source of prompts was named.", f"Name a file, a data set, or {BUILTIN}.")
    if len(set(given)) < len(given):
        raise InputError(f"The source {Counter(given).most_common(1)[0][0]} is named twice.")
    reading = Reading(columns or {}, klass)
    if columns and not any(_has_columns(source) for source in given):
        raise InputError(
            f"Columns were named, and {', '.join(given)} has none.", "JSON lines, parquet and data sets have columns."
        )
    parts = {source: _read(source, reading, limit, seed) for source in given}
    names = _names(given)
    taken = Counter(prompt.id for prompts in parts.values() for prompt in prompts)
    prompts = tuple(
        replace(prompt, id=f"{names[source]}/{prompt.id}") if taken[prompt.id] > 1 else prompt
        for source in given
        for prompt in parts[source]
    )
    if len({prompt.id for prompt in prompts}) < len(prompts):
        double = Counter(prompt.id for prompt in prompts).most_common(1)[0][0]
        raise InputError(f"The prompt {double!r} comes twice from {' and '.join(given)}.", "Name each source once.")
    calibration = Calibration(prompts, tuple(names.values()))
    return calibration if per_class is None else calibration.at_most(per_class, seed)


def builtin_prompts(classes: Sequence[str] | None = None) -> list[Prompt]:
    """The prompts that come with Espalier: those of `classes`, or all. `InputError` names an unknown class."""
    for klass in classes or ():
        if klass not in BUILTIN_CLASSES:
            raise InputError(
                f"There are no built-in prompts of the class {klass!r}.", f"There are {', '.join(BUILTIN_CLASSES)}."
            )
    return [prompt for klass in classes or BUILTIN_CLASSES for prompt in read_prompts(_FOLDER / f"{klass}.jsonl")]


def columns_of(texts: Iterable[str]) -> dict[str, str]:
    """A column mapping as a person writes it, `KEY=COLUMN` each; `InputError` says which one is wrong."""
    columns: dict[str, str] = {}
    for text in texts:
        key, _, name = text.partition("=")
        if key not in KEYS or not name:
            raise InputError(
                f"The column {text!r} is not KEY=COLUMN.",
                f"Write, for instance, prompt=question; keys: {', '.join(KEYS)}.",
            )
        if key in columns:
            raise InputError(f"The column of {key!r} is named twice.")
        columns[key] = name
    return columns


def is_remote(source: str) -> bool:
    """Whether the source is a data set on the Hub."""
    return source.startswith(_HUB)


def is_path(source: str) -> bool:
    """Whether the source is a file."""
    return not (_is_builtin(source) or is_remote(source))


def read_text(path: Path, klass: str = TEXT_CLASS) -> list[Prompt]:
    """Each paragraph of a text file, that is, what stands between blank lines, as a plain passage.

    A model is observed on passages without a chat template, as importance matrices are usually made. Raises
    `FormatError` for a file that is not UTF-8 or holds no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(path, f"byte {error.start}", "this is not UTF-8 text", "Save it as UTF-8.") from None
    passages = [passage.strip("\n") for passage in re.split(r"\n(?:[^\S\n]*\n)+", text) if passage.strip()]
    if not passages:
        raise FormatError(path, "", "there is no text in it")
    return [Prompt(f"{klass}-{number}", klass, (), passage=text) for number, text in enumerate(passages, start=1)]


def _read(source: str, reading: Reading, limit: int | None, seed: int) -> list[Prompt]:
    if _is_builtin(source):
        classes = source.removeprefix(BUILTIN).removeprefix(":")
        return builtin_prompts(classes.split(",") if classes else None)

    def chosen(count: int) -> Sequence[int]:
        """Which of `count` rows are read."""
        if limit is None or limit >= count:
            return range(count)
        return sorted(random.Random(seed).sample(range(count), limit))

    if is_remote(source):
        return _of_rows(source, *_dataset_rows(source, reading.columns, chosen), reading)
    path = Path(source)
    if not path.is_file():
        remedy = f"Name a file, {BUILTIN}, {BUILTIN}:CLASS,CLASS, or hf:OWNER/NAME for a data set on the Hub."
        raise InputError(f"There is no prompt file {path}.", remedy)
    if path.suffix.lower() == ".parquet":
        return _of_rows(source, *_parquet_rows(path, reading.columns, chosen), reading)
    is_text = path.suffix.lower() == ".txt"
    prompts = read_text(path, reading.klass or TEXT_CLASS) if is_text else read_prompts(path, reading)
    return [prompts[index] for index in chosen(len(prompts))]


def _of_rows(source: str, numbers: Sequence[int], rows: Iterable[Any], reading: Reading) -> list[Prompt]:
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


def _parquet_rows(
    path: Path, columns: Mapping[str, str], chosen: Callable[[int], Sequence[int]]
) -> tuple[Sequence[int], list[dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"Reading {path} needs pyarrow.", "Install it: pip install pyarrow.") from None
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read(columns=_wanted(path, file.schema_arrow.names, columns))
            numbers = chosen(table.num_rows)
            return numbers, table.take(pyarrow.array(numbers, pyarrow.int64())).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(path, "", f"this is not a whole parquet file ({_line(error)})") from error


def _dataset_rows(
    source: str, columns: Mapping[str, str], chosen: Callable[[int], Sequence[int]]
) -> tuple[Sequence[int], Iterable[Any]]:
    name, config, split = _dataset(source)
    try:
        import datasets
    except ImportError:
        raise InputError(f"Reading {source} needs the library datasets.", "Install it: pip install datasets.") from None
    datasets.disable_progress_bars()
    try:
        dataset = datasets.load_dataset(name, config or None, split=split or "train")
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
    dataset = dataset.select_columns(_wanted(source, dataset.column_names, columns))
    numbers = chosen(len(dataset))
    return numbers, dataset.select(numbers)


def _dataset(source: str) -> tuple[str, str, str]:
    """Name, configuration and split of a data set; "" where none is given."""
    name, *rest = source.removeprefix(_HUB).split(":")
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


def _is_builtin(source: str) -> bool:
    return source == BUILTIN or source.startswith(f"{BUILTIN}:")


def _has_columns(source: str) -> bool:
    return is_remote(source) or (is_path(source) and Path(source).suffix.lower() != ".txt")


def _names(sources: Sequence[str]) -> dict[str, str]:
    """What each source is called in an analysis: a file by its name alone, as long as that tells them apart."""
    short = {source: Path(source).name if is_path(source) else source for source in sources}
    return short if len(set(short.values())) == len(short) else {source: source for source in sources}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
