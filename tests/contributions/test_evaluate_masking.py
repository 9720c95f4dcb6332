"""A masked model is the pruned one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from studio.errors import InputError, MismatchError
from studio.evaluate.masking import masked
from tests.contributions.tiny import tiny_model


def sliced(model, drop):
    """The pruned model, by slicing every tensor that has an expert axis."""
    pruned = copy.deepcopy(model)
    kept_experts = int((~drop[0]).sum())
    for layer, row in zip(pruned.model.layers, torch.from_numpy(~drop), strict=True):
        layer.experts.gate_up_proj = torch.nn.Parameter(layer.experts.gate_up_proj[row])
        layer.experts.down_proj = torch.nn.Parameter(layer.experts.down_proj[row])
        layer.experts.num_experts = kept_experts
        layer.router.proj.weight = torch.nn.Parameter(layer.router.proj.weight[row])
        layer.router.per_expert_scale = torch.nn.Parameter(layer.router.per_expert_scale[row])
    return pruned


def random_drop(shape, count, seed=0):
    drop = np.zeros((shape.layers, shape.experts), dtype=bool)
    for row, order in zip(drop, np.random.default_rng(seed).random(drop.shape).argsort(axis=1), strict=True):
        row[order[:count]] = True
    return drop


@pytest.mark.parametrize("dropped", [1, 3, 6, 9])
def test_masked_logits_are_those_of_the_sliced_model(model, shape, dropped):
    drop = random_drop(shape, dropped)
    tokens = torch.randint(3, 290, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pruned = sliced(model, drop)(input_ids=tokens).logits
        plain = model(input_ids=tokens).logits
        with masked(model, drop, shape):
            virtual = model(input_ids=tokens).logits
        torch.testing.assert_close(virtual, pruned, rtol=1e-5, atol=1e-5)
        assert (plain - pruned).abs().max() > 1e-3, "the mask has to matter"
        torch.testing.assert_close(model(input_ids=tokens).logits, plain)  # and to be gone afterwards


def test_an_empty_mask_changes_nothing(model, shape):
    tokens = torch.arange(3, 30).unsqueeze(0)
    with torch.inference_mode(), masked(model, random_drop(shape, 0), shape):
        virtual = model(input_ids=tokens).logits
    with torch.inference_mode():
        torch.testing.assert_close(virtual, model(input_ids=tokens).logits, rtol=0, atol=0)


def test_impossible_masks_are_refused(model, shape):
    with pytest.raises(InputError, match="Layer 0 would keep 2 experts, and every token uses 3"):
        masked(model, random_drop(shape, 10), shape).__enter__()
    with pytest.raises(MismatchError, match="The mask has the shape"):
        masked(model, np.zeros((2, 2), dtype=bool), shape).__enter__()


def test_hooks_are_gone_after_an_error(shape):
    model = tiny_model(layers=6)
    with pytest.raises(ZeroDivisionError), masked(model, random_drop(shape, 3), shape):
        raise ZeroDivisionError
    assert not any(layer.router.proj._forward_hooks for layer in model.model.layers)
