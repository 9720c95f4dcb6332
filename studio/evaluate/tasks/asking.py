"""How a question is put to a model, how an answer that did not come is asked for once more, and who is right."""

from __future__ import annotations

from dataclasses import dataclass

from studio.evaluate.tasks.letters import letter_of
from studio.evaluate.tasks.matching import matched
from studio.evaluate.tasks.question import NO_CATEGORY, Question

WORDING = "1"
"""Of the prompts below; to be raised with every change, since answers to other words are not comparable."""
READING = "1"
"""Of how answers are read and graded; to be raised when the same text would be graded otherwise."""

_CHOICE = (
    "The following is a multiple-choice question{about}. Think it through, then finish with a line "
    '"The answer is (X)", where X is the letter of the right option.\n\n'
    "Question: {text}\n\nOptions:\n{options}"
)
_EXACT = '{text}\n\nFinish with a line "The answer is X", where X is your answer and nothing else.'


@dataclass(frozen=True)
class Grade:
    """What was read out of an answer, and whether it is right."""

    given: str | None
    """None where nothing could be."""
    right: bool


def prompt_of(question: Question) -> str:
    """The user's message."""
    if question.options:
        options = "\n".join(
            f"{letter}. {option.strip()}" for letter, option in zip(question.letters, question.options, strict=True)
        )
        about = "" if question.category == NO_CATEGORY else f" about {question.category.replace('_', ' ')}"
        return _CHOICE.format(about=about, text=question.text.strip(), options=options)
    return question.text if question.checker else _EXACT.format(text=question.text.strip())


def retry_start(question: Question) -> str:
    """What the model is made to begin with when its first answer was empty or cut off."""
    if question.options:
        return "The answer is ("
    return "" if question.checker else "The answer is"


def grade(question: Question, text: str) -> Grade:
    """Read `text`, an answer without its thought."""
    if question.options:
        letter = letter_of(text, question.options)
        return Grade(letter, letter == question.answers[0])
    if question.checker:
        return Grade(text.strip() or None, question.checker(text))
    found = matched(text, question.answers)
    return Grade(found.given, found.right)
