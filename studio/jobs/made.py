"""What a job has given a name.

A job can die when its result has its name, and the record does not say so yet. Whoever tries it again finds here that
what is in the way is its own, and not somebody else's who was told that the name was free.
"""

from __future__ import annotations

import os
from pathlib import Path

from studio.staging import identity


class Made:
    """A list in `file`, which need not be there yet: a result gets onto it just before it gets its name."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, partial: Path, final: Path) -> None:
        """`partial` is about to be called `final`."""
        with self._file.open("a", encoding="utf-8", errors="surrogateescape") as lines:
            lines.write(f"{identity(partial)} {final}\n")
            lines.flush()
            os.fsync(lines.fileno())

    def holds(self, path: Path) -> bool:
        """Whether what is at `path` is on the list, and nobody has changed or replaced it since."""
        if not self._file.is_file() or not path.exists():
            return False
        lines = self._file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return f"{identity(path)} {path}" in lines
