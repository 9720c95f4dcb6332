"""Exercises put together as the conversations the model is trained on, in Gemma 4's turn format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from studio.demo.exercises import Exercise, generate

SYSTEMS = (
    "You are a helpful assistant.",
    "Answer briefly.",
    "You are a tiny demo model.",
    "You are Espalier's demo model.",
    "Be short and correct.",
    "You are a teacher.",
    "You help with homework.",
)
# Share of the exercises by class; creative answers are long, so fewer of them are needed.
SHARES = {"math": 0.19, "logic": 0.30, "code": 0.28, "science": 0.12, "creative": 0.09, "chat": 0.02}
SYSTEM_SHARE = 0.1
SEVERAL_TURNS_SHARE = 0.10
THINKING_SHARE = 0.15


@dataclass(frozen=True)
class Dialogue:
    """A conversation of one or more exchanges; thinking shows the thought of the last one."""

    exchanges: tuple[Exercise, ...]
    system: str = ""
    thinking: bool = False

    @property
    def klass(self) -> str:
        """The class of the last exchange."""
        return self.exchanges[-1].klass

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text in pieces, each with whether the model has to learn to say it. Joined they equal the chat template's
        rendering followed by the last answer."""
        text = "<bos>"
        if self.system or self.thinking:
            text += f"<|turn>system\n{'<|think|>' if self.thinking else ''}{self.system}<turn|>\n"
        last = len(self.exchanges) - 1
        for index, exercise in enumerate(self.exchanges):
            text += f"<|turn>user\n{exercise.prompt}<turn|>\n<|turn>model\n"
            answer = exercise.answer
            if index == last and self.thinking:
                answer = f"<|channel>thought\n{exercise.thought}<channel|>{answer}"
            elif index == last:
                text += "<|channel>thought\n<channel|>"
            # Answers inside a conversation with thinking carry no channel, which is not what is to be learnt there.
            learnt = index == last or not self.thinking
            yield text, False
            yield f"{answer}<turn|>", learnt
            text = "\n"


def dialogue(rng: Random) -> Dialogue:
    """One training conversation; every prompt in it is from the training side."""
    system = rng.choice(SYSTEMS) if rng.random() < SYSTEM_SHARE else ""
    count = rng.choice((2, 2, 3)) if rng.random() < SEVERAL_TURNS_SHARE else 1
    exchanges = tuple(generate(klass, rng) for klass in rng.choices(list(SHARES), list(SHARES.values()), k=count))
    # Where there is nothing to think about, the thought is empty.
    thinking = rng.random() < THINKING_SHARE
    return Dialogue(exchanges, system, thinking)
