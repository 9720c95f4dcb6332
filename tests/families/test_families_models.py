"""Every family, on a tiny random model: observed, pruned, masked, converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.contributions.model import SUMS
from studio.contributions.observer import observing, question_of_token
from studio.evaluate.masking import masked
from studio.families import shape_of_config
from studio.recipes.dropmap import DropMap
from tests.families.tiny_models import CONFIGS, save, tiny

TOKENS = torch.randint(3, 120, (2, 24), generator=torch.Generator().manual_seed(0))
FAMILIES = sorted(CONFIGS)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def shape_of(model: Any) -> Any:
    return shape_of_config(model.config.to_dict())


def drop_of(shape: Any, per_group: int, seed: int = 0) -> DropMap:
    """Other experts in every layer, equally many of each group."""
    lots = np.random.default_rng(seed)
    size = shape.experts // shape.groups
    mask = np.zeros((shape.layers, shape.experts), dtype=bool)
    for row in mask:
        for start in range(0, shape.experts, size):
            row[start + lots.permutation(size)[:per_group]] = True
    return DropMap.from_mask(mask, shape.layer_ids, family=shape.family)


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=TOKENS, use_cache=False).logits


@pytest.mark.parametrize("layout", ["hub", "fused", "shards"])
def test_the_masked_reference_is_the_pruned_checkpoint(model: Any, layout: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shape = shape_of(model)
    folder = save(model, tmp_path / "whole", fused=layout == "fused", shards="40KB" if layout == "shards" else None)
    drop = drop_of(shape, per_group=1 if shape.groups > 1 else 5)
    prune_safetensors(folder, drop, tmp_path / "pruned")
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", dtype=torch.float32).eval()
    assert shape_of(pruned).experts == drop.kept_count
    with masked(model, drop.mask, shape):
        virtual = logits_of(model)
    plain = logits_of(model)
    torch.testing.assert_close(logits_of(pruned), virtual, rtol=1e-4, atol=1e-4)
    assert (plain - virtual).abs().max() > 1e-3, "the mask has to matter"


def test_every_routed_token_is_observed_and_nothing_changes(model: Any) -> None:
    shape = shape_of(model)
    plain = logits_of(model)
    with observing(model, shape) as observer:
        observer.expect(question_of_token([24, 20], 24, torch.device("cpu")), 2)
        observed = logits_of(model)
        sums, skipped = observer.totals()
    torch.testing.assert_close(observed, plain, rtol=1e-4, atol=1e-4)
    by_name = dict(zip(SUMS, sums, strict=True))
    assert skipped.tolist() == [0, 0]
    expected = np.array([24, 20])[:, None] * np.full(shape.layers, shape.top_k)
    assert (by_name["tokens"].sum(axis=2) == expected).all()
    assert all((by_name[name] > 0).any() for name in SUMS)
