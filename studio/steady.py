"""Files that have to stay what they are while something is made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import InputError

State = tuple[int, int, int]
"""Size, modification time and inode: what nobody changes by reading."""


@contextmanager
def steady(files: Iterable[Path]) -> Iterator[Callable[[], None]]:
    """Raise `InputError` when one of `files` changes or vanishes before the block ends.

    Gives what makes sure of it earlier, for whoever publishes a result in the block. Where something could not be read
    because of that, this is what is said.
    """
    before = {file: _state(file) for file in files}

    def require() -> None:
        for file, state in before.items():
            now = _state(file)
            if now is None:
                raise InputError(f"{file} vanished while it was read.", "Put it back, and start again.")
            if now != state:
                raise InputError(
                    f"{file} changed while it was read.", "Start again when nothing writes to it any more."
                )

    try:
        yield require
    except (InputError, OSError, RuntimeError):  # a header that ends too early; and torch has errors of its own
        require()
        raise
    require()


def _state(file: Path) -> State | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
