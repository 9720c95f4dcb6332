"""What was said: question after question, with the answer of each side. Pure data, for the page and for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from studio.errors import EspalierError, ProcessError
from studio.serve.client import Message, Timing
from studio.serve.pair import Event, Side, Status


@dataclass(frozen=True)
class Answer:
    """One side's answer, as far as it has come."""

    text: str = ""
    reasoning: str = ""
    status: str = ""
    """What it waits for, before its first token."""
    timing: Timing | None = None
    finish: str = ""
    """Why it ended, as in `Delta`; empty while it is coming, and when it failed."""
    error: EspalierError | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.finish) or self.error is not None

    @property
    def can_restart(self) -> bool:
        """Whether it failed because its server did."""
        return isinstance(self.error, ProcessError)

    def after(self, event: Event) -> Answer:
        """This answer and what happened next."""
        if isinstance(event, Status):
            return replace(self, status=event.text)
        if isinstance(event, EspalierError):
            return replace(self, status="", error=event)
        return replace(
            self,
            text=self.text + event.text,
            reasoning=self.reasoning + event.reasoning,
            status="",
            timing=event.timing or self.timing,
            finish=event.finish if event.done else "",
        )


@dataclass(frozen=True)
class Turn:
    """One question, and the answers of the sides that were asked."""

    prompt: str
    reference: Answer | None = None
    candidate: Answer | None = None

    def answer(self, side: Side) -> Answer | None:
        return self.reference if side == "reference" else self.candidate

    def having(self, side: Side, answer: Answer) -> Turn:
        """With another answer of `side`."""
        return replace(self, reference=answer) if side == "reference" else replace(self, candidate=answer)


@dataclass(frozen=True)
class Conversation:
    """All turns, the last one perhaps still being answered."""

    turns: tuple[Turn, ...] = field(default=())

    def asked(self, prompt: str, sides: Iterable[Side]) -> Conversation:
        """With a new question to `sides`."""
        turn = Turn(prompt)
        for side in sides:
            turn = turn.having(side, Answer())
        return Conversation((*self.turns, turn))

    def asked_again(self, side: Side) -> Conversation:
        """With the last question put to `side` once more."""
        return self._with_answer(side, Answer())

    def heard(self, side: Side, event: Event) -> Conversation:
        """With what happened on `side`; what comes after an answer's end is not part of it."""
        answer = self.answer(side)
        return self if answer is None or answer.over else self._with_answer(side, answer.after(event))

    def answer(self, side: Side) -> Answer | None:
        """The answer of `side` to the last question; None when it was not asked."""
        return self.turns[-1].answer(side) if self.turns else None

    def messages(self, side: Side, system: str = "") -> list[Message]:
        """What the model of `side` is sent, the last question included.

        Thoughts are left out, as chat templates expect. A question that this side has not answered is left out too:
        there would be two questions in a row.
        """
        messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns[:-1]:
            answer = turn.answer(side)
            if answer and answer.text.strip():
                messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": answer.text}]
        return messages + [{"role": "user", "content": turn.prompt} for turn in self.turns[-1:]]

    def _with_answer(self, side: Side, answer: Answer) -> Conversation:
        *before, last = self.turns
        return Conversation((*before, last.having(side, answer)))
