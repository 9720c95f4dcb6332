"""Which way a pass is made, by the numbers; and that the numbers are those of the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.contributions.analyze import analyze, estimate
from studio.contributions.file import load
from studio.contributions.measuring import work_of
from studio.contributions.model import SUMS
from studio.contributions.preflight import Machine, Work, describe, duration, preflight
from studio.contributions.stored_tensors import stored_tensors
from studio.errors import InputError, ResourceError
from studio.units import GIB
from tests.contributions.tiny import tiny_model
from tests.families.tiny_models import CONFIGS, save, tiny

GEMMA4_26B = Work(
    weights=52 * GIB,
    layer_weights=50 * GIB,
    largest_layer=5 * GIB // 3,
    embeddings=3 * GIB // 2,
    layers=30,
    active=3_800_000_000,
    hidden_size=2816,
    expert_size=704,
    top_k=8,
    bytes_per_value=2,
    tokens=200_000,
    longest=2_000,
    questions=400,
    unanswered=0,
    new_tokens=128,
)
CPU = Machine(ram=128 * GIB, gpu=None, disk_rate=2e9, flops=2e11)
LARGE_GPU = replace(CPU, gpu=78 * GIB, gpu_flops=1e14)


def chosen(work: Work, machine: Machine) -> tuple[str, str]:
    found = preflight(work, machine).choose()
    return found.mode, found.device


@pytest.mark.parametrize(
    ("machine", "way"),
    [
        (CPU, ("whole", "cpu")),
        (replace(CPU, ram=32 * GIB), ("layered", "cpu")),
        (LARGE_GPU, ("whole", "cuda")),
        (replace(LARGE_GPU, ram=16 * GIB), ("whole", "cuda")),
        (replace(LARGE_GPU, gpu=36 * GIB), ("offloaded", "auto")),
        (replace(LARGE_GPU, gpu=24 * GIB, ram=24 * GIB), ("layered", "cuda")),
        (replace(LARGE_GPU, gpu=2 * GIB, ram=24 * GIB), ("layered", "cpu")),
    ],
)
def test_the_simplest_way_that_fits_is_chosen_unless_another_is_much_faster(
    machine: Machine, way: tuple[str, str]
) -> None:
    assert chosen(GEMMA4_26B, machine) == way


def test_layer_by_layer_on_a_gpu_wins_where_the_cpu_would_take_much_longer() -> None:
    few_bytes_of_disk = replace(LARGE_GPU, gpu=8 * GIB)
    whole, *_ = [way for way in preflight(GEMMA4_26B, few_bytes_of_disk).estimates if way.device == "cpu"]
    assert whole.possible
    assert chosen(GEMMA4_26B, few_bytes_of_disk) in (("layered", "cuda"), ("offloaded", "auto"))


def test_where_nothing_fits_the_reasons_are_given() -> None:
    found = preflight(GEMMA4_26B, replace(CPU, ram=2 * GIB))
    with pytest.raises(ResourceError, match=r"does not fit in main memory.*One layer at a time takes about 3\.3 GiB"):
        found.choose()
    assert found.choose("whole").mode == "whole", "a person may know better"
    assert found.fields(None)["chosen"] is None


def test_prompts_without_an_answer_keep_a_model_from_being_read_layer_by_layer() -> None:
    asked = replace(GEMMA4_26B, unanswered=7)
    with pytest.raises(ResourceError, match=r"cannot answer the 7 of 400 prompts.*a continuation of 0 tokens"):
        preflight(asked, replace(CPU, ram=32 * GIB)).choose()


def test_a_checkpoint_that_is_stored_quantized_is_not_read_layer_by_layer() -> None:
    small = replace(CPU, ram=32 * GIB)
    with pytest.raises(ResourceError, match="not stored quantized"):
        preflight(replace(GEMMA4_26B, quantized=True), small).choose()
    assert chosen(GEMMA4_26B, small) == ("layered", "cpu")


def test_offloading_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="cannot be observed offloaded"):
        preflight(GEMMA4_26B, CPU).choose("offloaded")


def test_an_estimate_reads_as_one() -> None:
    found = preflight(GEMMA4_26B, replace(LARGE_GPU, gpu=36 * GIB))
    text = describe(found.estimates, found.choose())
    assert text.startswith("Estimated")
    assert text.count("→") == 1
    assert "→ offloaded on GPU and CPU: about" in text
    assert json.loads(json.dumps(found.fields(found.choose())))["chosen"]["mode"] == "offloaded"
    assert [duration(seconds) for seconds in (0.04, 40, 600, 90_000)] == ["0.0 s", "40 s", "10.0 min", "25.0 h"]


@pytest.mark.parametrize("fused", [False, True], ids=["hub", "fused"])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_sizes_and_active_parameters_are_those_of_the_model(family: str, fused: bool, tmp_path: Path) -> None:
    model = tiny(family)
    path = save(model, tmp_path / "model", fused=fused, shards="40KB")
    work = work_of(stored_tensors(path), json.loads((path / "config.json").read_text()), [20, 30])
    layers = [sum(tensor.nbytes for tensor in layer.state_dict().values()) for layer in model.get_decoder().layers]
    assert work.layer_weights == sum(layers)
    assert work.largest_layer == max(layers)
    assert work.embeddings == model.get_input_embeddings().weight.nbytes
    assert work.weights == sum(tensor.nbytes for tensor in model.state_dict().values())
    active = 0.0
    for layer in model.get_decoder().layers:
        for name, tensor in layer.state_dict().items():
            experts = ".experts." in f".{name}" and tensor.ndim > 2
            active += tensor.numel() * (model.config.num_experts_per_tok / 12 if experts else 1)
    expected = active if not hasattr(model.config, "top_k_experts") else work.active
    assert work.active == pytest.approx(expected, rel=0.02)
    assert (work.tokens, work.longest, work.bytes_per_value) == (50, 30, 4)


def test_a_dtype_of_half_the_size_halves_the_weights(tmp_path: Path) -> None:
    path = save(tiny_model(), tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    stored, halved = (work_of(stored_tensors(path), config, [9], value_bytes=size) for size in (None, 2))
    assert halved.weights * 2 == stored.weights


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.contributions.tiny import tiny_tokenizer

    folder = save(tiny_model(), tmp_path_factory.mktemp("preflight") / "tiny")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {"class": "talk", "prompt": f"question {number}", "answer": "yes, of course", **more}


def sums_at(path: Path) -> Any:
    found = load(path)
    return np.stack([found.sum(name) for name in SUMS])


def test_an_analysis_layer_by_layer_is_the_whole_one(model_dir: Path, prompt_file: Any, tmp_path: Path) -> None:
    prompts = prompt_file(*(entry(number) for number in range(5)))
    whole = analyze(model_dir, prompts, tmp_path / "whole.safetensors", mode="whole")
    analyze(model_dir, prompts, tmp_path / "layered.safetensors", mode="layered")
    np.testing.assert_allclose(
        sums_at(tmp_path / "layered.safetensors"), sums_at(tmp_path / "whole.safetensors"), rtol=1e-4
    )
    assert load(tmp_path / "layered.safetensors").questions == whole.questions
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []


def test_what_layer_by_layer_cannot_do_is_refused_before_weights_are_read(
    model_dir: Path, prompt_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.contributions.layered_model import LayeredModel

    monkeypatch.setattr(LayeredModel, "__init__", lambda *_: pytest.fail("the model was opened"))
    open_prompts = prompt_file(entry(1), {"class": "talk", "prompt": "and now?"})
    with pytest.raises(InputError, match="1 of 2 prompts have no answer"):
        analyze(model_dir, open_prompts, tmp_path / "out.safetensors", mode="layered")


def test_the_estimate_of_a_folder_loads_nothing(
    model_dir: Path, prompt_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    found = estimate(model_dir, prompt_file(entry(1), {"class": "talk", "prompt": "and now?"}))
    assert found.choose().mode == "whole"
    assert (found.work.questions, found.work.unanswered, found.work.new_tokens) == (2, 1, 128)
    assert estimate(model_dir, prompt_file(entry(1)), continuation_tokens=0).work.unanswered == 0
    assert found.machine.flops > 1e6
    assert found.machine.disk_rate > 1e6
