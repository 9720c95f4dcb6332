"""The noun every generator returns, and how the held-out side is told from the training side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

# One prompt in this many is held out of training. It is chosen by hash, so no list has to be kept.
HELD_OUT_ONE_IN = 16


@dataclass(frozen=True)
class Exercise:
    """One question with its answer.

    klass: "math", "logic", "code", "science", "creative" or "chat" (greetings, never measured).
    thought: a short line of reasoning that leads to the answer; empty where there is none.
    """

    klass: str
    prompt: str
    answer: str
    thought: str = ""

    @property
    def held_out(self) -> bool:
        """True where this prompt must never be trained on."""
        return is_held_out(self.klass, self.prompt)

    def check(self, text: str) -> bool:
        """True where `text`, a model's whole answer without its thought, is right (see `check_answer`)."""
        from studio.demo.exercises import check_answer

        return check_answer(self.klass, self.prompt, self.answer, text)


def is_held_out(klass: str, prompt: str) -> bool:
    """Whether a prompt belongs to the held-out side; decided by the SHA-256 of the prompt alone.

    Greetings are too few to hold any out: all of them are trained on and none is measured.
    """
    if klass == "chat":
        return False
    return hashlib.sha256(prompt.encode()).digest()[0] % HELD_OUT_ONE_IN == 0


def in_words(items: Iterable[object]) -> str:
    """Items joined by a comma and a space."""
    return ", ".join(str(item) for item in items)


def word_list(text: str) -> list[str]:
    """The words of a text; keeps long tables of words readable."""
    return text.split()


def normalise(text: str) -> str:
    """What two answers are compared by: blanks at line ends, the last full stop and letter case of the first letter
    do not count; everything else does."""
    lines = [" ".join(line.split()) for line in text.strip().splitlines()]
    joined = "\n".join(lines).removesuffix(".")
    return joined[:1].lower() + joined[1:]
