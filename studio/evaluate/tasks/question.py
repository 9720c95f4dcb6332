"""`Question`, and the JSON object that holds one. A task is a file of JSON lines, one question in each:

    {"category": "law", "question": "Who …?", "options": ["The buyer", "The seller"], "answer": "B"}
    {"category": "arithmetic", "question": "How many apples …?", "answer": "12"}

- `question` and `answer` are needed. With `options` the question is multiple choice and the answer the letter of an
  option, A for the first. Without, the model's final answer has to match `answer`, or one of a list of accepted ones.
- `category` is what subsets and reports go by (`all` where it is missing), `id` tells questions apart (by default the
  number of the line), `meta` may hold anything. Any other field is a mistake, and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

FIELDS = ("id", "category", "question", "options", "answer", "meta")
MOST_OPTIONS = len(ascii_uppercase)
NO_CATEGORY = "all"


class WrongField(Exception):
    """What is wrong with an entry; readers turn it into a `FormatError` that says which one."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f'"{name}" {problem}' if name else problem)


@dataclass(frozen=True)
class Question:
    """One question with the answers that count as right."""

    id: str
    category: str
    text: str
    answers: tuple[str, ...]
    """A letter where there are options; else all that are accepted, the first for reports."""
    options: tuple[str, ...] = ()
    checker: Callable[[str], bool] | None = field(default=None, compare=False, repr=False)
    """Whether a whole answer is right, where no list of accepted ones could say so; the question is asked as it stands.
    No file holds one."""

    @property
    def letters(self) -> str:
        """Those of the options."""
        return ascii_uppercase[: len(self.options)]


def question_of(entry: Any, number: int) -> Question:
    """The question in `entry`, a mapping; `number` is its line. Raises `WrongField`."""
    if not isinstance(entry, Mapping):
        raise WrongField("", f"this is a {type(entry).__name__}, and not a JSON object")
    for name in entry:
        if name not in FIELDS:
            raise WrongField(str(name)[:60], "is no field of a question")
    identity = entry.get("id", number)
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise WrongField("id", "has to be a text or a number")
    category = _text(entry, "category") if "category" in entry else NO_CATEGORY
    options = _options(entry)
    answers = _answers(entry, options)
    return Question(_whole(str(identity), "id"), category, _text(entry, "question"), answers, options)


def entry_of(question: Question) -> dict[str, Any]:
    """The counterpart of `question_of`."""
    entry: dict[str, Any] = {"id": question.id, "category": question.category, "question": question.text}
    if question.options:
        entry["options"] = list(question.options)
    entry["answer"] = question.answers[0] if len(question.answers) == 1 else list(question.answers)
    return entry


def _options(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if "options" not in entry:
        return ()
    options = entry["options"]
    if not isinstance(options, list) or not 2 <= len(options) <= MOST_OPTIONS:
        raise WrongField("options", f"has to be a list of 2 to {MOST_OPTIONS} texts")
    for position, option in enumerate(options):
        if not isinstance(option, str) or not option.strip():
            raise WrongField("options", f"has an entry, number {position}, that is no text")
        _whole(option, "options")
    return tuple(options)


def _answers(entry: Mapping[str, Any], options: tuple[str, ...]) -> tuple[str, ...]:
    if options:
        letter = _text(entry, "answer").strip().upper()
        letters = ascii_uppercase[: len(options)]
        if len(letter) != 1 or letter not in letters:
            raise WrongField("answer", f"is {entry['answer']!r:.60}, and has to be a letter from A to {letters[-1]}")
        return (letter,)
    answer = entry.get("answer")
    if not isinstance(answer, list):
        return (_text(entry, "answer"),)
    if not answer:
        raise WrongField("answer", "is an empty list")
    return tuple(_text({"answer": one}, "answer") for one in answer)


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise WrongField(name, "is missing" if value is None else "has to be a text that is not empty")
    return _whole(value, name)


def _whole(text: str, name: str) -> str:
    r"""`text`; JSON can hold halves of characters (`"\ud800"`), which no tokenizer accepts."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WrongField(name, f"holds half a character at position {error.start}") from None
    return text
