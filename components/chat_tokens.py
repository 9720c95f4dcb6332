"""Where the answers of the chat part: their tokens side by side, and what else was likely at one of them."""

from __future__ import annotations

import math
from html import escape

from studio.serve.client import Token
from studio.serve.conversation import Answer, Conversation
from studio.serve.parting import parting

AROUND = 120
"""Tokens that are shown before and after the one that is looked at; the whole answer stands above."""


def parting_html(conversation: Conversation, chosen: int | None = None) -> str:
    """The last answers token by token, with the first one that differs marked, and the distributions at token `chosen`
    (that one, unless told otherwise); empty while there are not two answers to compare."""
    answers = {
        column.id: answer
        for column in conversation.columns
        if (answer := conversation.answer(column.id)) is not None and answer.over and answer.tokens
    }
    if len(answers) < 2:
        return ""
    first = parting(list(answers.values()))
    longest = max(len(answer.tokens) for answer in answers.values())
    place = first if chosen is None else min(max(chosen, 0), longest - 1)
    shown = [_column(id, answer, first, place) for id, answer in answers.items()]
    return (
        f"<h3 class='panel-title'>{escape(_title(first, answers))}</h3>"
        f"<div class='parted' style='--columns: {len(answers)}'>{''.join(shown)}</div>{_remark(answers, first, place)}"
    )


def _title(first: int | None, answers: dict[str, Answer]) -> str:
    if first is None:
        same = min(len(answer.tokens) for answer in answers.values())
        return f"The answers do not part: {_tokens(same)} are the same."
    if first == 0:
        return "The answers part at once, at their first token."
    return f"The answers part after {_tokens(first)}."


def _tokens(count: int) -> str:
    return f"{count} token{'s' if count != 1 else ''}"


def _remark(answers: dict[str, Answer], first: int | None, place: int | None) -> str:
    """What has to be known to read what stands above."""
    if not any(token.top for answer in answers.values() for token in answer.tokens):
        said = "To see what else was likely, choose “Compare token by token” in the settings and ask again."
    elif place is None:
        said = "Choose a token to see what else was likely there."
    elif first is not None and place > first:
        said = "After they have parted, the answers go on from different texts: these choices are not the same one."
    else:
        said = "Probabilities are the model’s own, before temperature, top-k and top-p."
    return f"<p class='quiet parted-remark'>{said}</p>" if said else ""


def _column(id: str, answer: Answer, first: int | None, place: int | None) -> str:
    name = f" <small>{escape(answer.origin.model)}</small>" if answer.origin else ""
    return (
        f"<section aria-label='Tokens of {escape(id)}'><h4>{escape(id)}{name}</h4>"
        f"{_strip(answer, first, place)}{_likely(answer, place)}</section>"
    )


def _strip(answer: Answer, first: int | None, place: int | None) -> str:
    middle = place or 0
    start, end = max(0, middle - AROUND), middle + AROUND
    before = f"<i>{_tokens(start)} before</i> " if start else ""
    left = len(answer.tokens) - end
    after = f" <i>{_tokens(left)} more</i>" if left > 0 else ""
    parts = [_button(answer, index, first, place) for index in range(start, min(end, len(answer.tokens)))]
    if first is not None and first >= len(answer.tokens):
        parts.append("<mark class='parts'>its end</mark>")
    return f"<div class='strip-of-tokens'>{before}{''.join(parts)}{after}</div>"


def _button(answer: Answer, index: int, first: int | None, place: int | None) -> str:
    token = answer.tokens[index]
    looks = [name for name, true in (("parts", index == first), ("thought", token.thought)) if true]
    pressed = "true" if index == place else "false"
    reach = 0 if index == (place or 0) else -1  # the arrow keys go on from here
    text = escape(token.text).replace("\n", "↵\n") or "∅"
    return (
        f"<span role='button' tabindex='{reach}' data-index='{index}' aria-pressed='{pressed}'"
        f" class='{' '.join(looks)}'>{text}</span>"
    )


def _likely(answer: Answer, place: int | None) -> str:
    """The likeliest tokens at `place`, as bars."""
    if place is None or place >= len(answer.tokens) or not answer.tokens[place].top:
        return ""
    token = answer.tokens[place]
    rows = [_row(one.text, math.exp(one.logprob), one.id == token.id) for one in token.top]
    if token.id not in [one.id for one in token.top]:
        rows.append(f"<li class='taken'><span>{_visible(token)}</span><span class='quiet'>not among these</span></li>")
    return f"<ol class='likely'>{''.join(rows)}</ol>"


def _row(text: str, share: float, taken: bool) -> str:
    bar = f"<span class='meter' aria-hidden='true'><i style='width:{100 * min(share, 1):.2f}%'></i></span>"
    number = f"<span class='number'>{100 * share:.1f} %</span>"
    mark = " class='taken' aria-current='true'" if taken else ""
    return f"<li{mark}><span>{_visible(text)}</span>{bar}{number}</li>"


def _visible(text: str | Token) -> str:
    plain = text.text if isinstance(text, Token) else text
    return escape(plain).replace(" ", "␣").replace("\n", "↵") or "∅"
