"""Where prompts come from: those that come with Espalier, a person's files, data sets on the Hub.

A source is a text: `builtin`, `builtin:code,math`, `hf:owner/name[:config][:split]`, or the path of a file: `.txt`
(plain passages), `.parquet`, anything else JSON lines.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from studio.contributions.calibration import Calibration
from studio.contributions.prompts import KEYS, Prompt, Reading, read_prompts
from studio.contributions.tables import HUB, of_dataset, of_parquet
from studio.errors import FormatError, InputError

BUILTIN = "builtin"
BUILTIN_CLASSES = ("math", "logic", "code", "science", "creative", "tools", "multilingual", "long-context")
TEXT_CLASS = "text"
"""The class of plain passages when the person names none."""

_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "calibration"


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
    return source.startswith(HUB)


def is_folder(source: str) -> bool:
    """Whether there is a file or folder here of the data set's name, which its library reads in place of the Hub."""
    return is_remote(source) and Path(source.removeprefix(HUB).partition(":")[0]).exists()


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
        return of_dataset(source, reading, chosen)
    path = Path(source)
    if not path.is_file():
        remedy = f"Name a file, {BUILTIN}, {BUILTIN}:CLASS,CLASS, or hf:OWNER/NAME for a data set on the Hub."
        raise InputError(f"There is no prompt file {path}.", remedy)
    if path.suffix.lower() == ".parquet":
        return of_parquet(path, reading, chosen)
    is_text = path.suffix.lower() == ".txt"
    prompts = read_text(path, reading.klass or TEXT_CLASS) if is_text else read_prompts(path, reading)
    return [prompts[index] for index in chosen(len(prompts))]


def _is_builtin(source: str) -> bool:
    return source == BUILTIN or source.startswith(f"{BUILTIN}:")


def _has_columns(source: str) -> bool:
    return is_remote(source) or (is_path(source) and Path(source).suffix.lower() != ".txt")


def _names(sources: Sequence[str]) -> dict[str, str]:
    """What each source is called in an analysis: a file by its name alone, as long as that tells them apart."""
    short = {source: Path(source).name if is_path(source) else source for source in sources}
    return short if len(set(short.values())) == len(short) else {source: source for source in sources}
