"""Where answers part: the first token at which they are no longer the same."""

from __future__ import annotations

from collections.abc import Sequence

from studio.serve.client import Token
from studio.serve.conversation import Answer

OWN_END = "stop"
"""`Answer.finish` of an answer that the model ended itself."""


def parting(answers: Sequence[Answer]) -> int | None:
    """Index of the first token that not all `answers` have in common; None where there is none, or nothing to compare.

    Tokens are compared by id where both have one, else by text. An answer that ends itself parts from one that goes on.
    One that was cut off, stopped or is still coming is only as long as it is: what it would have said is not known.
    """
    if len(answers) < 2:
        return None
    lengths = [len(answer.tokens) for answer in answers]
    shortest = min(lengths)
    first = answers[0].tokens
    for index in range(shortest):
        if any(not _same(first[index], answer.tokens[index]) for answer in answers[1:]):
            return index
    ended = any(answer.finish == OWN_END for answer, length in zip(answers, lengths, strict=True) if length == shortest)
    return shortest if ended and max(lengths) > shortest else None


def _same(one: Token, other: Token) -> bool:
    if one.id is not None and other.id is not None:
        return one.id == other.id
    return one.text == other.text
