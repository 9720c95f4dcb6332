"""The ballot of a blind comparison, and what the votes so far come to: HTML, nothing of gradio."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from studio.evaluate.votes import CHOICES, Choice, Tally, in_words, names_of
from studio.serve.blind import can_vote, sealed
from studio.serve.conversation import Answer, Conversation
from studio.units import size_text

UNNAMED = "Unnamed until you have voted"


def blind_heading_html(place: str, answer: Answer | None) -> str:
    """Who sits in a place, where `answer` tells it."""
    if answer is None or answer.origin is None:
        return f"<p class='chat-heading quiet'><strong>{escape(place)}</strong> · {UNNAMED}</p>"
    origin = answer.origin
    size = f" · {size_text(origin.file_bytes)}" if origin.file_bytes else ""
    name = f"<strong>{escape(origin.model)}</strong>{size}"
    return f"<p class='chat-heading'><strong>{escape(place)}</strong> was {name}</p>"


def ballot_html(conversation: Conversation) -> str:
    """What there is to do in a blind comparison; empty in any other chat."""
    blind = conversation.blind
    if blind is None:
        return ""
    first, second = (column.id for column in conversation.columns[:2])
    if not conversation.turns:
        return _said("Ask something. Who answers where is drawn anew for each question, and told when you have voted.")
    if can_vote(conversation):
        return _buttons(first, second)
    if sealed(conversation):
        over = all(answer.over for answer in conversation.turns[-1].answers.values())
        return _said("Neither said anything: ask again." if over else "You can vote when both have ended.")
    if blind.choice:
        voted = _label(blind.choice, first, second)
        return _said(f"You voted “{voted}”. The next question is asked by itself, in an order drawn anew.")
    return _said("This question has no vote any more: it was told who answered. Ask the next one.")


def _said(text: str) -> str:
    return f"<p class='ballot-said' role='status'>{escape(text)}</p>"


def _label(choice: str, first: str, second: str) -> str:
    labels = {
        "better": f"{first} is better",
        "worse": f"{second} is better",
        "same": "The same",
        "both bad": "Both bad",
    }
    return labels[choice]


def _buttons(first: str, second: str) -> str:
    def button(number: int, choice: Choice) -> str:
        text = _label(choice, first, second)
        return (
            f"<button type='button' data-choice='{choice}' aria-keyshortcuts='{number}'>"
            f"<kbd aria-hidden='true'>{number}</kbd>{escape(text)}</button>"
        )

    buttons = "".join(button(number, choice) for number, choice in enumerate(CHOICES, 1))
    return (
        "<div class='ballot' role='group' aria-label='Your vote' tabindex='-1'>"
        f"<span>Which answer is better?</span>{buttons}</div>"
    )


def tally_html(tallies: Sequence[Tally]) -> str:
    """The votes so far, a pair of models each; empty where nobody has voted."""
    if not tallies:
        return ""
    total = sum(tally.votes for tally in tallies)
    title = f"Your {total} blind vote{'s' if total != 1 else ''}"
    return f"<h3 class='panel-title'>{title}</h3><ul class='tallies'>{''.join(map(_pair, tallies))}</ul>"


def _pair(tally: Tally) -> str:
    first, second = map(escape, names_of(tally))
    sentence = f"<p class='quiet'>{escape(in_words(tally))}</p>"
    if tally.share is None:
        return f"<li>{sentence}</li>"
    low, high = (100 * bound for bound in (tally.interval.low, tally.interval.high))
    # The second stands on the left: the further right the mark, the more votes for the first.
    line = (
        f"<span class='tally-line' aria-hidden='true'><i style='left:{low:.1f}%;width:{high - low:.1f}%'></i>"
        f"<b style='left:{100 * tally.share:.1f}%'></b></span>"
    )
    ends = (
        f"<span>{second}<small class='number'>{tally.second_better}</small></span>",
        f"<span>{first}<small class='number'>{tally.first_better}</small></span>",
    )
    return f"<li><div class='tally'>{ends[0]}{line}{ends[1]}</div>{sentence}</li>"
