"""Intervals and tests equal their definitions, and hold what every interval and test does."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import InputError, MismatchError
from studio.evaluate.statistics import bootstrap_difference, compare, in_words, mcnemar, p_text, wilson

COUNTS = st.integers(0, 400)
ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


def test_wilson_gives_the_published_example() -> None:
    # 81 of 263: Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 0.2553 to 0.3662.
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert round(wilson(0, 20).high, 4) == 0.1611 and round(wilson(1, 29).low, 4) == 0.0061


@given(COUNTS, COUNTS)
def test_wilson_holds_the_share_and_stays_between_0_and_1(right: int, wrong: int) -> None:
    total = right + wrong
    interval = wilson(right, total)
    assert 0 <= interval.low <= interval.high <= 1
    if total:
        assert interval.low <= right / total <= interval.high
        mirrored = wilson(wrong, total)
        assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-12)
        more = wilson(4 * right, 4 * total)
        assert more.high - more.low < interval.high - interval.low


def test_more_right_answers_than_answers_are_refused() -> None:
    with pytest.raises(InputError, match="5 of 4"):
        wilson(5, 4)


@given(st.integers(0, 10), st.integers(0, 10))
def test_mcnemar_counts_the_coin_tosses_that_are_as_uneven(better: int, worse: int) -> None:
    tosses = better + worse
    if tosses > 11:
        return
    as_uneven = sum(abs(2 * sum(faces) - tosses) >= abs(better - worse) for faces in product((0, 1), repeat=tosses))
    assert mcnemar(better, worse) == pytest.approx(float(Fraction(as_uneven, 2**tosses)))


@given(COUNTS, COUNTS)
def test_mcnemar_does_not_care_who_is_called_better(better: int, worse: int) -> None:
    p = mcnemar(better, worse)
    assert p == mcnemar(worse, better) and 0 < p <= 1
    assert mcnemar(better, better) == 1.0


def test_mcnemar_takes_any_number_of_answers() -> None:
    assert 0 < mcnemar(5900, 6100) < 0.1 and mcnemar(0, 12_000) == 0.0


def test_the_bootstrap_is_one_over_questions() -> None:
    """Against the slow obvious one: draw questions with replacement, take the mean difference."""
    better, worse, questions = 12, 19, 280
    differences = np.array([1] * better + [-1] * worse + [0] * (questions - better - worse))
    generator = np.random.default_rng(0)
    means = [generator.choice(differences, questions).mean() for _ in range(4000)]
    interval = bootstrap_difference(better, worse, questions)
    assert interval.low == pytest.approx(np.quantile(means, 0.025), abs=0.006)
    assert interval.high == pytest.approx(np.quantile(means, 0.975), abs=0.006)
    assert interval == bootstrap_difference(better, worse, questions)


@given(ANSWERS)
def test_a_comparison_turned_around_says_the_opposite(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    there, back = compare(before, after), compare(after, before)
    assert (there.better, there.worse, there.p) == (back.worse, back.better, back.p)
    assert there.difference == -back.difference
    if pairs:
        assert there.difference == pytest.approx(sum(after) / len(pairs) - sum(before) / len(pairs))
        assert -1 <= there.interval.low <= there.interval.high <= 1
    assert in_words(there).endswith(".")


def test_the_sentence_is_plain() -> None:
    before = [True] * 19 + [False] * 12 + [True] * 249
    after = [False] * 19 + [True] * 12 + [True] * 249
    sentence = in_words(compare(before, after))
    assert sentence.startswith("31 of 280 answers differ; 12 better, 19 worse; p = 0.28: no evidence of a loss.")
    assert "The difference is −2.5 points, 95% interval −6.4 to +1.4." in sentence


@pytest.mark.parametrize(
    ("better", "worse", "words"),
    [
        (0, 0, "None of 100 answers differs in being right"),
        (1, 0, "1 of 100 answers differs; 1 better, 0 worse; p = 1.00: no evidence of a loss"),
        (0, 20, "20 of 100 answers differ; 0 better, 20 worse; p < 0.001: evidence of a loss"),
        (20, 3, "evidence of a gain"),
    ],
)
def test_every_outcome_has_its_words(better: int, worse: int, words: str) -> None:
    same = 100 - better - worse
    comparison = compare(
        [False] * better + [True] * worse + [True] * same, [True] * better + [False] * worse + [True] * same
    )
    assert words in in_words(comparison)


def test_p_is_never_said_to_be_0() -> None:
    assert [p_text(p) for p in (0.0, 0.0004, 0.0123, 0.0499, 0.28)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.012",
        "p = 0.050",
        "p = 0.28",
    ]


def test_different_numbers_of_questions_are_refused() -> None:
    with pytest.raises(MismatchError, match="2 questions and the candidate 1"):
        compare([True, False], [True])


def test_no_questions_are_said_so() -> None:
    assert in_words(compare([], [])) == "There are no questions that both answered."
