"""JSON that people hand in: one object, no key twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.errors import FormatError


def parse_object(text: str | bytes, name: str) -> Mapping[str, Any]:
    """The object that `text` holds; `FormatError`, which calls it `name`, when it is broken or something else."""
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # ValueError: broken JSON, bad UTF-8, duplicate keys, absurd numbers
        raise FormatError(name, "", f"it cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise FormatError(name, "", f"it holds a {type(content).__name__} where an object is expected")
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return content
