"""What an analysis that was interrupted had finished: small files in a folder, each named after what it was made from.

A name stands for the inputs of one piece of work, and the file begins with the digest of the rest. So a piece of other
inputs is never found, one that is torn or damaged is not believed, and whoever goes on makes only what is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors.numpy import load, save

_log = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]

FORMAT = 1
"""Raise it when a piece of the same inputs would come out different: older ones are not found any more."""
_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """Finished pieces of work in `folder`, or nowhere: then nothing is remembered.

    The folder belongs to one model as it is loaded, since no piece says which that was, and to one process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._told = False

    @property
    def keeps(self) -> bool:
        """Whether anything is remembered."""
        return self._folder is not None

    def remember(
        self, kind: str, inputs: Any, make: Callable[[], Arrays], *, anew: bool = False
    ) -> tuple[Arrays, bool]:
        """The piece of `kind` that `make` makes from `inputs` (plain JSON), and whether an earlier run had made it.

        `anew` makes it in any case, where `make` does more than that.
        """
        found = None if anew else self.known(kind, inputs)
        if found is not None:
            return found, True
        made = make()
        self.keep(kind, inputs, made)
        return made, False

    def known(self, kind: str, inputs: Any) -> Arrays | None:
        """The piece of `kind` that an earlier run made from `inputs`, None where none did."""
        found = self.read(_name(kind, inputs))
        if found is not None:
            self._tell()
        return found

    def keep(self, kind: str, inputs: Any, made: Arrays) -> None:
        """Remember the piece of `kind` that was `made` from `inputs`."""
        self.write(_name(kind, inputs), made)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "Going on with an analysis that was interrupted."
            )  # a warning, for the command line to show it

    def read(self, name: str) -> Arrays | None:
        """What `write` wrote as `name`; None where there is none, or not all of it."""
        if self._folder is None:
            return None
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None
        arrays: Arrays = load(content)
        return arrays

    def write(self, name: str, arrays: Arrays) -> None:
        """Keep `arrays` as `name`, instead of what had that name: after a crash it is the old or the new, and whole."""
        if self._folder is None:
            return
        content = save(dict(arrays))
        beside = self._folder / f"{name}.new"
        with beside.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._folder / name)

    def forget(self, name: str) -> None:
        """Remove what `write` wrote as `name`."""
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)


def _name(kind: str, inputs: Any) -> str:
    return f"{kind}-{key_of(inputs)[:32]}"


def key_of(inputs: Any) -> str:
    """SHA-256 of plain JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps([FORMAT, inputs], sort_keys=True).encode()).hexdigest()


def model_key(model_dir: Path) -> str:
    """A digest of the model in `model_dir`: contents of its small files, and of weights the headers, sizes and times.

    Reading all weights would take minutes, and a file that is replaced has another time.
    """
    described: list[Any] = []
    for path in sorted(path for path in model_dir.iterdir() if path.is_file()):
        found = path.stat()
        large = found.st_size > _READ_WHOLE
        with path.open("rb") as file:
            start = hashlib.sha256(file.read(_READ_OF_LARGE if large else -1)).hexdigest()
        times = [found.st_mtime_ns, found.st_ino] if large else []
        described.append([path.name, found.st_size, start, *times])
    return key_of(described)


_READ_WHOLE = 64 << 20
"""Files up to this size; no config or tokenizer has more."""
_READ_OF_LARGE = 1 << 20
"""Of each shard, of which there may be hundreds: most of its header."""
