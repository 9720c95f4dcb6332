"""The next token is one that the sampler allows, and as likely as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.serve.client import Sampler
from studio.serve.sampling import choose

LOGITS = st.lists(st.floats(-20, 20), min_size=2, max_size=30).map(np.array)
SEEDS = st.integers(0, 2**32 - 1)
PLAIN = Sampler(temperature=1, top_p=1, top_k=0)


def lots(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(LOGITS, SEEDS)
def test_temperature_0_takes_the_likeliest(logits: np.ndarray, seed: int) -> None:
    assert choose(logits, Sampler(temperature=0), [], lots(seed)) == logits.argmax()


@given(LOGITS, SEEDS, st.integers(1, 30), st.floats(0.01, 1), st.floats(0, 1))
def test_only_what_every_limit_allows_is_chosen(
    logits: np.ndarray, seed: int, top_k: int, top_p: float, min_p: float
) -> None:
    chosen = choose(logits, Sampler(temperature=1.5, top_k=top_k, top_p=top_p, min_p=min_p), [], lots(seed))
    chances = np.exp(logits - logits.max())
    better = logits > logits[chosen]
    assert better.sum() < top_k
    assert chances[chosen] >= min_p * (1 - 1e-9)
    among = np.sort(chances)[::-1][:top_k]
    assert chances[better].sum() / among.sum() < top_p + 1e-9


def test_lots_follow_the_chances() -> None:
    chances = np.array([0.5, 0.3, 0.2])
    source = lots(1)
    drawn = [choose(np.log(chances), PLAIN, [], source) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, chances, atol=0.03)
    colder = [choose(np.log(chances), Sampler(temperature=0.5, top_p=1, top_k=0), [], source) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(colder) / 4000, chances**2 / (chances**2).sum(), atol=0.03)


def test_the_same_seed_draws_the_same_tokens() -> None:
    logits = np.zeros(50)
    one, same = lots(3), lots(3)
    assert [choose(logits, PLAIN, [], one) for _ in range(20)] == [choose(logits, PLAIN, [], same) for _ in range(20)]


@pytest.mark.parametrize(("logits", "expected"), [([3.0, 2.5], 1), ([-1.0, -1.1], 1), ([3.0, 1.0], 0)])
def test_what_was_said_is_penalised_once(logits: list[float], expected: int) -> None:
    sampler = Sampler(temperature=0, repeat_penalty=1.5)
    assert choose(np.array(logits), sampler, [0, 0, 0], lots()) == expected


def test_a_token_that_cannot_be_said_is_never_said() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf])
    assert {choose(logits, PLAIN, [], lots(seed)) for seed in range(20)} == {1}
