"""JSON that people hand in: no key twice, nothing that could not be written again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.errors import FormatError

_SHOWN = 60
"""Letters of a value that a message shows."""


def shown(value: object) -> str:
    """`value` for a message: what a file says may be of any length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def parse_json(text: str | bytes, name: str) -> Any:
    """What `text` holds; `FormatError`, which calls it `name`, when it is broken."""
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
        json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair is a letter in JSON only
    except UnicodeEncodeError:
        raise FormatError(name, "", "it has a letter that no text can have (half of a surrogate pair)") from None
    except (ValueError, RecursionError) as error:  # ValueError: broken JSON, bad UTF-8, duplicate keys, absurd numbers
        raise FormatError(name, "", f"it cannot be read as JSON ({error})") from error
    return content


def parse_object(text: str | bytes, name: str) -> Mapping[str, Any]:
    """The object that `text` holds; `FormatError`, which calls it `name`, when it is broken or something else."""
    return as_object(parse_json(text, name), name)


def as_object(content: Any, name: str) -> Mapping[str, Any]:
    """`content`; `FormatError` when it is no object."""
    if not isinstance(content, Mapping):
        raise FormatError(name, "", f"it holds a {type(content).__name__} where an object is expected")
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {shown(key)} appears twice")
            seen.add(key)
    return content
