"""How job records lie on disk: text, and nothing but text.

diskcache pickles whatever is not a string or a number, and unpickles whatever a database row calls a pickle; a
workspace that came from somewhere else could run code that way. Its own JSONDisk has the same hole, because it asks its
parent for the bytes.
"""

from __future__ import annotations

from typing import Any

from diskcache import Disk
from diskcache.core import MODE_RAW, MODE_TEXT, UNKNOWN

from studio.errors import FormatError


class TextDisk(Disk):  # type: ignore[misc]  # diskcache has no types
    """Stores strings under strings, refuses anything else, and never unpickles."""

    def put(self, key: object) -> tuple[str, bool]:
        return _text(key), True

    def get(self, key: object, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise FormatError(self._directory, f"key {key!r}", "a job record has a key that is not text")
        return key

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> tuple[int, int, str | None, str | None]:
        stored: tuple[int, int, str | None, str | None] = super().store(_text(value), read, key=key)
        return stored

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> str:
        if mode == MODE_TEXT or (mode == MODE_RAW and isinstance(value, str)):
            text: str = super().fetch(mode, filename, value, read)
            return text
        raise FormatError(self._directory, "", "a job record is not text", "Remove this folder; no artifact is in it.")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the job store holds text, not {type(value).__name__}")
    return value
