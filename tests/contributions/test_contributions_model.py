"""The noun and its file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from studio.contributions.file import load, save
from studio.contributions.model import SUMS, Contributions, Question
from studio.errors import FormatError, InputError, OutputExistsError
from studio.families import MoeShape

SHAPE = MoeShape("gemma4", (0, 1, 3), experts=4, top_k=2, hidden_size=8, expert_size=6)


def contributions(values=None, **changes) -> Contributions:
    generator = np.random.default_rng(0)
    fields = {
        "shape": SHAPE,
        "model": "tiny",
        "questions": (Question("a1", "a"), Question("b1", "b", 3, True, 7), Question("a2", "a")),
        "sums": values or {name: generator.random((3, 3, 4)) for name in SUMS},
        "source": "a test",
    }
    return Contributions(**{**fields, **changes})


def test_classes_keep_the_order_of_first_appearance():
    made = contributions()
    assert made.classes == ("a", "b")
    assert made.class_index.tolist() == [0, 1, 0]
    norm = made.sum("norm")
    np.testing.assert_array_equal(made.per_class(norm), np.stack([norm[0] + norm[2], norm[1]]))


def test_the_norm_of_a_question_is_the_root_of_its_squares():
    made = contributions()
    np.testing.assert_array_equal(made.question_norm(), np.sqrt(made.sum("weighted_norm_squared")))
    np.testing.assert_array_equal(made.question_norm(weighted=False), np.sqrt(made.sum("norm_squared")))


def test_a_missing_sum_is_named():
    made = contributions({"tokens": np.ones((3, 3, 4))})
    with pytest.raises(InputError, match="no sum 'gate'; it has tokens"):
        made.sum("gate")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"values": {"tokens": np.ones((3, 3, 5))}}, r"shape \[3, 3, 5\] and not \[3, 3, 4\]"),
        ({"values": {"loudness": np.ones((3, 3, 4))}}, "'loudness' is not one of the sums"),
        ({"questions": ()}, "at least one question"),
        ({"questions": (Question("x", "a"), Question("x", "b"), Question("y", "b"))}, "called 'x'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, problem):
    with pytest.raises(InputError, match=problem):
        contributions(**changes)


def test_sums_cannot_be_changed_and_the_givers_array_still_can():
    given_array = np.ones((3, 3, 4))
    made = contributions({"tokens": given_array})
    with pytest.raises(ValueError, match="read-only"):
        made.sum("tokens")[0] = 2
    with pytest.raises(TypeError):
        made.sums["tokens"] = given_array  # type: ignore[index]
    given_array[0, 0, 0] = 5


def test_values_that_are_not_finite_are_found():
    values = {name: np.ones((3, 3, 4)) for name in ("tokens", "norm_squared")}
    values["norm_squared"][1, 2, 3] = np.nan
    values["tokens"][0, 0, 1] = np.inf
    made = contributions(values)
    assert np.argwhere(made.nonfinite).tolist() == [[0, 0, 1], [1, 2, 3]]
    assert made.nonfinite_places() == (
        "a1, layer 0, expert 1: tokens is inf",
        "b1, layer 3, expert 3: norm_squared is nan",
    )
    assert len(made.nonfinite_places(limit=1)) == 1
    assert not contributions().nonfinite.any()


def test_the_hash_follows_the_content_and_nothing_else():
    made = contributions()
    same = contributions(dict(reversed(list(made.sums.items()))), source="elsewhere", model="another name")
    assert same.content_hash == made.content_hash
    changed = {name: values.copy() for name, values in made.sums.items()}
    changed["gate"][2, 2, 3] += 1e-12
    assert contributions(changed).content_hash != made.content_hash
    assert contributions(shape=replace(SHAPE, top_k=1)).content_hash != made.content_hash
    assert contributions({"tokens": made.sum("tokens")}).content_hash != made.content_hash


@given(
    values=arrays.arrays(np.float64, (3, 3, 4), elements=st.floats(width=64)),
    names=st.lists(st.sampled_from(SUMS), min_size=1, unique=True),
    question=st.text(max_size=20),
)
def test_what_is_saved_is_loaded(tmp_path_factory, values, names, question):
    path = tmp_path_factory.mktemp("saved") / "c.safetensors"
    asked = (Question(question, question), Question(question + "2", "b"), Question(question + "3", "c"))
    made = contributions(dict.fromkeys(names, values), questions=asked)
    save(made, path)
    loaded = load(path)
    assert loaded.content_hash == made.content_hash
    assert (loaded.shape, loaded.model, loaded.source) == (made.shape, made.model, made.source)
    assert loaded.questions == made.questions
    assert list(loaded.sums) == [name for name in SUMS if name in names]
    first = path.read_bytes()
    save(loaded, path, overwrite=True)
    assert path.read_bytes() == first


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        save(contributions(), path)
    assert path.read_text() == "mine"
    save(contributions(), path, overwrite=True)


def test_a_folder_for_the_file_is_made(tmp_path):
    save(contributions(), tmp_path / "deep" / "er" / "c.safetensors")
    assert load(tmp_path / "deep" / "er" / "c.safetensors").model == "tiny"


def rewritten(path, *, tensors=None, **header):
    """The file at `path` with other tensors, or other header fields."""
    described = {
        "format": "espalier-contributions", "version": 1, "model": "", "source": "",
        "shape": {"family": "gemma4", "layer_ids": [0], "experts": 2, "top_k": 1, "hidden_size": 1, "expert_size": 1},
        "questions": [{"id": "q", "klass": "k", "prompts": 1, "truncated": False, "skipped_tokens": 0}],
    }  # fmt: skip
    described.update(header)
    save_file(tensors or {"tokens": np.ones((1, 1, 2))}, path, metadata={"espalier": json.dumps(described)})
    return path


def test_a_minimal_file_is_read(tmp_path):
    assert load(rewritten(tmp_path / "c.safetensors")).sum("tokens").tolist() == [[[1.0, 1.0]]]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "something"}, "something version 1"),
        ({"version": 2}, "version 2, and this Espalier reads"),
        ({"shape": {"family": "gemma4"}}, "'layer_ids'"),
        ({"questions": [{"id": "q"}]}, "'klass'"),
        ({"questions": []}, "at least one question"),
        ({"questions": 7}, "a field is missing or wrong"),
        ({"tensors": {"tokens": np.ones((1, 1, 2), dtype=np.float32)}}, "tensor tokens: it is F32 and not F64"),
        ({"tensors": {"weight": np.ones((1, 1, 2))}}, "tensor weight: this is not one of the sums"),
        ({"tensors": {"tokens": np.ones((1, 1, 3))}}, r"\[1, 1, 3\] and not \[1, 1, 2\]"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path, changes, problem):
    path = rewritten(tmp_path / "c.safetensors", **changes)
    with pytest.raises(FormatError, match=problem) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match="There is no file"):
        load(path)
    save_file({"weight": np.ones(3)}, path)
    with pytest.raises(FormatError, match="not a contribution analysis"):
        load(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        load(path)


@given(cut=st.floats(0.0, 1.0))
def test_a_truncated_file_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "c.safetensors"
    save(contributions(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(cut * len(whole)), len(whole) - 1)])
    with pytest.raises(FormatError):
        load(path)


def test_the_file_is_plain_safetensors_that_others_can_read(tmp_path):
    save(contributions(), tmp_path / "c.safetensors")
    assert {name: values.shape for name, values in load_file(tmp_path / "c.safetensors").items()} == dict.fromkeys(
        SUMS, (3, 3, 4)
    )
