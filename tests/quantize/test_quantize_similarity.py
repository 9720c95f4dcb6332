"""How alike experts are, of experts that are as alike as one likes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studio.checkpoints.expert_weights import ExpertWeights
from studio.checkpoints.reference import open_reference
from studio.checkpoints.similarity import in_words, similarity
from studio.errors import Cancelled, InputError
from tests.quantize.quantize_experts import EXPERTS, LAYERS, weights, write_checkpoint


def opened(folder: Path, given: dict[str, np.ndarray]) -> ExpertWeights:
    return ExpertWeights(open_reference(write_checkpoint(folder, given)))


def test_all_pairs_are_compared_as_the_formula_says(tmp_path: Path) -> None:
    given = weights()
    found = similarity(opened(tmp_path / "m", given), layers=99, pairs=99)
    assert [one.layer for one in found] == list(range(LAYERS))
    for one in found:
        flat = [
            np.concatenate([given["down"][one.layer, expert].ravel(), given["gate_up"][one.layer, expert].ravel()])
            for expert in range(EXPERTS)
        ]
        cosines = {
            (a, b): float(flat[a] @ flat[b] / np.linalg.norm(flat[a]) / np.linalg.norm(flat[b]))
            for a in range(EXPERTS)
            for b in range(a + 1, EXPERTS)
        }
        assert one.pairs == len(cosines) == 6
        assert one.mean == pytest.approx(np.mean(np.abs(list(cosines.values()))), abs=1e-6)
        assert one.largest == pytest.approx(cosines[one.experts], abs=1e-6)
        assert one.largest == pytest.approx(max(cosines.values()), abs=1e-6)
    assert "averaging experts would destroy both" in in_words(found)


def test_copies_are_found_and_an_expert_of_zeros_is_like_nothing(tmp_path: Path) -> None:
    given = weights()
    for name in ("down", "gate_up"):
        given[name][1, 3] = 2 * given[name][1, 1]
        given[name][1, 0] = 0
    found = similarity(opened(tmp_path / "m", given), layers=2, pairs=6)
    assert found[1].experts == (1, 3) and found[1].largest == pytest.approx(1, abs=1e-6)
    assert "experts 1 and 3 of layer 1" in in_words(found) and "one may stand in for both" in in_words(found)


def test_lots_depend_on_the_seed_alone(tmp_path: Path) -> None:
    model = opened(tmp_path / "m", weights())
    calls: list[tuple[int, int]] = []
    first = similarity(model, layers=1, pairs=2, seed=3, progress=lambda done, total, *_: calls.append((done, total)))
    assert first == similarity(model, layers=1, pairs=2, seed=3)
    assert calls == [(0, 2), (1, 2), (2, 2)] and first[0].pairs == 2
    assert len({similarity(model, layers=1, pairs=1, seed=seed) for seed in range(8)}) > 1


def test_nothing_to_compare_is_refused_and_a_cancelled_comparison_ends(tmp_path: Path) -> None:
    model = opened(tmp_path / "m", weights())
    with pytest.raises(InputError, match="nothing to compare"):
        similarity(model, layers=0)

    def cancel(*_: object) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        similarity(model, progress=cancel)


def test_an_expert_with_all_signs_turned_is_no_copy(tmp_path: Path) -> None:
    given = weights()
    for name in ("down", "gate_up"):
        given[name][1, 3] = -given[name][1, 1]
    found = similarity(opened(tmp_path / "m", given), layers=2, pairs=6)
    assert found[1].experts != (1, 3)
    assert "averaging experts would destroy both" in in_words(found)
