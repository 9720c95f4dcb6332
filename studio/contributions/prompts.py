"""`Prompt`, and reading one from an entry: a line of JSON, a row of a table, a record of a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import FormatError, InputError

KEYS = ("id", "class", "prompt", "messages", "text", "answer")
"""What an entry may hold: one of `prompt`, `messages` and `text`; `class`; perhaps `answer` and `id`."""

LINE_BYTES = 16 << 20
"""A longer line is no prompt, but a file that is not JSON lines."""

_REMEDY = 'A line looks like {"class": "math", "prompt": "What is 2 + 2?", "answer": "4"}; "answer" may be left out.'


@dataclass(frozen=True)
class Prompt:
    """One question to the model, or a plain passage.

    `messages` are chat messages (`role`, `content`) up to the model's turn; `answer` is what it is to be observed on,
    or None for its own continuation. A passage has no messages: the model is observed on `passage` as it stands,
    without a chat template and without an answer.
    """

    id: str
    klass: str
    messages: tuple[Mapping[str, str], ...]
    answer: str | None = None
    passage: str | None = None


@dataclass(frozen=True)
class Reading:
    """How the entries of a source are to be read.

    `columns` says where a source calls one of `KEYS` by another name; `klass` is the class of entries that name none.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    klass: str | None = None


class BrokenEntry(Exception):
    """What is wrong with an entry; readers turn it into a `FormatError` that says which one."""


def read_prompts(path: Path, reading: Reading | None = None) -> list[Prompt]:
    """Read a file of JSON lines. Blank lines and unknown keys are passed over; `id` defaults to `CLASS-LINE`.

    Where `messages` end with the assistant's turn and there is no `answer`, that turn is the answer. `text` in place
    of `prompt` or `messages` is a passage.
    Raises `InputError` when there is no such file, `FormatError` with the line number for a broken line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no prompt file {path}.")
    prompts: list[Prompt] = []
    line_of_id: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES + 1), b""), start=1):
            if len(line) > LINE_BYTES:
                raise FormatError(path, f"line {number}", f"it is longer than {LINE_BYTES >> 20} MiB", _REMEDY)
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                prompt = prompt_of(json.loads(text), number, reading or Reading())
                if prompt.id in line_of_id:
                    raise BrokenEntry(f'"id" {prompt.id!r} is that of line {line_of_id[prompt.id]} too')
            except BrokenEntry as error:
                raise FormatError(path, f"line {number}", str(error), _REMEDY) from None
            except (ValueError, RecursionError) as error:
                raise FormatError(path, f"line {number}", f"this is not JSON ({error})", _REMEDY) from error
            line_of_id[prompt.id] = number
            prompts.append(prompt)
    if not prompts:
        raise FormatError(path, "", "there is not one prompt in it", _REMEDY)
    return prompts


def prompt_of(entry: Any, number: int, reading: Reading) -> Prompt:
    """The prompt in `entry`, a mapping; `number` is its place, for an `id` where it has none. Raises `BrokenEntry`."""
    if not isinstance(entry, Mapping):
        raise BrokenEntry("this is not a JSON object")
    names = {key: reading.columns.get(key, key) for key in KEYS}
    klass = reading.klass
    if klass is None or entry.get(names["class"]) is not None:
        klass = _text(entry, names["class"])
    answer = _text(entry, names["answer"]) if entry.get(names["answer"]) is not None else None
    identity = entry.get(names["id"])
    if identity is None:
        identity = f"{klass}-{number}"
    if not isinstance(identity, str | int) or isinstance(identity, bool):
        raise BrokenEntry(f'"{names["id"]}" has to be a text or a number')
    kind = _kind(entry, names, reading.columns)
    if kind == "text":
        if answer is not None:
            raise BrokenEntry(f'"{names["text"]}" is a plain passage, and has no "{names["answer"]}"')
        return Prompt(str(identity), klass, (), passage=_text(entry, names["text"]))
    if kind == "prompt":
        messages: tuple[Mapping[str, str], ...] = ({"role": "user", "content": _text(entry, names["prompt"])},)
    else:
        messages = _messages(entry.get(names["messages"]), names["messages"])
    if messages[-1]["role"] == "assistant":
        if answer is not None:
            raise BrokenEntry('"messages" end with the assistant\'s turn, and there is an "answer" too')
        *before, last = messages
        messages, answer = tuple(before), last["content"]
    if not messages:
        raise BrokenEntry('"messages" hold nothing before the assistant\'s turn')
    return Prompt(str(identity), klass, messages, answer)


def _kind(entry: Mapping[str, Any], names: Mapping[str, str], columns: Mapping[str, str]) -> str:
    """Which of `prompt`, `messages` and `text` the entry is; what was mapped rules over what happens to be there."""
    kinds = ("prompt", "messages", "text")
    found = [kind for kind in kinds if kind in columns] or [kind for kind in kinds[:2] if names[kind] in entry]
    if not found and names["text"] in entry:
        return "text"
    if len(found) != 1:
        raise BrokenEntry('exactly one of "prompt", "messages" and "text" is needed')
    return found[0]


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BrokenEntry(f'"{name}" is missing' if value is None else f'"{name}" has to be a text that is not empty')
    return _whole(value, f'"{name}"')


def _messages(value: object, name: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise BrokenEntry(f'"{name}" has to be a list that is not empty')
    for position, message in enumerate(value):
        if not isinstance(message, dict):
            raise BrokenEntry(f'"{name}", entry {position}, is not an object')
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise BrokenEntry(f'"{name}", entry {position}: "{key}" has to be a text')
            _whole(message[key], f'"{name}", entry {position}: "{key}"')
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def _whole(text: str, where: str) -> str:
    """`text`; JSON can hold halves of characters (`"\\ud800"`), which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BrokenEntry(f"{where} holds half a character at position {error.start}") from None
    return text
