"""What may be asked of a studio that others use too: every limit, its default, and the variable that says another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import InputError, TooLongError

_NUMBER = re.compile(r"(\d{1,18})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True)
class Limit:
    """One limit, read anew each time from the environment."""

    variable: str
    default: int | None
    """None: there is none."""
    unit: str
    about: str
    """What it is the most of, in words."""
    least: int = 1

    @property
    def value(self) -> int | None:
        """What counts now; `InputError` where the variable is no number. `10G` is 10 × 1024³."""
        told = os.environ.get(self.variable, "").strip()
        if not told:
            return self.default
        found = _NUMBER.fullmatch(told)
        value = -1 if found is None else int(found[1]) << _POWERS[found[2].upper()]
        if value < self.least:
            raise InputError(
                f"{self.variable} is {told!r}, and has to be a number of {self.unit}, {self.least} or more."
            )
        return value

    @property
    def said(self) -> str:
        """`value` as people say it."""
        value = self.value
        if value is None:
            return "none"
        if self.unit == "bytes":
            return f"{value / (1 << 30):.3g} GiB"
        return f"{value:,} {self.unit if value != 1 else self.unit.removesuffix('s')}"


UPLOAD = Limit("ESPALIER_MAX_UPLOAD", 1 << 30, "bytes", "of a file that a browser sends")
"""Published analyses reach 240 MB, importance matrices of large models some hundred."""
PROMPT = Limit("ESPALIER_MAX_PROMPT", 1_000_000, "characters", "of a conversation, before it is cut into tokens")
"""About the context of 262,144 tokens that large models have, at four characters each."""
CHATS = Limit("ESPALIER_MAX_CHATS", 16, "chats", "that are answered at once, on all pages; as many wait")
JOBS = Limit("ESPALIER_MAX_JOBS", 50, "jobs", "that wait or run")
SLOTS = Limit("ESPALIER_JOB_SLOTS", 1, "jobs", "that run at once; a build uses every core anyway")
QUOTA = Limit("ESPALIER_QUOTA", None, "bytes", "of the whole workspace")
MODEL_MEMORY = Limit("ESPALIER_MODEL_MEMORY", None, "bytes", "of main memory for models, in place of what is free")
CARD_MEMORY = Limit("ESPALIER_CARD_MEMORY", None, "bytes", "of the graphics card for models; 0 leaves it alone", 0)

LIMITS = (UPLOAD, PROMPT, CHATS, JOBS, SLOTS, QUOTA, MODEL_MEMORY, CARD_MEMORY)


def require_upload(path: Path) -> None:
    """Raise `InputError` for a file that is larger than `UPLOAD`, before anything of it is read."""
    most, found = UPLOAD.value, path.stat().st_size
    if most is not None and found > most:
        raise InputError(
            f"{path.name} has {found / (1 << 20):,.0f} MiB, and this page takes files of at most "
            f"{most / (1 << 20):,.0f} MiB.",
            f"Put it into the workspace by hand, or set {UPLOAD.variable}.",
        )


def require_prompt(messages: Iterable[Mapping[str, Any]]) -> None:
    """Raise `TooLongError` for a conversation with more characters than `PROMPT`: cutting it up takes memory, too."""
    most, found = PROMPT.value, sum(len(str(message.get("content") or "")) for message in messages)
    if most is not None and found > most:
        raise TooLongError(
            f"This prompt has {found:,} characters, with what was said before, and at most {most:,} are taken.",
            f"Ask something shorter, clear the chat, or set {PROMPT.variable}.",
        )
