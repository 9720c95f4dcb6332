"""What a job that was killed had finished.

Every tensor that stands in all its files gets a line with the digests of what was written. Whoever goes on reads those
bytes back and compares: a line alone is believed nothing, since after a power failure it may stand there without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gguf.constants import GGMLQuantizationType as Type

from studio.quantize.chunks import Converter, Digests, Journey, digest


class Journal:
    """The lines of one job; `path` may exist already."""

    def __init__(self, path: Path) -> None:
        self.found = _read(path)
        """Tensor → type → digest, as the job before left it."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, journey: Journey, digests: Sequence[Digests]) -> None:
        """Note that `journey` is over; `digests` are those of its chunks."""
        line = {"tensor": journey.name, "digests": {kind.name: _joined(digests, kind) for kind in journey.places}}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def is_intact(journey: Journey, expected: Mapping[str, str], converter: Converter) -> bool:
    """Whether `journey`'s bytes stand in all its places, by reading them again and comparing with `expected`."""
    chunks = list(journey.chunks())
    return all(
        digest(b"".join(converter.written(chunk, kind, place) for chunk in chunks)).hex() == expected.get(kind.name)
        for kind, places in journey.places.items()
        for place in places
    )


def _joined(digests: Sequence[Digests], kind: Type) -> str:
    return digest(b"".join(one[kind] for one in digests)).hex()


def _read(path: Path) -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            found[str(entry["tensor"])] = dict(entry["digests"])
        except (ValueError, TypeError, KeyError):
            continue  # cut off in the middle
    return found
