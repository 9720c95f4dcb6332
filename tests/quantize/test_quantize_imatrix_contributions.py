"""What an importance matrix says about contributions, and how well it says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.reference import Reference, open_reference
from studio.contributions import file
from studio.contributions.insights import spearman
from studio.contributions.merge import merge
from studio.errors import InputError, MismatchError
from studio.quantize.imatrix import Entry, Imatrix
from studio.quantize.imatrix_contributions import contributions_of, import_any
from studio.quantize.imatrix_file import write_imatrix
from tests.quantize.quantize_experts import (
    EXPERTS,
    HIDDEN,
    INNER,
    LAYERS,
    TOP_K,
    weights,
    write_checkpoint,
    write_gguf,
)

ASSETS = Path(__file__).resolve().parents[2] / "assets"
DEMO_IMATRIX = Path(__file__).parent / "demo-imatrix.gguf"
"""What llama-imatrix (of llama-cpp-python 0.3.36, `--parse-special -c 256`) made of the demo model in F32 and the 200
questions of demo-prompts.jsonl with their answers, in its chat template, one after the other. Of its entries only those
of the down projections are kept, and one that tells how many tokens there were."""
NAME = "m.gguf"


def matrix(energies: np.ndarray, counts: np.ndarray) -> Imatrix:
    """Of energies [L, E, inner] and counts [L, E]."""
    entries = {
        f"blk.{layer}.ffn_down_exps.weight": Entry(energies[layer].astype(np.float32), counts[layer].astype(np.int64))
        for layer in range(len(energies))
    }
    tokens = np.array([counts[0].sum() // TOP_K])
    entries["blk.0.attn_q.weight"] = Entry(np.ones((1, HIDDEN), np.float32), tokens)
    return Imatrix(entries, ("text",), 1, 512)


ENERGIES = np.random.default_rng(1).random((LAYERS, EXPERTS, INNER))
COUNTS = np.array([[4, 0, 2, 2], [1, 2, 3, 2]])


@pytest.fixture
def model(tmp_path: Path) -> Reference:
    return open_reference(write_checkpoint(tmp_path / "model", weights()))


def test_the_estimate_is_exact_where_neurons_are_uncorrelated(model: Reference, tmp_path: Path) -> None:
    given, lots = weights(), np.random.default_rng(2)
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])  # orthogonal columns
    # Four tokens per expert, whose neurons have exactly no correlation in blocks of four; the others are silent.
    hidden = np.zeros((LAYERS, EXPERTS, 4, INNER))
    hidden[..., :4] = signs * lots.random((LAYERS, EXPERTS, 1, 4))
    outputs = np.einsum("lehi,leti->leth", given["down"].astype(np.float64), hidden)
    made = contributions_of(
        matrix(np.square(hidden).sum(axis=2), np.full((LAYERS, EXPERTS), 4)), tmp_path / NAME, model=model
    )
    norm = np.square(outputs).sum(axis=(2, 3))
    assert made.sum("norm_squared")[0] == pytest.approx(norm, rel=1e-6)
    weighted = norm * np.square(given["scale"] / TOP_K)
    assert made.sum("weighted_norm_squared")[0] == pytest.approx(weighted, rel=1e-6)


@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0])
def test_a_gguf_and_a_checkpoint_give_the_same_estimate(model: Reference, kind: Type, tmp_path: Path) -> None:
    other = open_reference(write_gguf(tmp_path / "model.gguf", weights(), kind))
    first, second = (contributions_of(matrix(ENERGIES, COUNTS), tmp_path / NAME, model=one) for one in (model, other))
    for name in first.sums:
        assert second.sum(name) == pytest.approx(first.sum(name), rel=0.02)
    assert second.shape == first.shape == model.shape


def test_the_estimate_of_the_demo_ranks_experts_as_measuring_does() -> None:
    measured = file.load(ASSETS / "demo-contributions.safetensors")
    estimate = import_any(DEMO_IMATRIX, model=open_reference(ASSETS / "demo-model"))
    assert estimate.shape == measured.shape
    truth = measured.sum("weighted_norm_squared").sum(axis=0)
    agreement = spearman(truth, estimate.sum("weighted_norm_squared")[0])
    tokens_alone = spearman(truth, estimate.sum("tokens")[0])
    assert agreement.min() > 0.75 and agreement.mean() > 0.87, agreement  # 0.96 0.78 0.92 0.95 0.87 0.90 by layer
    assert tokens_alone.max() < 0.5, tokens_alone  # 0.46 0.16 0.23 0.43 0.32 0.04


def test_without_a_model_there_are_tokens_and_nothing_else(tmp_path: Path) -> None:
    made = contributions_of(matrix(ENERGIES, COUNTS), tmp_path / NAME)
    assert tuple(made.sums) == ("tokens",) and made.estimated == ()
    assert np.array_equal(made.sum("tokens")[0], COUNTS)
    assert (made.shape.top_k, made.shape.family, made.model) == (TOP_K, "unknown", "")


def test_an_estimate_says_so_in_its_file_too(model: Reference, tmp_path: Path) -> None:
    write_imatrix(matrix(ENERGIES, COUNTS), tmp_path / NAME)
    made = import_any(tmp_path / NAME, model=model, klass="verse")
    assert made.source.startswith("an estimate from an importance matrix, m.gguf of text, and the down projections of ")
    assert made.estimated == ("norm_squared", "weighted_norm_squared") and made.classes == ("verse",)
    file.save(made, tmp_path / "made.safetensors")
    assert file.load(tmp_path / "made.safetensors").estimated == made.estimated


def test_matrices_of_several_classes_are_merged(model: Reference, tmp_path: Path) -> None:
    parts = [
        contributions_of(matrix(ENERGIES * factor, COUNTS), tmp_path / NAME, model=model, klass=klass)
        for factor, klass in ((1, "code"), (2, "verse"))
    ]
    merged = merge(parts)
    assert merged.classes == ("code", "verse") and merged.estimated == parts[0].estimated


def without(imatrix: Imatrix, name: str) -> Imatrix:
    return replace(imatrix, entries={key: entry for key, entry in imatrix.entries.items() if key != name})


def test_what_does_not_say_enough_is_refused(model: Reference, tmp_path: Path) -> None:
    path, whole = tmp_path / NAME, matrix(ENERGIES, COUNTS)
    with pytest.raises(InputError, match=r"legacy importance matrix, which counts chunks.*--output-format gguf"):
        contributions_of(replace(whole, legacy=True), path)
    single = {"blk.0.ffn_down_exps.weight": Entry(np.ones((4, 8), np.float32), np.array([7]))}
    with pytest.raises(InputError, match="does not say how many tokens reached each expert"):
        contributions_of(replace(whole, entries=single), path)
    with pytest.raises(MismatchError, match=r"1 layers × 4 experts, and model has 2 × 4"):
        contributions_of(without(whole, "blk.1.ffn_down_exps.weight"), path, model=model)
    other = matrix(ENERGIES[..., :32], COUNTS)
    with pytest.raises(
        MismatchError, match=r"4 × 32 about blk.0.ffn_down_exps.weight, and the model has 4 × 64|4 × 32"
    ):
        contributions_of(other, path, model=model)
    gate_only = {name.replace("down", "gate_up"): entry for name, entry in whole.entries.items()}
    with pytest.raises(MismatchError, match=r"has nothing about blk\.0\.ffn_down_exps"):
        contributions_of(replace(whole, entries=gate_only), path, model=model)
    uneven = dict(whole.entries) | {"blk.1.ffn_down_exps.weight": Entry(np.ones((3, 64), np.float32), np.ones(3, int))}
    with pytest.raises(InputError, match="different numbers of experts"):
        contributions_of(replace(whole, entries=uneven), path)
