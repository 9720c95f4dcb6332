"""Every family, on a tiny random model: observed, pruned, masked, converted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.prune_gguf import prune_gguf
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.checkpoints.reference import open_reference
from studio.contributions.model import SUMS
from studio.contributions.observer import observing, question_of_token
from studio.evaluate.masking import masked
from studio.families import draft_layers_of_gguf, shape_of_config, shape_of_gguf
from studio.recipes.dropmap import DropMap
from tests.families.tiny_models import CONFIGS, NAMED_DRAFT, NUMBERED_DRAFT, add_draft, save, tiny

TOKENS = torch.randint(3, 120, (2, 24), generator=torch.Generator().manual_seed(0))
FAMILIES = sorted(CONFIGS)
CONVERTED = sorted(CONFIGS.keys() - {"gemma4_text", "phimoe"})
"""Gemma 4's converter needs a vocabulary, and tests/checkpoints has one that it takes; PhiMoE's, tables for long texts."""


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


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, DropMap]]:
    """By model type: the GGUF of the whole model, that of the pruned one, and the map between them."""
    place = tmp_path_factory.mktemp("converted")
    arguments: list[str] = []
    found = {}
    for model_type in CONVERTED:
        model = tiny(model_type)
        folder = save(model, place / model_type)
        if model_type in NAMED_DRAFT | NUMBERED_DRAFT:
            add_draft(folder, model_type)
        shape = shape_of(model)
        drop = drop_of(shape, per_group=1 if shape.groups > 1 else 5)
        pruned = prune_safetensors(folder, drop, place / f"{model_type}-pruned")
        files = [path.with_suffix(".gguf") for path in (folder, pruned)]
        arguments += [str(folder), str(files[0]), str(pruned), str(files[1])]
        found[model_type] = (files[0], files[1], drop)
    script = Path(__file__).with_name("convert_without_vocabulary.py")
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("model_type", CONVERTED)
def test_pruning_the_gguf_equals_converting_the_pruned_checkpoint(
    model_type: str, converted: dict[str, tuple[Path, Path, DropMap]], tmp_path: Path
) -> None:
    whole, expected, drop = converted[model_type]
    shape = shape_of_gguf(read_header(whole).values)
    assert (shape.layer_ids, shape.experts) == (drop.layer_ids, drop.experts)
    sliced = read_header(prune_gguf(whole, drop, tmp_path / "sliced.gguf"))
    again = read_header(expected)
    assert shape_of_gguf(sliced.values).experts == drop.kept_count
    assert tensors_of(sliced) == tensors_of(again)
    differing = {key for key in again.values.keys() | sliced.values.keys() if again.values.get(key) != sliced.values.get(key)}
    assert differing <= {"espalier.manifest", "general.size_label"}, differing


def tensors_of(header: Any) -> dict[str, tuple[Any, bytes]]:
    data = header.path.read_bytes()
    return {
        tensor.name: (tensor.shape, data[header.start_of(tensor) : header.start_of(tensor) + tensor.size])
        for tensor in header.tensors
    }


@pytest.mark.parametrize("model_type", sorted(NAMED_DRAFT | {"glm4_moe"}))
def test_the_experts_that_draft_tokens_are_pruned_too(
    model_type: str, converted: dict[str, tuple[Path, Path, DropMap]]
) -> None:
    header = read_header(converted[model_type][1])
    drafts = draft_layers_of_gguf(header.values)
    assert list(drafts) == [3]
    found = [tensor for tensor in header.tensors if "blk.3." in tensor.name and "_exps" in tensor.name]
    assert len(found) == 3 and all(tensor.shape[-1] == 7 for tensor in found)


@pytest.mark.parametrize("model_type", CONVERTED)
def test_the_outline_before_conversion_is_what_the_converter_writes(
    model_type: str, converted: dict[str, tuple[Path, Path, DropMap]]
) -> None:
    whole = converted[model_type][0]
    told = outline(open_reference(whole.with_suffix("")))
    written = read_header(whole)
    assert {one.name: one.shape for one in told.tensors} == {one.name: one.shape for one in written.tensors}
    assert shape_of_gguf(told.values) == shape_of_gguf(written.values)
