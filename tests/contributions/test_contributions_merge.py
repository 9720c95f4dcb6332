"""Several analyses as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions import file
from studio.contributions.merge import merge
from studio.contributions.model import SUMS, UNKNOWN_FAMILY, Contributions, Question
from studio.errors import InputError, MismatchError
from studio.families import MoeShape

SHAPE = MoeShape("gemma4", (0, 1), 4, 2, 8, 6)


def analysis(*ids: str, klass: str = "code", seed: int = 0, sums: tuple[str, ...] = SUMS, **changes) -> Contributions:
    lots = np.random.default_rng(seed)
    values = {name: lots.random((len(ids), SHAPE.layers, SHAPE.experts)) for name in sums}
    questions = tuple(Question(name, klass) for name in ids)
    return replace(Contributions(SHAPE, "owner/m", questions, values, f"analysis {seed}"), **changes)


@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_questions_follow_each_other_and_classes_are_united(counts: list[int]) -> None:
    parts = [
        analysis(*(f"{part}-{i}" for i in range(count)), klass=f"class {part % 2}", seed=part)
        for part, count in enumerate(counts)
    ]
    merged = merge(parts)
    assert merged.questions == tuple(question for part in parts for question in part.questions)
    assert merged.classes == tuple(dict.fromkeys(klass for part in parts for klass in part.classes))
    for name in SUMS:
        assert np.array_equal(merged.sum(name), np.concatenate([part.sum(name) for part in parts]))


def test_an_id_that_is_taken_gets_a_number() -> None:
    parts = [analysis("code", "code (2)", seed=1), analysis("code", seed=2), analysis("code", seed=3)]
    assert [question.id for question in merge(parts).questions] == ["code", "code (2)", "code (3)", "code (4)"]


def test_the_same_question_twice_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'q7' of the class 'code' is in two"):
        merge([analysis("q7", seed=1), analysis("q7", seed=1)])


def test_sums_that_not_all_have_are_left_out_and_named() -> None:
    merged = merge([analysis("a", seed=1), analysis("b", seed=2, sums=("tokens", "weighted_norm_squared"))])
    assert tuple(merged.sums) == ("tokens", "weighted_norm_squared")
    assert "left out, because not all of them have it: gate, norm, norm_squared, weighted_norm" in merged.source
    assert "analysis 1; analysis 2" in merged.source
    with pytest.raises(InputError, match=r"no sum in common: \[tokens\] and \[norm\]"):
        merge([analysis("a", sums=("tokens",)), analysis("b", sums=("norm",))])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": replace(SHAPE, layer_ids=(0, 2))}, "2 layers × 4 experts, but of other layers"),
        ({"shape": replace(SHAPE, family="other")}, "family gemma4 and other"),
        ({"shape": replace(SHAPE, top_k=3)}, "experts per token 2 and 3"),
        ({"shape": replace(SHAPE, hidden_size=16)}, "hidden size 8 and 16"),
        ({"model": "owner/other"}, "owner/m and another of owner/other"),
    ],
)
def test_another_model_is_refused_with_what_differs(changes: dict, words: str) -> None:
    with pytest.raises(MismatchError, match=words):
        merge([analysis("a"), analysis("b", **changes)])


def test_another_number_of_experts_is_refused() -> None:
    other = Contributions(replace(SHAPE, experts=3), "", (Question("b", "code"),), {"tokens": np.ones((1, 2, 3))})
    with pytest.raises(MismatchError, match="2 layers × 4 experts and 2 layers × 3 experts"):
        merge([analysis("a"), other])


def test_what_one_does_not_say_the_other_does() -> None:
    silent = analysis("b", seed=1, shape=MoeShape(UNKNOWN_FAMILY, (0, 1), 4, 1, 0, 0), model="")
    for parts in ([silent, analysis("a")], [analysis("a"), silent]):
        assert (merge(parts).shape, merge(parts).model) == (SHAPE, "owner/m")


def test_one_model_may_have_two_names() -> None:
    assert merge([analysis("a"), analysis("b", model="M")]).model == "owner/m"
    assert merge([analysis("a"), analysis("b", model="other")], model="mine").model == "mine"


def test_a_single_analysis_is_nothing_to_merge() -> None:
    with pytest.raises(InputError, match="nothing to merge"):
        merge([analysis("a")])


def test_an_estimate_stays_one_when_it_is_merged_and_saved(tmp_path: Path) -> None:
    estimate = analysis("b", seed=2, sums=("tokens", "norm_squared"), estimated=("norm_squared",))
    merged = merge([analysis("a"), estimate])
    assert merged.estimated == ("norm_squared",)
    file.save(merged, tmp_path / "merged.safetensors")
    read = file.load(tmp_path / "merged.safetensors")
    assert (read.estimated, read.content_hash) == (merged.estimated, merged.content_hash)
    assert merged.content_hash != replace(merged, estimated=()).content_hash
    with pytest.raises(InputError, match="'gate' is said to be estimated"):
        replace(merged, estimated=("gate",))
