"""Where answers part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from studio.serve.client import Likely, Token
from studio.serve.conversation import Answer
from studio.serve.parting import parting


def answer(text: str, finish: str = "stop", ids: bool = True) -> Answer:
    """An answer with a token for each letter."""
    tokens = tuple(Token(letter, id=ord(letter) if ids else None) for letter in text)
    return Answer(text, tokens=tokens, finish=finish)


def test_the_first_difference_counts_and_equal_answers_have_none() -> None:
    assert parting([answer("abcd"), answer("abxd")]) == 2
    assert parting([answer("abcd"), answer("abcd"), answer("aycd")]) == 1
    assert parting([answer("abcd"), answer("abcd")]) is None
    assert parting([answer("x"), answer("y")]) == 0


def test_one_answer_or_none_has_nothing_to_part_from() -> None:
    assert parting([]) is None and parting([answer("abc")]) is None


def test_an_answer_that_ends_itself_parts_from_one_that_goes_on_and_one_that_was_cut_off_does_not() -> None:
    assert parting([answer("ab"), answer("abc")]) == 2
    assert parting([answer("ab", finish="length"), answer("abc")]) is None
    assert parting([answer("ab", finish="stopped"), answer("abc")]) is None
    assert parting([answer("ab", finish=""), answer("abc")]) is None


def test_tokens_are_told_apart_by_id_where_there_is_one_and_else_by_text() -> None:
    same_text = [Answer(tokens=(Token("\ufffd", id=number),), finish="stop") for number in (1, 2)]
    assert parting(same_text) == 0
    assert parting([answer("abc"), answer("abd", ids=False)]) == 2


def test_what_else_was_likely_makes_no_difference() -> None:
    one, other = (Answer(tokens=(Token("a", id=1, top=(Likely(1, "a", p),)),), finish="stop") for p in (-0.1, -0.5))
    assert parting([one, other]) is None


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_before_the_parting_all_is_equal_and_at_it_something_is_not(left: str, right: str) -> None:
    place = parting([answer(left), answer(right)])
    assert parting([answer(right), answer(left)]) == place
    if place is None:
        assert left == right
    else:
        assert left[:place] == right[:place] and left[place : place + 1] != right[place : place + 1]
