"""Every family as a virtual model: its routers are counted, and only what counts is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from studio.evaluate.held_out import Passage
from studio.evaluate.routing import watched
from studio.evaluate.virtual import VirtualModel, counted_logits
from studio.families import shape_of_config
from studio.recipes.dropmap import DropMap
from tests.families.test_families_models import FAMILIES, drop_of, logits_of
from tests.families.tiny_models import tiny

TOKENS = torch.randint(3, 120, (1, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny(request.param)


def fired(model: Any, drop: DropMap | None, shape: Any) -> Any:
    with torch.inference_mode(), watched(model, drop, shape) as watch:
        model(input_ids=TOKENS, use_cache=False)
    return watch.routing


def test_who_fires_and_who_would_have_is_counted(model: Any) -> None:
    shape = shape_of_config(model.config.to_dict())
    drop = drop_of(shape, per_group=1 if shape.groups > 1 else 5)
    before = logits_of(model)
    whole, routing = fired(model, None, shape), fired(model, drop, shape)
    for one in (whole, routing):
        assert one.tokens == 1 and (one.fired.sum(axis=1) == shape.top_k).all()
    assert not routing.fired[drop.mask].any() and not routing.missed[~drop.mask].any() and not whole.missed.any()
    # In the first layer both are in the same state, so the unmasked router has to want what the reference used.
    first = np.where(drop.mask[0], whole.fired[0], 0)
    np.testing.assert_array_equal(routing.missed[0], first)
    assert routing.touched[0] == first.any()
    torch.testing.assert_close(logits_of(model), before, rtol=0, atol=0)


def test_counted_logits_are_those_of_the_whole_pass(model: Any) -> None:
    class Padding:
        pad_token_id = 0

    shape = shape_of_config(model.config.to_dict())
    passages = [Passage("a", tuple(TOKENS[0].tolist()), 20), Passage("a", tuple(TOKENS[0, 3:15].tolist()), 5)]
    found = counted_logits(VirtualModel(model, Padding(), shape, ""), passages)
    with torch.inference_mode():
        expected = [
            model(input_ids=torch.tensor([p.tokens]), use_cache=False).logits[0, p.first - 1 : -1] for p in passages
        ]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)
