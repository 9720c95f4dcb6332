"""What somebody may do on a page: everything, or, where anybody can reach it, what harms nobody else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from studio.errors import RefusedError

HUB = "hf:"
"""How what lies on the Hub begins, a model or a data set, wherever it may be named."""
_INSTEAD = "Start Espalier on a machine of your own for that: `python app.py`."


@dataclass(frozen=True)
class Access:
    """What may be done, and how much of it. The numbers are bounds; None: there is none here."""

    uploads: bool = True
    """Sending files."""
    hub: bool = True
    """Naming what lies on the Hub, to read it or to publish there."""
    models: bool = True
    """Opening models beside the demo."""
    kinds: frozenset[str] | None = None
    """The kinds of jobs."""
    waiting: int | None = None
    """Jobs that are not finished."""
    disk_bytes: int | None = None
    """Of all files together, those of the next job not counted."""
    job_s: float | None = None
    """Seconds that a job may run."""
    questions: int | None = None
    """Questions in the chat, each to all of its columns."""
    answer_tokens: int | None = None
    """Tokens of an answer, thoughts included."""

    @property
    def is_full(self) -> bool:
        return self == FULL

    def require_upload(self) -> None:
        """Raise `RefusedError` where no files may be sent."""
        if not self.uploads:
            raise RefusedError("This page is open to everybody, so it takes no files.", _INSTEAD)

    def require_hub(self) -> None:
        """Raise `RefusedError` where the Hub may not be asked."""
        if not self.hub:
            raise RefusedError("This page is open to everybody, so it does not ask the Hub.", _INSTEAD)

    def require_model(self, name: str) -> None:
        """Raise `RefusedError` where no model but the demo may be opened."""
        if not self.models:
            raise RefusedError(f"This page is open to everybody, so it opens the demo only, not {name!r}.", _INSTEAD)

    def require_job(
        self, kind: str, parameters: Mapping[str, JsonValue], unfinished: Collection[object], used_bytes: int
    ) -> None:
        """Raise `RefusedError` for a job that may not be started beside those that are `unfinished`."""
        if self.kinds is not None and kind not in self.kinds:
            raise RefusedError(f"This page is open to everybody, so it starts no job of the kind {kind!r}.", _INSTEAD)
        if any(text.strip().startswith(HUB) for text in _texts(parameters)):
            self.require_hub()
        if self.waiting is not None and len(unfinished) >= self.waiting:
            raise RefusedError(
                f"This page is open to everybody, so each visitor has {self.waiting} unfinished jobs at most.",
                "Wait for one to end, or cancel it.",
            )
        if self.disk_bytes is not None and used_bytes > self.disk_bytes:
            raise RefusedError(
                f"This page is open to everybody, so each visitor's files take {self.disk_bytes >> 20} MiB at most, "
                f"and these take {used_bytes >> 20}.",
                _INSTEAD,
            )

    def require_question(self, asked: int) -> None:
        """Raise `RefusedError` for one more question after `asked` others."""
        if self.questions is not None and asked >= self.questions:
            raise RefusedError(
                f"This page is open to everybody, so each visitor asks {self.questions} questions at most.", _INSTEAD
            )


def _texts(value: object) -> list[str]:
    """All texts in JSON."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for one in inner for text in _texts(one)]


FULL = Access()
"""Of the person whose machine it is, and of everybody with a login."""

VISITOR = Access(
    uploads=False,
    hub=False,
    models=False,
    kinds=frozenset({"build", "convert", "measure", "search", "similarity", "diverge", "evaluate", "verify"}),
    waiting=2,
    disk_bytes=256 << 20,  # the demo in all its tiers has about 100 MiB
    job_s=180.0,
    questions=60,
    answer_tokens=512,
)
"""Of everybody, on a page that was started with --public."""
