"""What was said: question after question, with the answer of each column. Pure data, for the page and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from studio.errors import EspalierError, ProcessError
from studio.serve.client import Message, Sampler, Timing, Token
from studio.serve.columns import Event, Status


def _error_fields(error: EspalierError | None) -> dict[str, str] | None:
    if error is None:
        return None
    log = {"log": error.log_tail} if isinstance(error, ProcessError) else {}
    return {"what": error.what, "remedy": error.remedy, **log}


def _error_of(fields: Any) -> EspalierError | None:
    if fields is None or isinstance(fields, EspalierError):
        return fields
    said = {name: str(fields[name]) for name in ("what", "remedy")}
    return ProcessError(**said, log_tail=str(fields["log"])) if "log" in fields else EspalierError(**said)


@dataclass(frozen=True)
class Origin:
    """What an answer comes from: enough to ask for it again."""

    model: str
    """Its name on the page."""
    file: str
    """Name of the file or folder with the weights; empty while it is not known."""
    file_bytes: int
    system: str
    thinking: bool
    sampler: Sampler
    sha256: str = ""
    """Of the weights, where that was asked for: in a blind comparison."""


@dataclass(frozen=True)
class Answer:
    """One column's answer, as far as it has come."""

    text: str = ""
    reasoning: str = ""
    tokens: tuple[Token, ...] = ()
    """Of the thought and the answer, in the order in which they came."""
    thought_tokens: int = 0
    """Tokens of the thought, its marks included."""
    status: str = ""
    """What it waits for, before its first token."""
    timing: Timing | None = None
    finish: str = ""
    """Why it ended, as in `Delta`; empty while it is coming, and when it failed."""
    error: Annotated[EspalierError | None, PlainValidator(_error_of), PlainSerializer(_error_fields)] = None
    """Why it failed; in JSON an object with `what`, `remedy` and the `log` of the server, where it was that."""
    origin: Origin | None = None

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
        timing = event.timing or self.timing
        return replace(
            self,
            text=self.text + event.text,
            reasoning=self.reasoning + event.reasoning,
            tokens=self.tokens + event.pieces,
            thought_tokens=timing.tokens if event.reasoning and timing else self.thought_tokens,
            status="",
            timing=timing,
            finish=event.finish if event.done else "",
        )


@dataclass(frozen=True)
class Turn:
    """One question, and the answers of the columns that were asked."""

    prompt: str
    answers: Mapping[str, Answer] = field(default_factory=dict)

    def having(self, column: str, answer: Answer) -> Turn:
        """With another answer of `column`."""
        return replace(self, answers={**self.answers, column: answer})


@dataclass(frozen=True)
class Column:
    """One of the models that are asked side by side."""

    id: str
    model: str = ""
    """The key of a model in the list of those that can be talked to; empty: none was chosen."""
    system: str = ""
    """A system prompt of its own; empty: the common one."""


@dataclass(frozen=True)
class Blind:
    """That it is not seen who says what, up to a vote; see `studio.serve.blind`."""

    seats: tuple[str, ...] = ()
    """Ids of the columns whose answers are shown from left to right; empty before the first question."""
    open: bool = False
    """Whether it has been told who sits where."""
    choice: str = ""
    """What was voted about the left answer against the right one; empty where nothing was."""


@dataclass(frozen=True)
class Conversation:
    """All turns, the last one perhaps still being answered, and the columns that answer."""

    turns: tuple[Turn, ...] = ()
    columns: tuple[Column, ...] = ()
    blind: Blind | None = None

    def asked(self, prompt: str, columns: Iterable[str]) -> Conversation:
        """With a new question to `columns` (ids)."""
        return replace(self, turns=(*self.turns, Turn(prompt, {column: Answer() for column in columns})))

    def asked_again(self, columns: Iterable[str]) -> Conversation:
        """With the last question put to `columns` once more."""
        *before, last = self.turns
        for column in columns:
            last = last.having(column, Answer())
        return replace(self, turns=(*before, last))

    def edited(self, turn: int, prompt: str, columns: Iterable[str]) -> Conversation:
        """With another question in the place of number `turn`, put to `columns`; what came after it is gone."""
        return replace(self, turns=self.turns[:turn]).asked(prompt, columns)

    def without(self, column: str) -> Conversation:
        """With nothing said by `column`; questions that nobody else was asked are gone."""
        turns = [
            replace(turn, answers={one: answer for one, answer in turn.answers.items() if one != column})
            for turn in self.turns
        ]
        return replace(self, turns=tuple(turn for turn in turns if turn.answers))

    def cut_off(self) -> Conversation:
        """With every answer over: those that are still coming were stopped."""
        ended = self
        for column, answer in (self.turns[-1].answers if self.turns else {}).items():
            if not answer.over:
                ended = ended._with_answer(column, replace(answer, status="", finish="stopped"))
        return ended

    def heard(self, column: str, event: Event) -> Conversation:
        """With what happened in `column`; what comes after an answer's end is not part of it."""
        answer = self.answer(column)
        return self if answer is None or answer.over else self._with_answer(column, answer.after(event))

    def told(self, column: str, origin: Origin) -> Conversation:
        """With what the answer of `column` comes from."""
        answer = self.answer(column)
        return self if answer is None else self._with_answer(column, replace(answer, origin=origin))

    def answer(self, column: str) -> Answer | None:
        """The answer of `column` to the last question; None when it was not asked."""
        return self.turns[-1].answers.get(column) if self.turns else None

    def column(self, id: str) -> Column | None:
        """The column of that id."""
        return next((one for one in self.columns if one.id == id), None)

    def messages(self, column: str, system: str = "") -> list[Message]:
        """What the model of `column` is sent, the last question included.

        Thoughts are left out, as chat templates expect. A question that this column has not answered is left out too:
        there would be two questions in a row.
        """
        messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns[:-1]:
            answer = turn.answers.get(column)
            if answer and answer.text.strip():
                messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": answer.text}]
        return messages + [{"role": "user", "content": turn.prompt} for turn in self.turns[-1:]]

    def _with_answer(self, column: str, answer: Answer) -> Conversation:
        *before, last = self.turns
        return replace(self, turns=(*before, last.having(column, answer)))
