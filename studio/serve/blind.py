"""Comparing two models without knowing which is which: who sits where, what may be seen, and when it is told.

A question of a blind conversation stands by itself: answers to earlier ones, whose models are known by then, would give
away who is speaking. What a person may see is `seen`; until they have voted nothing in it depends on who sits where but
for what the models say, and both are shown at the pace of the slower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from secrets import SystemRandom

from studio.errors import InputError
from studio.serve.conversation import Answer, Blind, Column, Conversation

ANSWERING = "Answering …"
_ENDINGS = {"stop": "ended", "stopped": "stopped", "length": "cut off, no tokens left"}


def begun_blind(conversation: Conversation) -> Conversation:
    """An empty conversation of the same columns, in which nobody will see who says what.

    Raises `InputError` unless there are two of them, with different models.
    """
    models = [column.model for column in conversation.columns if column.model]
    if len(conversation.columns) != 2 or len(models) != 2:
        raise InputError(
            f"A blind comparison is between two models, and there are {len(models)}.",
            "Have two columns.",
        )
    if models[0] == models[1]:
        raise InputError("Both columns have the same model.", "Choose another one in one of them.")
    return replace(conversation, turns=(), blind=Blind())


def _shuffled(ids: list[str]) -> None:
    SystemRandom().shuffle(ids)  # of the system: no seed that could be guessed from what was seen before


def seated(conversation: Conversation, shuffle: Callable[[list[str]], None] = _shuffled) -> Conversation:
    """With the last question alone, and new seats for it, where the conversation is blind."""
    if conversation.blind is None:
        return conversation
    ids = [column.id for column in conversation.columns]
    shuffle(ids)
    return replace(conversation, turns=conversation.turns[-1:], blind=Blind(tuple(ids)))


def sealed(conversation: Conversation) -> bool:
    """Whether it must not be seen who says what. One that fails is told by its error, and there is no vote then."""
    if conversation.blind is None or conversation.blind.open or not conversation.turns:
        return False
    return all(answer.error is None for answer in conversation.turns[-1].answers.values())


def can_vote(conversation: Conversation) -> bool:
    """Whether all answers have ended, there is something to judge, and nobody has judged it."""
    answers = list(conversation.turns[-1].answers.values()) if conversation.turns else []
    return sealed(conversation) and all(one.over for one in answers) and any(one.text.strip() for one in answers)


def opened(conversation: Conversation, choice: str = "") -> Conversation:
    """With everything told, after a vote or without one."""
    blind = conversation.blind or Blind()
    return replace(conversation, blind=replace(blind, open=True, choice=choice))


def seen(conversation: Conversation) -> Conversation:
    """What a person may see of it: each answer under the id of the column whose place it sits in."""
    if conversation.blind is None or not conversation.turns:
        return conversation
    hidden = sealed(conversation)
    turn = conversation.turns[-1]
    places = dict(zip((column.id for column in conversation.columns), conversation.blind.seats, strict=True))
    answers = {place: turn.answers[seat] for place, seat in places.items() if seat in turn.answers}
    columns = conversation.columns
    if hidden:
        answers = _unnamed(answers)
        columns = tuple(Column(column.id) for column in columns)
    blind = Blind() if hidden else conversation.blind
    return replace(conversation, turns=(replace(turn, answers=answers),), columns=columns, blind=blind)


def _unnamed(answers: dict[str, Answer]) -> dict[str, Answer]:
    """The texts alone, none of them longer than what the slowest that is still coming has reached."""
    coming = [len(one.reasoning) + len(one.text) for one in answers.values() if not one.over]
    reached = min(coming, default=None)
    shown = {}
    for place, answer in answers.items():
        status = ANSWERING if coming else _ENDINGS.get(answer.finish, "")
        text = answer.text if reached is None else answer.text[: max(0, reached - len(answer.reasoning))]
        shown[place] = Answer(text, answer.reasoning[:reached], status=status, finish="" if coming else answer.finish)
    return shown
