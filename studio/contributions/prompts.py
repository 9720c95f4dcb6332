"""The prompt file: JSON lines, each with `class`, then `prompt` or `messages`, then perhaps `answer` and `id`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import FormatError, InputError

_REMEDY = 'A line looks like {"class": "math", "prompt": "What is 2 + 2?", "answer": "4"}; "answer" may be left out.'


@dataclass(frozen=True)
class Prompt:
    """One question to the model.

    `messages` are chat messages (`role`, `content`) up to the model's turn; `answer` is what it is to be observed on,
    or None for its own continuation.
    """

    id: str
    klass: str
    messages: tuple[Mapping[str, str], ...]
    answer: str | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt file. Blank lines and unknown keys are passed over; `id` defaults to `CLASS-LINE`.

    Where `messages` end with the assistant's turn and there is no `answer`, that turn is the answer.
    Raises `InputError` when there is no such file, `FormatError` with the line number for a broken line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no prompt file {path}.")
    prompts: list[Prompt] = []
    line_of_id: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                prompt = _prompt(json.loads(text), number)
                if prompt.id in line_of_id:
                    raise _Broken(f'"id" {prompt.id!r} is that of line {line_of_id[prompt.id]} too')
            except _Broken as error:
                raise FormatError(path, f"line {number}", str(error), _REMEDY) from None
            except (ValueError, RecursionError) as error:
                raise FormatError(path, f"line {number}", f"this is not JSON ({error})", _REMEDY) from error
            line_of_id[prompt.id] = number
            prompts.append(prompt)
    if not prompts:
        raise FormatError(path, "", "there is not one prompt in it", _REMEDY)
    return prompts


class _Broken(Exception):
    """What is wrong with a line."""


def _prompt(entry: Any, number: int) -> Prompt:
    if not isinstance(entry, dict):
        raise _Broken("this is not a JSON object")
    klass = _text(entry, "class")
    answer = _text(entry, "answer") if entry.get("answer") is not None else None
    if ("prompt" in entry) == ("messages" in entry):
        raise _Broken('exactly one of "prompt" and "messages" is needed')
    if "prompt" in entry:
        messages: tuple[Mapping[str, str], ...] = ({"role": "user", "content": _text(entry, "prompt")},)
    else:
        messages = _messages(entry["messages"])
    if messages[-1]["role"] == "assistant":
        if answer is not None:
            raise _Broken('"messages" end with the assistant\'s turn, and there is an "answer" too')
        *before, last = messages
        messages, answer = tuple(before), last["content"]
    if not messages:
        raise _Broken('"messages" hold nothing before the assistant\'s turn')
    identity = entry.get("id", f"{klass}-{number}")
    if not isinstance(identity, str | int) or isinstance(identity, bool):
        raise _Broken('"id" has to be a text or a number')
    return Prompt(id=str(identity), klass=klass, messages=messages, answer=answer)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _Broken(f'"{key}" is missing' if value is None else f'"{key}" has to be a text that is not empty')
    return value


def _messages(value: object) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise _Broken('"messages" has to be a list that is not empty')
    for position, message in enumerate(value):
        if not isinstance(message, dict):
            raise _Broken(f'"messages", entry {position}, is not an object')
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise _Broken(f'"messages", entry {position}: "{key}" has to be a text')
    return tuple({"role": message["role"], "content": message["content"]} for message in value)
