"""Taking turns: so many at once in all of this process, whoever's page it is, and the others in the order they came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from studio.errors import ResourceError
from studio.limits import CHATS, Limit


@dataclass
class Turns:
    """At most as many at once as `limit` says, and as many again that wait: each of them takes a thread."""

    limit: Limit
    what: str
    """What they do, in words: `answered`."""
    _line: list[Turn] = field(default_factory=list)
    _moved: threading.Condition = field(default_factory=threading.Condition)

    @property
    def full(self) -> str:
        """How it is while others wait, in words."""
        return f"{self.limit.said} {'is' if self.limit.value == 1 else 'are'} being {self.what}"

    @contextmanager
    def one(self) -> Iterator[Turn]:
        """A turn, from when it waits to the end of the block. Raises `ResourceError` where too many wait."""
        turn = Turn(self)
        with self._moved:
            most = self.limit.value
            if most is not None and len(self._line) >= 2 * most:
                raise ResourceError(
                    f"{self.full}, and as many wait.",
                    f"Ask again in a moment. {self.limit.variable} says how many there may be.",
                )
            self._line.append(turn)
        try:
            yield turn
        finally:
            with self._moved:
                self._line.remove(turn)
                self._moved.notify_all()


@dataclass(eq=False)
class Turn:
    """One of `turns`."""

    turns: Turns

    def before(self, wait_s: float = 0.0) -> int:
        """How many that wait are before this one, itself counted; 0 where it is its turn, for which it waits that
        long."""
        with self.turns._moved:
            self.turns._moved.wait_for(lambda: not self._before(), wait_s)
            return self._before()

    def _before(self) -> int:
        most = self.turns.limit.value
        return 0 if most is None else max(0, self.turns._line.index(self) + 1 - most)


ANSWERS = Turns(CHATS, "answered")
"""Of the chats of all pages."""
