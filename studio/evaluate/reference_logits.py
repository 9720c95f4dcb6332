"""The reference's logits on held-out prompts, computed once and kept.

They are kept as the model gave them, in its own type, so what is read back is what was computed to the last bit. With a
vocabulary of 262,144 in bfloat16 that is 0.5 MiB per token: an entry has a file for every batch, which is read when its
turn comes, and all entries together have a limit on disk. What is larger than the limit is not kept, but computed again
for every measurement, to the same numbers.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.errors import InputError, OutputExistsError, ResourceError
from studio.staging import left_bytes, remove, staged, used_bytes

DISK_BYTES = 8 << 30
"""What all entries may take together; half of what is free where that is less."""
MEMORY_BYTES = 256 << 20
"""An entry up to this size is held in memory."""
_SEQUENCES = "sequences.json"

_log = logging.getLogger(__name__)


class LogitCache:
    """Entries in `folder`, each named after what determines it; the one that was not used for longest goes first."""

    def __init__(self, folder: Path, limit: int = DISK_BYTES) -> None:
        self._folder = folder
        self._limit = limit

    def find(self, key: str) -> Entry | None:
        """The entry `key`, None when it is not there."""
        path = self._folder / key
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return Entry(path)

    def fits(self, size: int) -> bool:
        """Whether an entry of `size` bytes is kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        used = used_bytes(self._folder)
        free = shutil.disk_usage(self._folder).free + used
        return size <= min(self._limit, free // 2, self._allowed(used))

    def make(self, key: str, size: int, write: Callable[[Entry], None]) -> Entry | None:
        """The entry `key` of about `size` bytes once `write` has filled it; None when the disk has no room after all.

        Others make room for it.
        """
        self._make_room(size)
        path = self._folder / key
        try:
            with staged(path) as partial:
                partial.mkdir()
                write(Entry(partial))
        except (OutputExistsError, InputError) as error:
            if not path.exists():
                raise
            _log.info("another process made the same reference logits: %s", error)
        except ResourceError as error:
            _log.warning("the reference's logits are not kept: %s", error)
            return None
        return Entry(path)

    def _allowed(self, used: int) -> int:
        """What all entries may take together, where they take `used` now and a quota bounds what is added."""
        left = left_bytes()
        return self._limit if left is None else max(0, left + used)

    def _make_room(self, size: int) -> None:
        entries = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        taken = {path: used_bytes(path) for path in entries}
        most = min(self._limit, self._allowed(sum(taken.values())))
        for path in sorted(entries, key=lambda entry: entry.stat().st_mtime):
            if sum(taken.values()) + size <= most:
                break
            taken.pop(path)
            with suppress(FileNotFoundError):  # another process makes room, too
                remove(path)


class Entry:
    """One entry: the tokens that were measured on, and a tensor of logits `[counted tokens, V]` for every batch.

    Whoever keeps logits in another form puts their own files into `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_sequences(self) -> list[list[int]]:
        """The tokens of every passage, with the reference's own answers."""
        sequences: list[list[int]] = json.loads((self.folder / _SEQUENCES).read_text())
        return sequences

    def write_sequences(self, sequences: list[list[int]]) -> None:
        """The counterpart of `read_sequences`."""
        (self.folder / _SEQUENCES).write_text(json.dumps(sequences))

    def read(self, batch: int) -> Any:
        """The logits of a batch, a tensor on the CPU."""
        from safetensors.torch import load_file

        return load_file(self.folder / _name(batch))["logits"]

    def write(self, batch: int, logits: Any) -> None:
        """The counterpart of `read`."""
        from safetensors.torch import save_file

        save_file({"logits": logits.contiguous()}, self.folder / _name(batch))


def _name(batch: int) -> str:
    return f"{batch:05d}.safetensors"
