"""The verbs about importance matrices, on those of a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.quantize.imatrix_file import read_imatrix
from tests.cli.tiny_gemma import EXPERTS
from tests.quantize.quantize_importance import CHUNKS, SCARCE, TEXT, UNSEEN, build_imatrix, build_legacy

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def imatrix(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_imatrix(tmp_path_factory.mktemp("imatrix") / "imatrix.gguf", gguf)


@pytest.fixture(scope="module")
def legacy(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_legacy(tmp_path_factory.mktemp("imatrix") / "imatrix.dat", gguf)


def test_show_names_the_experts_about_which_little_is_known(verb: Run, imatrix: Path, legacy: Path) -> None:
    told = verb("imatrix", "show", imatrix, "--json").json
    assert (told["chunks"], told["datasets"], told["legacy"]) == (CHUNKS, [TEXT], False)
    assert told["imatrix_hash"] == read_imatrix(imatrix).content_hash
    assert told["coverage"]["2"] == {"experts": EXPERTS, "unseen": [UNSEEN], "scarce": [SCARCE]}
    text = verb("imatrix", "show", imatrix).out
    assert f"layer 2: no data about expert {UNSEEN}, little about expert {SCARCE}\n" in text and "layer 1" not in text
    assert "does not say how many tokens" in verb("imatrix", "show", legacy).out


def test_merge_adds_the_chunks_up(verb: Run, imatrix: Path, legacy: Path, tmp_path: Path) -> None:
    told = verb("imatrix", "merge", imatrix, legacy, "--out", tmp_path / "both.gguf", "--json").json
    assert told["chunks"] == 2 * CHUNKS and told["datasets"] == [TEXT, TEXT]
    assert told["imatrix_hash"] == read_imatrix(tmp_path / "both.gguf").content_hash
    assert "exists already" in verb("imatrix", "merge", imatrix, "--out", tmp_path / "both.gguf").mistake


def test_convert_makes_gguf_of_a_legacy_file(verb: Run, legacy: Path, tmp_path: Path) -> None:
    told = verb("imatrix", "convert", legacy, "--out", tmp_path / "new.gguf", "--json").json
    assert (told["chunks"], told["chunk_size"], told["legacy"]) == (CHUNKS, 512, False)
    assert told["bytes"] == (tmp_path / "new.gguf").stat().st_size


@pytest.mark.parametrize("build", [build_imatrix, build_legacy])
def test_slice_makes_it_fit_the_pruned_model(
    build: Callable[[Path, Path], Path], verb: Run, gguf: Path, drop_map: Path, tmp_path: Path
) -> None:
    assert verb("prune", gguf, "--map", drop_map, "--out", tmp_path / "pruned.gguf").code == 0
    whole, out = build(tmp_path / "whole", gguf), tmp_path / "imatrix.gguf"
    options = ("--map", drop_map, "--model", gguf, "--out")
    assert verb("imatrix", "slice", whole, *options, out).code == 0
    shapes = {tensor.name: tensor.shape for tensor in read_header(tmp_path / "pruned.gguf").tensors}
    assert set(read_imatrix(out).matched(shapes).entries) == set(read_imatrix(whole).entries)
    assert "It is of another model" in verb("imatrix", "slice", out, *options, tmp_path / "again.gguf").mistake


def test_a_model_in_its_place_is_refused(verb: Run, gguf: Path) -> None:
    assert "no importance matrix" in verb("imatrix", "show", gguf).mistake


def test_an_importance_matrix_is_imported_as_an_analysis(
    verb: Run, imatrix: Path, legacy: Path, gguf: Path, tmp_path: Path
) -> None:
    alone = verb("import", imatrix, "--out", tmp_path / "alone.safetensors", "--json").json
    assert (alone["sums"], alone["estimated"]) == (["tokens"], [])
    assert "legacy importance matrix" in verb("import", legacy, "--out", tmp_path / "legacy.safetensors").mistake
    mistake = verb("import", imatrix, "--model", gguf, "--class", "prose", "--out", tmp_path / "a.safetensors").mistake
    assert "nothing about blk.1.ffn_down_exps.weight" in mistake  # as `MISSING` says
