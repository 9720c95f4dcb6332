"""How sure a share of right answers is, and whether two models that answered the same questions differ.

Everything here is exact or closed-form but for the bootstrap, which is seeded: the same answers give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from studio.errors import InputError, MismatchError

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
"""Two models are said to differ when chance alone would give such a split less often than this."""
DRAWS = 10_000
SEED = 42


@dataclass(frozen=True)
class Interval:
    """Where a number lies with `CONFIDENCE`."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A candidate against its reference on the same questions; `better` and `worse` are the candidate's."""

    questions: int
    better: int
    """Answers that only the candidate has right."""
    worse: int
    """Answers that only the reference has right."""
    p: float
    """McNemar's exact test, two-sided: how often chance gives a split at least this uneven."""
    difference: float
    """Candidate's share of right answers minus the reference's, −1 to 1."""
    interval: Interval
    """Of the difference, by bootstrap over questions."""

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANT


def wilson(right: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval (1927) for the share `right` of `total`; 0 to 1 where there are no answers.

    Raises `InputError` for counts that cannot be.
    """
    if not 0 <= right <= total:
        raise InputError(f"{right} of {total} answers cannot be right.")
    if not total:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / total
    scale = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    reach = z / scale * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    # At both ends the formula gives 0 and 1 but for the last bits.
    return Interval(0.0 if right == 0 else centre - reach, 1.0 if right == total else centre + reach)


def mcnemar(better: int, worse: int) -> float:
    """The two-sided p of McNemar's exact test: `better` and `worse` split as a fair coin would, or more unevenly."""
    differing = better + worse
    if not differing:
        return 1.0
    tail = ways = 1  # whole numbers, so that nothing is rounded, however many questions there are
    for k in range(min(better, worse)):
        ways = ways * (differing - k) // (k + 1)  # "differing choose k + 1"
        tail += ways
    return min(1.0, float(2 * tail / 2**differing))


def bootstrap_difference(
    better: int, worse: int, questions: int, *, confidence: float = CONFIDENCE, draws: int = DRAWS, seed: int = SEED
) -> Interval:
    """The percentile interval of the difference of two shares, over samples of the same questions with replacement.

    A question is better, worse or the same, so drawing all of them with replacement is one draw of a multinomial.
    Where no answer differs every sample is the same, and the interval is 0 to 0.
    """
    if not questions:
        return Interval(-1.0, 1.0)
    shares = np.array([better, worse, questions - better - worse]) / questions
    drawn = np.random.default_rng(seed).multinomial(questions, shares, size=draws)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / questions, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def compare(reference: Sequence[bool], candidate: Sequence[bool]) -> Comparison:
    """Compare right and wrong answers, question by question. Raises `MismatchError` for different numbers of them."""
    if len(reference) != len(candidate):
        raise MismatchError(
            f"The reference answered {len(reference)} questions and the candidate {len(candidate)}.",
            "Ask both the same.",
        )
    pairs = list(zip(reference, candidate, strict=True))
    better = sum(after and not before for before, after in pairs)
    worse = sum(before and not after for before, after in pairs)
    return Comparison(
        questions=len(pairs),
        better=better,
        worse=worse,
        p=mcnemar(better, worse),
        difference=(better - worse) / len(pairs) if pairs else 0.0,
        interval=bootstrap_difference(better, worse, len(pairs)),
    )


def in_words(comparison: Comparison) -> str:
    """`31 of 280 answers differ; 12 better, 19 worse; p = 0.28: no evidence of a loss.` and how large it may be."""
    differing = comparison.better + comparison.worse
    if not comparison.questions:
        return "There are no questions that both answered."
    if not differing:
        return f"None of {comparison.questions} answers differs in being right: no evidence of a loss."
    verb = "differs" if differing == 1 else "differ"
    counts = (
        f"{differing} of {comparison.questions} answers {verb}; {comparison.better} better, {comparison.worse} worse"
    )
    between = f"{points(comparison.interval.low)} to {points(comparison.interval.high)}"
    return (
        f"{counts}; {p_text(comparison.p)}: {_verdict(comparison)}. "
        f"The difference is {points(comparison.difference)} points, {CONFIDENCE:.0%} interval {between}."
    )


def p_text(p: float) -> str:
    """`p = 0.28`, and never `p = 0`."""
    return f"p = {p:.2f}" if p >= 0.095 else f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def points(share: float) -> str:
    """A difference of shares in points of a hundred, with its sign."""
    rounded = round(100 * share, 1)
    return "0.0" if not rounded else f"{rounded:+.1f}".replace("-", "−")


def _verdict(comparison: Comparison) -> str:
    if not comparison.significant:
        return "no evidence of a loss"
    return "evidence of a gain" if comparison.better > comparison.worse else "evidence of a loss"
