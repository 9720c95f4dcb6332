"""What an analysis says in sentences, on analyses of which one can say it by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio.contributions import file
from studio.contributions.answers import answers_of, findings, measure
from studio.contributions.model import Contributions, Question
from studio.errors import InputError
from studio.families import MoeShape

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def analysis(norms: np.ndarray, classes: tuple[str, ...], **changes) -> Contributions:
    """Questions [Q, L, E] that take the classes in turn."""
    count, layers, experts = norms.shape
    shape = MoeShape("gemma4", tuple(range(10, 10 + layers)), experts, 1, 8, 8)
    sums = {"weighted_norm_squared": np.square(norms), "tokens": (norms > 0).astype(float)}
    questions = tuple(Question(f"q{i}", classes[i % len(classes)]) for i in range(count))
    return replace(Contributions(shape, "m", questions, sums, "test"), **changes)


def said(contributions: Contributions) -> dict[str, str]:
    return {name: f"{one.title}. {one.text}" for name, one in findings(answers_of(contributions)).items()}


def test_every_question_is_answered_in_words() -> None:
    norms = np.ones((8, 2, 8))
    norms[:, 0] = [10, 0, 0, 0, 0, 0, 0, 0]
    norms[::2, 1, :4], norms[1::2, 1, 4:] = 0, 0  # each class has a half of its own
    told = said(analysis(norms, ("code", "verse")))
    assert "between 1 and 7 by layer" in told["concentration"] and "0.44 (0.00 to 0.88" in told["concentration"]
    assert "Layer 10 contributes most, layer 11 least. The experts of layer 11 contribute 40 %" in told["layers"]
    assert (
        "Two classes share 1.0 of their 2 strongest" in told["sharing"] and "chance it would be 0.5" in told["sharing"]
    )
    assert "Expert 0 of layer 11 gives verse 100 %" in told["specialists"]
    assert told["unused"].startswith("7 of 16 experts are never used. No token reached expert 1 in layer 10, 2 in")
    assert "8 questions make a sure ranking" in told["stability"] or "takes about" in told["stability"]
    assert "Nothing was lost" in told["quality"]


def test_what_an_analysis_does_not_tell_is_said_in_one_sentence() -> None:
    norms = np.random.default_rng(0).random((2, 1, 4)) + 1
    by_class = analysis(norms, ("code", "verse"))
    assert "has no single questions, only classes that were added up" in said(by_class)["stability"]
    many = tuple(replace(question, prompts=9) for question in analysis(np.tile(norms, (2, 1, 1)), ("a", "b")).questions)
    assert answers_of(analysis(np.tile(norms, (2, 1, 1)), ("a", "b"), questions=many)).halves is None
    single = analysis(norms[:1], ("code",))
    told = said(single)
    assert "There is one class only" in told["sharing"] and "has one question" in told["stability"]
    assert "Specialists cannot be told" in told["specialists"] and "is the only one" in told["layers"]
    no_tokens = replace(single, sums={"weighted_norm_squared": norms[:1]})
    assert "is not known" in said(no_tokens)["unused"]
    assert "routed tokens" in measure(replace(single, sums={"tokens": norms[:1]}))
    assert "an estimate" in measure(replace(single, estimated=("weighted_norm_squared",)))
    assert "sum of the norms" in measure(replace(single, sums={"tokens": norms[:1], "weighted_norm": norms[:1]}))
    with pytest.raises(InputError, match="has none of weighted_norm_squared"):
        answers_of(replace(single, sums={"gate": norms[:1]}))


def test_faults_of_the_analysis_are_counted() -> None:
    norms = np.ones((4, 1, 4))
    norms[0, 0, 0] = np.inf
    given = analysis(norms, ("code",))
    questions = (replace(given.questions[0], skipped_tokens=3, truncated=True), *given.questions[1:])
    told = said(replace(given, questions=questions))["quality"]
    assert "Numbers that are not finite, and count as the median of their layer: 1." in told
    assert "overflowed: 3." in told and "limit of tokens: 1." in told


def test_nothing_at_all_is_no_error() -> None:
    told = said(analysis(np.zeros((3, 2, 4)), ("code", "verse", "prose")))
    assert "8 of 8 experts are never used" in told["unused"]


def test_the_demo_has_all_answers() -> None:
    found = answers_of(file.load(ASSETS / "demo-contributions.safetensors"))
    assert found.unused == () and found.halves is not None and found.halves.min() > 0.85
    assert found.curve[:, -1] == pytest.approx(1) and found.overlap is not None
    assert all(found.curve[row, count - 1] >= 0.8 for row, count in enumerate(found.needed))
