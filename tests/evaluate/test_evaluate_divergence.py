"""Divergences equal their definition, and hold what every divergence does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import MismatchError
from studio.evaluate.divergence import joined, summarised, token_divergences

SEEDS = st.integers(0, 2**32 - 1)


def logits(seed: int, tokens: int = 7, vocabulary: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=3, size=(tokens, vocabulary)).astype(np.float32)


def following(seed: int, tokens: int = 7, vocabulary: int = 11) -> np.ndarray:
    return np.random.default_rng(seed + 1).integers(0, vocabulary, tokens)


@given(SEEDS, SEEDS)
def test_each_token_is_as_the_definition_says(one: int, other: int) -> None:
    p_logits, q_logits, targets = logits(one), logits(other), following(one)
    found = token_divergences(p_logits, q_logits, targets)
    for row in range(len(targets)):
        p = [math.exp(value) for value in p_logits[row].tolist()]
        q = [math.exp(value) for value in q_logits[row].tolist()]
        p, q = [value / sum(p) for value in p], [value / sum(q) for value in q]
        expected = sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        assert found.kl[row] == pytest.approx(expected, abs=1e-9)
        assert found.reference_nll[row] == pytest.approx(-math.log(p[targets[row]]))
        assert found.candidate_nll[row] == pytest.approx(-math.log(q[targets[row]]))
        assert found.same_top[row] == (p.index(max(p)) == q.index(max(q)))


@given(SEEDS, st.floats(-50, 50))
def test_a_model_and_itself_do_not_differ_whatever_is_added_to_its_logits(seed: int, constant: float) -> None:
    same = summarised(token_divergences(logits(seed), logits(seed).astype(np.float64) + constant, following(seed)))
    assert same.kl_max == pytest.approx(0, abs=1e-9)
    assert same.same_top == 1
    assert same.perplexity_ratio == pytest.approx(1)


def test_many_tokens_are_those_of_the_pieces() -> None:
    p, q, targets = logits(0, tokens=700), logits(1, tokens=700), following(0, tokens=700)
    whole = token_divergences(p, q, targets)
    pieces = joined(token_divergences(p[part], q[part], targets[part]) for part in (slice(0, 300), slice(300, 700)))
    np.testing.assert_array_equal(whole.kl, pieces.kl)


def test_a_token_that_cannot_be_said_by_either_counts_nothing() -> None:
    p, q = logits(0), logits(1)
    p[:, 3] = q[:, 3] = -np.inf
    targets = np.full(7, 2)
    kept = [column for column in range(11) if column != 3]
    np.testing.assert_allclose(
        token_divergences(p, q, targets).kl, token_divergences(p[:, kept], q[:, kept], targets).kl
    )


def test_logits_of_two_vocabularies_are_refused() -> None:
    with pytest.raises(MismatchError, match="vocabulary"):
        token_divergences(logits(0), logits(0, vocabulary=12), following(0))


def test_nothing_measured_is_no_number() -> None:
    nothing = summarised(joined([]))
    assert nothing.tokens == 0
    assert math.isnan(nothing.kl_mean)
