"""The logits of a reference file, kept for the next candidate that is compared on the same tokens.

They are the rows of float32 that llama.cpp gave, one for every scored token, in one file that is read as a stream: what
is compared with them is compared to the last bit as if the reference had run beside it. They share the folder and the
limit of `LogitCache` with the virtual model's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import IO, Any

from studio.contributions.checkpoint import key_of
from studio.evaluate.logits import Rows
from studio.evaluate.reference_logits import Entry, LogitCache
from studio.evaluate.samples import Sample, Samples
from studio.quantize.placement import Offload
from studio.staging import remove

FLOAT32 = 4
_SAMPLES, _ROWS = "samples.json", "rows.f32"


@dataclass(frozen=True)
class Keep:
    """Where a reference's logits are kept, and what they are of."""

    cache: LogitCache
    ground: str
    """Stands for the bytes of the reference and for all that the samples are made from."""

    def key(self, *, context: int, threads: int, offload: Offload | None, wide: bool) -> str:
        """The name of the entry: besides the ground all that decides the last bits of a logit, the program too."""
        placed = None if offload is None else asdict(offload)
        return key_of(["rows", self.ground, context, threads, placed, wide, version("xllamacpp")])[:32]

    def open(self, key: str) -> tuple[Samples, IO[bytes]] | None:
        """The samples and the rows of entry `key`; None when it is not there, or damaged and therefore removed."""
        entry = self.cache.find(key)
        if entry is None:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError):  # gone by now to make room, or not what was written
            content = json.loads((entry.folder / _SAMPLES).read_bytes())
            samples = _samples(content["samples"])
            rows = (entry.folder / _ROWS).open("rb")
            if rows.seek(0, os.SEEK_END) == row_bytes(samples, content["vocabulary"]):
                rows.seek(0)
                return samples, rows
            rows.close()
        remove(entry.folder)
        return None

    def make(self, key: str, samples: Samples, vocabulary: int, blocks: Callable[[], Iterable[Rows]]) -> bool:
        """Keep the rows that `blocks` gives; False where they are too many, which nothing is asked of `blocks` for, or
        where the disk had no room for them after all."""
        size = row_bytes(samples, vocabulary)

        def write(entry: Entry) -> None:
            with (entry.folder / _ROWS).open("wb") as file:
                for block in blocks():
                    file.write(block.data)
            content = {"vocabulary": vocabulary, "samples": asdict(samples)}
            (entry.folder / _SAMPLES).write_text(json.dumps(content), encoding="utf-8")

        return self.cache.fits(size) and self.cache.make(key, size, write) is not None


def row_bytes(samples: Samples, vocabulary: int) -> int:
    """What the logits of all scored tokens take."""
    return samples.scored * vocabulary * FLOAT32


def _samples(content: dict[str, Any]) -> Samples:
    found = tuple(Sample(one["klass"], tuple(one["tokens"]), one["first"]) for one in content["samples"])
    return Samples(found, content["cut"], content["left_out"])
