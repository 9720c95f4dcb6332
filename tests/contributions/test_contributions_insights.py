"""What an analysis says, on analyses of which one can say it by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from studio.contributions import insights
from studio.contributions.model import Contributions, Question
from studio.errors import InputError
from studio.families import MoeShape

POSITIVE = arrays.arrays(np.float64, (3, 8), elements=st.floats(0.001, 1e6))


def analysis(norms: np.ndarray, classes: tuple[str, ...], tokens: np.ndarray | None = None) -> Contributions:
    count, layers, experts = norms.shape
    shape = MoeShape("gemma4", tuple(range(10, 10 + layers)), experts, 1, 8, 8)
    sums = {"weighted_norm_squared": norms**2, "tokens": np.ones(norms.shape) if tokens is None else tokens}
    questions = tuple(Question(f"q{i}", classes[i % len(classes)]) for i in range(count))
    return Contributions(shape=shape, model="m", questions=questions, sums=sums, source="test")


def test_gini_is_zero_for_equals_and_near_one_for_a_single_giver() -> None:
    values = np.array([[1.0, 1, 1, 1], [0, 0, 0, 4], [0, 0, 0, 0], [1, 2, 3, 4]])
    assert insights.gini(values) == pytest.approx([0, 0.75, 0, 0.25])


@given(values=POSITIVE, factor=st.floats(0.01, 100))
def test_gini_is_the_mean_difference_and_knows_no_unit(values: np.ndarray, factor: float) -> None:
    differences = np.abs(values[:, :, None] - values[:, None, :]).mean(axis=(1, 2)) / (2 * values.mean(axis=1))
    assert insights.gini(values) == pytest.approx(differences, abs=1e-9)
    assert insights.gini(values * factor) == pytest.approx(insights.gini(values), abs=1e-9)


@given(values=POSITIVE, share=st.floats(0.05, 1.0))
def test_so_many_experts_give_the_share_and_one_fewer_do_not(values: np.ndarray, share: float) -> None:
    ordered = -np.sort(-values, axis=1)
    for count, line in zip(insights.experts_for(values, share), ordered, strict=True):
        assert line[:count].sum() >= share * line.sum() * (1 - 1e-9)
        assert line[: count - 1].sum() < share * line.sum()
    with pytest.raises(InputError, match="no sense"):
        insights.experts_for(values, 0)


def test_classes_that_use_the_same_experts_overlap() -> None:
    per_class = np.array([[[9.0, 8, 1, 0]], [[8.0, 9, 0, 1]], [[0.0, 1, 8, 9]]])
    assert insights.class_overlap(per_class, 2).tolist() == [[2, 2, 0], [2, 2, 0], [0, 0, 2]]


def test_layers_are_compared_with_the_largest() -> None:
    assert insights.layer_importance(np.array([[4.0, 4], [1, 1], [0, 0]])).tolist() == [1.0, 0.25, 0.0]


def test_experts_that_saw_no_token_are_named_by_layer_and_expert() -> None:
    tokens = np.ones((2, 2, 3))
    tokens[:, 1, 2] = 0
    assert insights.unused(analysis(np.ones((2, 2, 3)), ("code",), tokens)) == ((11, 2),)


def test_specialists_belong_to_one_class_however_long_its_answers_are() -> None:
    norms = np.ones((2, 1, 4))
    norms[0] *= 100  # this class has a hundred times the tokens
    norms[0, 0, 1], norms[1, 0, 1] = 0, 9
    (first,) = insights.specialists(analysis(norms, ("code", "verse")), most=1)
    assert (first.klass, first.layer, first.expert, first.share) == ("verse", 10, 1, 1.0)


def test_what_overflowed_counts_as_its_neighbours() -> None:
    norms = np.ones((1, 1, 5))
    norms[0, 0, 2] = np.inf
    norms[0, 0, 3] = np.nan
    assert insights.measured(analysis(norms, ("code",))).tolist() == [[[1.0] * 5]]


def test_a_ranking_that_every_question_confirms_is_sure() -> None:
    alike = np.tile(np.arange(1.0, 9), (6, 2, 1))
    assert insights.split_half(alike) == pytest.approx([1, 1])
    assert insights.enough_questions(alike) == 1
    chance = np.random.default_rng(1).random((40, 2, 64))
    assert abs(insights.split_half(chance)).max() < 0.4
    assert insights.enough_questions(chance) > 40
    with pytest.raises(InputError, match="One question"):
        insights.split_half(alike[:1])


def test_more_questions_make_it_surer_as_foretold() -> None:
    lots = np.random.default_rng(0)
    truth = lots.random((1, 1, 200))
    values = np.maximum(truth + lots.normal(0, 1.5, (400, 1, 200)) + 5, 0)
    needed = insights.enough_questions(values[:100], sure=0.9)
    assert 100 < needed < 400
    halves = 0.9 / (2 - 0.9)  # how well halves agree of what is sure to 0.9 as a whole
    assert float(insights.split_half(values[:needed]).min()) == pytest.approx(halves, abs=0.08)


def test_rank_correlation_knows_order_alone() -> None:
    values = np.array([[1.0, 2, 3, 4], [4, 1, 3, 2]])
    assert insights.spearman(values, np.exp(values)) == pytest.approx([1, 1])
    assert insights.spearman(values, -values) == pytest.approx([-1, -1])
    assert insights.spearman(values, np.ones_like(values)).tolist() == [0, 0]
    assert insights.spearman(np.array([[1.0, 1, 2, 2]]), np.array([[1.0, 2, 3, 4]])) == pytest.approx(
        [0.894427], abs=1e-6
    )
