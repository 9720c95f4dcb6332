"""Every error that a person can meet.

    EspalierError
    ├── InputError            something the person gave is wrong: a file, a field, a value
    │   ├── FormatError       a file is damaged or not what it claims to be; names the place
    │   ├── MismatchError     two things do not belong together: a map for another model, an imatrix of another shape
    │   ├── TooLongError      a prompt has more tokens than the model's context
    │   └── UnsupportedError  an architecture, type or feature that Espalier does not know, by name
    ├── RefusedError          this page does not do that, or not for this person
    ├── OutputExistsError     a result of that name is there already
    ├── ResourceError         too little disk or memory, known before the work starts or met in the middle
    ├── ProcessError          a child process (converter, model server, job) failed; carries its last log lines
    └── Cancelled             the person stopped the work; not a failure

Each says what was wrong and what to do about it. Only the outermost layer (the command line, the page) renders them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

LONGEST_PLACE = 300
"""Letters of a place in a file, whose names may be anything; what is wrong there comes after it."""
LONGEST = 1200
"""Characters of a sentence; what a file says, and a sentence repeats, may be of any length."""


class EspalierError(Exception):
    """Base of all errors here.

    `what` is one plain sentence naming the file, tensor, field or value; `remedy` says what the person can do.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = _printable(what)
        self.remedy = remedy
        super().__init__(self.what, remedy)

    def said_of(self, name: Path | str) -> Self:
        """This error, its sentence now beginning with `name`: the file in which something was found to be wrong."""
        self.what = _printable(f"{name}: {self.what}")
        self.args = (self.what, self.remedy)
        return self

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}".strip()


class InputError(EspalierError):
    """Something the person gave is wrong."""


class FormatError(InputError):
    """A file is damaged or not what it claims to be.

    `place` is where in the file: a byte offset, a line, a tensor or a JSON path.
    """

    def __init__(self, path: Path | str, place: str, problem: str, remedy: str = "") -> None:
        shown = place if len(place) <= LONGEST_PLACE else f"{place[:LONGEST_PLACE]}…"
        where = f"{path}, {shown}" if place else f"{path}"
        super().__init__(f"{where}: {problem}.", remedy)
        self.path = Path(path)
        self.place = place
        self.problem = problem


class MismatchError(InputError):
    """Two things that the person brought together do not belong together."""


class TooLongError(InputError):
    """A prompt has more tokens than fit in the model's context."""


class UnsupportedError(InputError):
    """An architecture, tensor type or feature that Espalier does not know; the message names it."""


class RefusedError(EspalierError):
    """What was asked for is switched off here, or not for whoever asks."""


class OutputExistsError(EspalierError):
    """A result of that name exists and nobody said to replace it."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"{path} exists already.", "Choose another name, or say --overwrite to replace it.")
        self.path = Path(path)


class ResourceError(EspalierError):
    """Too little disk or memory."""


class ProcessError(EspalierError):
    """A child process failed; `log_tail` holds its last lines."""

    def __init__(self, what: str, remedy: str = "", log_tail: str = "") -> None:
        super().__init__(what, remedy)
        self.log_tail = log_tail


class Cancelled(EspalierError):
    """The person stopped the work."""

    def __init__(self, what: str = "Cancelled.") -> None:
        super().__init__(what)


def _printable(text: str) -> str:
    """`text` without halves of characters, which JSON can hold and no output can show, and not of any length."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
