"""How a pass is made: the simplest way that fits, with what the checkpoint's headers say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from studio.contributions.measuring import work_of
from studio.contributions.preflight import GIB, Machine, Work, preflight
from studio.contributions.stored_tensors import stored_tensors
from studio.errors import InputError, ResourceError
from studio.families import shape_of_config
from tests.families.tiny_models import CONFIGS, NAMED_DRAFT, NUMBERED_DRAFT, add_draft, save, tiny

WORK = Work(
    weights=52 * GIB, layer_weights=50 * GIB, largest_layer=2 * GIB, embeddings=GIB, layers=30, active=4_000_000_000,
    hidden_size=2816, expert_size=704, top_k=8, bytes_per_value=2, tokens=60_000, longest=4096, questions=200,
    unanswered=0, new_tokens=128,
)  # fmt: skip
MACHINE = Machine(ram=128 * GIB, gpu=None, disk_rate=1e9, flops=5e11, gpu_flops=1e14)


@pytest.mark.parametrize(
    ("ram", "gpu", "chosen"),
    [
        (128, None, ("whole", "cpu")),
        (128, 80, ("whole", "cuda")),
        (64, 24, ("offloaded", "auto")),
        (16, None, ("layered", "cpu")),
        (16, 24, ("layered", "cuda")),
    ],
)
def test_the_simplest_way_that_fits_is_chosen(ram: int, gpu: int | None, chosen: tuple[str, str]) -> None:
    found = preflight(WORK, replace(MACHINE, ram=ram * GIB, gpu=None if gpu is None else gpu * GIB)).choose()
    assert (found.mode, found.device) == chosen
    assert found.possible and found.ram < ram * GIB and found.gpu < (gpu or 1) * GIB


def test_a_model_larger_than_memory_cannot_answer_and_says_so() -> None:
    small = preflight(replace(WORK, unanswered=3), replace(MACHINE, ram=16 * GIB))
    with pytest.raises(ResourceError, match=r"cannot answer the 3 of 200 prompts.*continuation of 0"):
        small.choose()
    assert small.choose("layered").mode == "layered", "who asks for it may try"


def test_a_way_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"offloaded: there is no GPU.*whole, layered"):
        preflight(WORK, MACHINE).choose("offloaded")
    packed = preflight(replace(WORK, weights=15 * GIB, unpacked=52 * GIB), replace(MACHINE, gpu=24 * GIB))
    assert packed.choose().device == "cuda", "four bits fit where the weights would not"
    with pytest.raises(InputError, match="layered: its experts are packed"):
        packed.choose("layered")


@pytest.mark.parametrize("fused", [False, True], ids=["hub", "fused"])
@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_headers_tell_what_the_model_weighs_and_how_much_of_it_a_token_meets(
    model_type: str, fused: bool, tmp_path: Path
) -> None:
    model = tiny(model_type)
    folder = save(model, tmp_path / "m", fused=fused)
    if model_type in NAMED_DRAFT | NUMBERED_DRAFT and not fused:
        add_draft(folder, model_type)
    config = json.loads((folder / "config.json").read_text())
    shape = shape_of_config(config)
    work = work_of(stored_tensors(folder), config, [5, 9])
    assert work.weights == pytest.approx(sum(4 * values.numel() for values in model.parameters()), rel=0.01)
    layers = model.get_decoder().layers
    sizes = [sum(4 * values.numel() for values in layer.parameters()) for layer in layers]
    assert work.largest_layer == pytest.approx(max(sizes), rel=0.01)
    of_experts = sum(
        values.numel() for name, values in layers.named_parameters() if ".experts." in name and values.ndim == 3
    )
    rest = sum(sizes) // 4 - of_experts
    assert work.active == pytest.approx(rest + of_experts * shape.top_k / shape.experts, rel=0.01)
    assert (work.tokens, work.longest, work.bytes_per_value) == (14, 9, 4)
