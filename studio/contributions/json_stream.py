"""Reading large JSON files piece by piece, with the place of whatever is wrong.

Two things happen to the bytes before ijson sees them. Arrays that nobody reads (most of a published analysis is such an
array) are emptied, which is ten times faster than parsing them. And the literals NaN, Infinity and -Infinity, which
ijson refuses and Python's own writer produces, become strings.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ijson

from studio.errors import FormatError, InputError
from studio.progress import Progress, silent

CHUNK = 1 << 20  # bytes read at a time
LONGEST_STRING = 16 << 20  # bytes; a longer one means that a quotation mark is missing

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'  # a whole string, or one that runs past the end
_TOKENS = re.compile(_STRING + rb"|[-NI](?:nfinity|aN|Infinity)", re.DOTALL)
_PARTIAL_LITERAL = re.compile(rb"[-NaInfity]+\Z")
_NONFINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf"), None: float("nan")}

_REMEDY = "Export the analysis again; this file is damaged or not JSON."


def without_arrays(chunks: Iterable[bytes], key: str) -> Iterator[bytes]:
    """`chunks` with every flat array of numbers under `key` emptied: `"key":[1,2]` becomes `"key":[]`."""
    opening = re.compile(rb'"%s"\s{0,64}:\s{0,64}\[' % re.escape(key.encode()))
    longest = len(key) + 2 + 130  # of a match of `opening`
    data, inside = b"", False
    for chunk in chunks:
        data += chunk
        kept = []
        while data:
            if inside:
                end = data.find(b"]")
                data, inside = (b"", True) if end < 0 else (data[end:], False)
            elif match := opening.search(data):
                kept.append(data[: match.end()])
                data, inside = data[match.end() :], True
            else:  # an opening may run on into the next chunk
                kept.append(data[:-longest])
                data = data[-longest:]
                break
        yield b"".join(kept)
    yield data


def with_quoted_literals(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """`chunks` with NaN, Infinity and -Infinity put in quotation marks, wherever they are not part of a string.

    Raises `ValueError` when a string is longer than `LONGEST_STRING`.
    """
    held = b""
    for chunk in chunks:
        data = held + chunk
        cut = _end_of_last_token(data)
        held = data[cut:]
        if len(held) > LONGEST_STRING:
            raise ValueError(f"a string of more than {LONGEST_STRING >> 20} MiB, so a quotation mark may be missing")
        yield _TOKENS.sub(_quoted, data[:cut])
    yield _TOKENS.sub(_quoted, held)


def _end_of_last_token(data: bytes) -> int:
    """Up to where `data` can be translated without knowing what follows."""
    last = deque(_TOKENS.finditer(data), maxlen=1)
    if last and last[0].end() == len(data):
        return last[0].start()
    partial = _PARTIAL_LITERAL.search(data, len(data) - len("-Infinity"))
    return partial.start() if partial else len(data)


def _quoted(match: re.Match[bytes]) -> bytes:
    token = match.group()
    return token if token.startswith(b'"') else b'"%s"' % token


class JsonStream:
    """The events of a JSON file, one after the other, never more of it in memory than one value.

    `place` is kept up to date by the caller as it descends; every error carries it. `skipped_array` names a key whose
    arrays arrive empty.
    """

    def __init__(self, path: Path, progress: Progress = silent, *, skipped_array: str) -> None:
        self.path = path
        self.place = ""
        self._progress = progress
        self._size = path.stat().st_size
        self._file = path.open("rb")
        chunks = with_quoted_literals(without_arrays(self._chunks(), skipped_array))
        # An empty chunk would mean the end to ijson.
        self._events = ijson.basic_parse(ijson.from_iter(filter(None, chunks)), use_float=True, buf_size=CHUNK)

    def close(self) -> None:
        self._file.close()

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(CHUNK):
            self._progress(self._file.tell(), self._size, "bytes", f"reading {self.path.name}")
            yield chunk

    def error(self, problem: str, remedy: str = "") -> FormatError:
        """An error at the present place."""
        return FormatError(self.path, self.place, problem, remedy)

    def next(self) -> tuple[str, Any]:
        """The next event as ijson names it, and its value."""
        try:
            return self._parse()
        except StopIteration:
            raise self.error("the file ends too early", _REMEDY) from None

    def _parse(self) -> tuple[str, Any]:
        try:
            event, value = next(self._events)
        except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
            reason, _, _ = str(error).strip().partition("\n")
            raise self.error(f"this is not readable as JSON ({reason[:200]})", _REMEDY) from error
        return event, value

    def keys(self, event: str, place: str) -> Iterator[str]:
        """The keys of the object that `event` opens; the caller consumes the value of each before the next.

        `place` becomes the place while a key's value is read, with the key appended. Raises `FormatError` when `event`
        opens no object, or a key comes twice.
        """
        self.place = place
        if event != "start_map":
            raise self.error("an object is expected here")
        seen = set()
        while (opened := self.next())[0] == "map_key":
            key = str(opened[1])
            self.place = f"{place}.{key}" if place else key
            if key in seen:
                raise self.error("this key comes twice")
            seen.add(key)
            yield key
            self.place = place

    def items(self, event: str) -> Iterator[str]:
        """The events that open the items of the array that `event` opens; the caller consumes each item's rest."""
        if event != "start_array":
            raise self.error("a list is expected here")
        while (item := self.next()[0]) != "end_array":
            yield item

    def number(self) -> float:
        """The next value as a number; NaN and the infinities may be written as literals, strings or null."""
        event, value = self.next()
        if event == "number":
            return float(value)
        if event in ("string", "null") and value in _NONFINITE:
            return _NONFINITE[value]
        raise self.error(f"a number is expected here and not {_shown(event, value)}")

    def finish(self) -> None:
        """Nothing may follow the first value of the file."""
        self.place = ""
        with suppress(StopIteration):
            self._parse()
            raise self.error("something follows the end of the JSON", _REMEDY)

    def skip(self) -> None:
        """Pass over the next value."""
        self.value(keep=False)

    def value(self, keep: bool = True) -> Any:
        """Build the next value (for small ones)."""
        builder = ijson.ObjectBuilder()
        depth = 0
        while True:
            event, value = self.next()
            if keep:
                builder.event(event, value)
            depth += {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}.get(event, 0)
            if depth == 0:
                return builder.value if keep else None


def open_stream(path: Path, progress: Progress = silent, *, skipped_array: str) -> JsonStream:
    """A stream over `path`; `InputError` when there is no such file."""
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    return JsonStream(path, progress, skipped_array=skipped_array)


def _shown(event: str, value: object) -> str:
    return {"start_map": "an object", "start_array": "a list"}.get(event, repr(value)[:80])
