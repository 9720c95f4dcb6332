"""What a person does on the page, one thing after the other, the same for the same seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

DROPS = range(1, 25)
"""Experts that leave every layer of the demo model; it has 32, and uses 4."""
PRESETS = ("98e-v3", "98e-v4", "109e-v3")
_SHARES = {"drop": 60, "preset": 10, "chat": 25, "reload": 5}
_THINKS_S = 2.0
"""Between two actions, on average: what makes a change of the recipe worth looking at."""


@dataclass(frozen=True)
class Action:
    """One thing that a person does: `kind` is one of those of `actions`, `value` what for."""

    kind: str
    value: str
    pause_s: float
    """How long they look at the page before."""


@dataclass(frozen=True)
class Stay:
    """How long people stay: until a time (of `time.monotonic`), and until each has done so many things; they come
    `apart_s` after each other."""

    until: float
    actions: int
    apart_s: float


async def paced(actions: Iterable[Action], stay: Stay) -> AsyncIterator[Action]:
    """Each action when its pause before is over; nobody rests when the time is."""
    for done, action in enumerate(actions):
        await asyncio.sleep(min(action.pause_s, max(0.0, stay.until - time.monotonic())))
        if time.monotonic() >= stay.until and done >= stay.actions:
            return
        yield action


async def one_after_the_other(lives: Iterable[Callable[[], Awaitable[None]]], apart_s: float) -> None:
    """All `lives`, each of which begins `apart_s` after the one before."""

    async def begun(wait_s: float, life: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(wait_s)
        await life()

    await asyncio.gather(*(begun(number * apart_s, life) for number, life in enumerate(lives)))


def actions(seed: int, person: int) -> Iterator[Action]:
    """Without end: another drop count (never the one that is shown), a preset, a question, a reload."""
    chance = random.Random(f"{seed}/{person}")
    drop = 8
    while True:
        pause = chance.expovariate(1 / _THINKS_S)
        kind = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
        if kind == "drop":
            drop = chance.choice([count for count in DROPS if count != drop])
            yield Action(kind, str(drop), pause)
        elif kind == "preset":
            yield Action(kind, chance.choice(PRESETS), pause)
        elif kind == "chat":
            left, right = chance.randint(1, 9), chance.randint(1, 9)
            yield Action(kind, f"{left} + {right} = ? ({mark(person)})", pause)
        else:
            yield Action(kind, "", pause)


def mark(person: int) -> str:
    """Words that only the questions of one person have: seen elsewhere, they tell a leak."""
    return f"person-{person:02d}-asks"
