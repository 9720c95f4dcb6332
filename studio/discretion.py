"""Nothing that a process writes to its log tells a secret that it was given, whoever wrote it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET")
LOGINS = "ESPALIER_AUTH"
"""Lines of `USER:PASSWORD`."""
HIDDEN = "[secret]"
SHORTEST = 4
"""Letters; whoever has a shorter password would have words taken out of every sentence."""


_OTHERS: list[Callable[[], Iterable[str]]] = []


def also(others: Callable[[], Iterable[str]]) -> None:
    """Have what `others` gives, whenever it is asked, be secrets, too."""
    _OTHERS.append(others)


def discreet(text: str) -> str:
    """`text` without the secrets of this process."""
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    return text


def secrets() -> Iterator[str]:
    """The tokens and passwords of the environment, and what `also` has named; the longest first."""
    found = [os.environ.get(name, "").strip() for name in SECRETS]
    found += [secret for others in _OTHERS for secret in others()]
    found += [line.strip().partition(":")[2] for line in os.environ.get(LOGINS, "").splitlines()]
    yield from sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)


class Discreet:
    """A stream that takes secrets out of what is written to it, and is otherwise the one that it stands for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(discreet(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def be_discreet() -> None:
    """From here on neither stdout nor stderr of this process tells a secret, not even in a traceback."""
    sys.stdout, sys.stderr = Discreet(sys.stdout), Discreet(sys.stderr)
