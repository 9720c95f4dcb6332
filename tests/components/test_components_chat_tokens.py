"""Where the answers part, as HTML."""

from __future__ import annotations

import math
import re

from components.chat_tokens import AROUND, parting_html
from components.chat_view import with_formulas
from studio.serve.client import Delta, Likely, Token
from studio.serve.conversation import Column, Conversation

COLUMNS = (Column("A", "one"), Column("B", "two"))


def said(*texts: str, top: tuple[Likely, ...] = ()) -> Conversation:
    """One question and its answers, a token for each letter."""
    conversation = Conversation(columns=COLUMNS).asked("Hi", "AB"[: len(texts)])
    for column, text in zip("AB", texts, strict=False):
        tokens = tuple(Token(letter, id=ord(letter), top=top) for letter in text)
        conversation = conversation.heard(column, Delta(text, tokens=tokens))
        conversation = conversation.heard(column, Delta(done=True, finish="stop"))
    return conversation


def test_there_is_nothing_to_see_before_two_answers_are_over() -> None:
    assert parting_html(Conversation()) == parting_html(said("abc")) == ""
    coming = Conversation(columns=COLUMNS).asked("Hi", "AB").heard("A", Delta("x", tokens=(Token("x"),)))
    assert parting_html(coming) == ""


def test_the_first_token_that_differs_is_marked_in_every_column() -> None:
    shown = parting_html(said("abcd", "abxd"))
    assert "part after 2 tokens" in shown
    assert re.findall(r"class='parts'>(.)<", shown) == ["c", "x"]
    assert "part at once" in parting_html(said("a", "b"))
    assert "do not part: 3 tokens are the same" in parting_html(said("abc", "abc"))


def test_an_end_that_comes_sooner_is_marked_as_such() -> None:
    shown = parting_html(said("ab", "abc"))
    assert "<mark class='parts'>its end</mark>" in shown and "class='parts'>c<" in shown


def test_the_distribution_is_shown_for_the_chosen_token_with_the_one_that_came() -> None:
    top = (Likely(ord("a"), "a", math.log(0.625)), Likely(ord("c"), " <c>", math.log(0.25)))
    shown = parting_html(said("abc", "abd", top=top))
    assert shown.count("<ol class='likely'>") == 2 and "62.5 %" in shown and "␣&lt;c&gt;" in shown
    assert "not among these" in shown.split("Tokens of B")[1]  # d is not among the likeliest
    chosen = parting_html(said("abc", "abd", top=top), 0)
    assert re.findall(r"data-index='(\d)' aria-pressed='true'", chosen) == ["0", "0"]
    assert "not among these" not in chosen and chosen.count("aria-current") == 2


def test_what_was_not_asked_for_is_told_how_to_get() -> None:
    assert "Compare token by token" in parting_html(said("ab", "ac"))
    assert "<ol" not in parting_html(said("ab", "ac"))


def test_after_the_parting_the_choices_are_not_the_same_one() -> None:
    top = (Likely(1, "a", -1.0),)
    assert "different texts" in parting_html(said("abcd", "xbcd", top=top), 2)
    assert "before temperature" in parting_html(said("abcd", "abcx", top=top), 1)


def test_a_long_answer_is_shown_around_the_place_that_counts() -> None:
    shown = parting_html(said("a" * 1000 + "b", "a" * 1000 + "c"))
    assert shown.count("role='button'") == 2 * (AROUND + 1) and f"{1000 - AROUND} tokens before" in shown
    start = parting_html(said("a" * 1000, "a" * 1000), 0)
    assert f"{1000 - AROUND} tokens more" in start or f"{1000 - AROUND} tokens" in start
    assert parting_html(said("ab", "ac"), 10**9) == parting_html(said("ab", "ac"), 1)


def test_nothing_of_a_token_is_markup() -> None:
    shown = parting_html(said("<script>", "<b>"))
    assert "<script>" not in shown and "&lt;" in shown


def test_formulas_between_dollars_are_told_from_prices_and_code() -> None:
    assert with_formulas("So $x^2$ and $a_1 + b$.") == r"So \(x^2\) and \(a_1 + b\)."
    for untouched in (
        "from $5 to $9",
        "$5 and $6",
        "`$HOME/$USER`",
        "```sh\necho $A$B\n```",
        "```sh\necho $A$B",
        "$$x$$",
        r"\$x\$",
        "a $ b $ c",
    ):
        assert with_formulas(untouched) == untouched
