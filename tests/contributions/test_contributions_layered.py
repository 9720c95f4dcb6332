"""Layer by layer gives what the whole model gives, with less memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio.contributions.collector import collect
from studio.contributions.energies import Energies
from studio.contributions.layered import collect_layered
from studio.contributions.layered_model import LayeredModel
from studio.contributions.model import SUMS, Contributions
from studio.contributions.prompts import Prompt
from studio.errors import InputError, UnsupportedError
from studio.families import shape_of_config
from tests.contributions.tiny import tiny_config, tiny_model
from tests.families.tiny_models import CONFIGS, save, tiny


def ask(text: str, answer: str | None = "Yes, indeed.", klass: str = "talk") -> Prompt:
    return Prompt(f"{klass}: {text}", klass, ({"role": "user", "content": text},), answer)


QUESTIONS = [ask("Is it?"), ask("Tell me about trees on walls.", klass="garden"), ask("x", answer="y"), ask("And why?")]
BATCH_TOKENS = 140  # several batches, one of them padded


def all_sums(contributions: Contributions) -> Any:
    return np.stack([contributions.sum(name) for name in SUMS])


def whole(
    folder: Path, tokenizer: Any, dtype: torch.dtype = torch.float32, energies: Energies | None = None
) -> Contributions:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    shape = shape_of_config(model.config.to_dict())
    return collect(
        model, tokenizer, QUESTIONS, shape=shape, batch_tokens=BATCH_TOKENS, model_name=folder.name, energies=energies
    )


def layered(folder: Path, tokenizer: Any, dtype: torch.dtype = torch.float32, **options: Any) -> Contributions:
    model = LayeredModel(folder, dtype)
    shape = shape_of_config(model.model.config.to_dict())
    return collect_layered(model, tokenizer, QUESTIONS, shape=shape, batch_tokens=BATCH_TOKENS, **options)


def assert_equal_energies(found: Energies, expected: Energies) -> None:
    """Of every weight in a layer, with no bit of difference."""
    in_layers = {name for name in expected.to_arrays() if name.startswith("layers.")}
    assert found.to_arrays().keys() == in_layers
    for name, values in found.to_arrays().items():
        np.testing.assert_array_equal(values, expected.to_arrays()[name], err_msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 4 on disk."""
    return save(tiny_model(), tmp_path_factory.mktemp("layered") / "gemma4")


@pytest.mark.parametrize("fused", [False, True], ids=["hub", "fused"])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_gives_the_sums_of_the_whole_model(family: str, fused: bool, tokenizer, tmp_path: Path) -> None:
    model = tiny(family)
    model.resize_token_embeddings(300)
    path = save(model, tmp_path / "model", fused=fused, shards="40KB")
    energies, expected_energies = Energies(), Energies()
    expected, found = whole(path, tokenizer, energies=expected_energies), layered(path, tokenizer, energies=energies)
    assert_equal_energies(energies, expected_energies)
    np.testing.assert_allclose(all_sums(found), all_sums(expected), rtol=1e-4, atol=1e-12)
    assert found.questions == expected.questions
    assert found.source == expected.source
    assert found.content_hash == expected.content_hash, "on one machine not a bit differs"


def test_a_bf16_model_gives_the_sums_of_the_whole_model(tokenizer, tmp_path: Path) -> None:
    path = save(tiny_model(dtype="bfloat16"), tmp_path / "model")
    expected = all_sums(whole(path, tokenizer, torch.bfloat16))
    np.testing.assert_allclose(all_sums(layered(path, tokenizer, torch.bfloat16)), expected, rtol=1e-4)
    assert LayeredModel(path).model.dtype == torch.bfloat16, "that of the checkpoint"


def test_the_language_model_of_a_multimodal_checkpoint_is_observed(tokenizer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, Gemma4Config

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
    config = Gemma4Config(text_config=tiny_config(layers=2).to_dict(), vision_config=vision, audio_config=None)
    torch.manual_seed(0)
    path = save(AutoModelForCausalLM.from_config(config), tmp_path / "model")
    np.testing.assert_allclose(all_sums(layered(path, tokenizer)), all_sums(whole(path, tokenizer)), rtol=1e-4)


def test_only_one_layer_has_weights_at_a_time(folder: Path) -> None:
    model = LayeredModel(folder)
    for index, layer in enumerate(model.layers):
        with model.layer(index):
            assert not any(weights.is_meta for weights in layer.parameters())
            others = [other for other in model.layers if other is not layer]
            assert all(weights.is_meta for other in others for weights in other.parameters())
        assert all(weights.is_meta for weights in layer.parameters())
    assert model.model.lm_head.weight.is_meta


@pytest.mark.parametrize("hidden_bytes", [0, 10_000, None])
def test_hidden_states_on_disk_change_nothing_and_leave_only_what_was_observed(
    folder: Path, tokenizer, tmp_path: Path, hidden_bytes: int | None
) -> None:
    found = layered(folder, tokenizer, checkpoint=tmp_path, hidden_bytes=hidden_bytes)
    assert found.content_hash == layered(folder, tokenizer).content_hash
    assert not list(tmp_path.glob("hidden-*"))


class Interrupted(Exception):
    pass


def interrupt_after(steps: int):
    def progress(done: int, total: int, unit: str = "", message: str = "") -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise Interrupted

    return progress


@pytest.mark.parametrize("steps", [1, 2, 4, 9, 11])
def test_an_interrupted_pass_goes_on_after_the_last_finished_layer(
    folder: Path, tokenizer, tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    energies, expected_energies = Energies(), Energies()
    expected = layered(folder, tokenizer, energies=expected_energies)
    with pytest.raises(Interrupted):
        layered(folder, tokenizer, checkpoint=tmp_path, progress=interrupt_after(steps), energies=Energies())
    finished = len(list(tmp_path.glob("layer-*")))
    read: list[int] = []
    load = LayeredModel.layer
    monkeypatch.setattr(LayeredModel, "layer", lambda self, index: read.append(index) or load(self, index))
    found = layered(folder, tokenizer, checkpoint=tmp_path, energies=energies)
    assert found.content_hash == expected.content_hash
    assert read == list(range(finished, 6))
    assert_equal_energies(energies, expected_energies)


def test_energies_are_not_taken_from_a_pass_that_did_not_measure_them(folder: Path, tokenizer, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        layered(folder, tokenizer, checkpoint=tmp_path, progress=interrupt_after(9))
    energies, expected = Energies(), Energies()
    layered(folder, tokenizer, checkpoint=tmp_path, energies=energies)
    layered(folder, tokenizer, energies=expected)
    assert_equal_energies(energies, expected)


def test_a_token_that_is_not_finite_has_no_energy_layer_by_layer_either(tokenizer, tmp_path: Path) -> None:
    model = tiny_model(layers=2)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.encode("x", add_special_tokens=False)[0]] = float("inf")
        model.model.layers[1].experts.gate_up_proj[4] = 1e25
    path = save(model, tmp_path / "model")
    energies, expected = Energies(), Energies()
    assert whole(path, tokenizer, energies=expected).questions == layered(path, tokenizer, energies=energies).questions
    assert len({int(count.sum()) for count in expected.counts.values()}) > 2
    for name, counts in energies.counts.items():
        np.testing.assert_array_equal(counts, expected.counts[name])
        np.testing.assert_allclose(energies.sums[name], expected.sums[name], rtol=1e-4)


def test_damaged_hidden_states_are_not_believed(folder: Path, tokenizer, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        layered(folder, tokenizer, checkpoint=tmp_path, progress=interrupt_after(9))
    for piece in tmp_path.glob("hidden-*"):
        piece.write_bytes(piece.read_bytes()[:-1] + b"?")
    assert layered(folder, tokenizer, checkpoint=tmp_path).content_hash == layered(folder, tokenizer).content_hash


def test_prompts_without_an_answer_are_refused_or_observed_alone(folder: Path, tokenizer, model, shape) -> None:
    prompts = [ask("a"), ask("b", answer=None), ask("c", answer=None)]
    from_disk = LayeredModel(folder)
    with pytest.raises(InputError, match=r"2 of 3 prompts have no answer.*continuation of 0"):
        collect_layered(from_disk, tokenizer, prompts, shape=shape)
    found = collect_layered(from_disk, tokenizer, prompts, shape=shape, continuation_tokens=0)
    expected = collect(model, tokenizer, prompts, shape=shape, continuation_tokens=0)
    np.testing.assert_allclose(all_sums(found), all_sums(expected), rtol=1e-4)


def test_a_checkpoint_that_lacks_a_tensor_or_has_one_of_another_shape_is_refused_by_name(folder, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.3.self_attn.q_proj.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, broken / "model.safetensors")
    with pytest.raises(InputError, match=r"layers\.3\.self_attn\.q_proj"), LayeredModel(broken).layer(3):
        pass
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, broken / "model.safetensors")
    with pytest.raises(InputError, match=r"layers\.3\.self_attn\.q_proj"), LayeredModel(broken).layer(3):
        pass
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="download complete"):
        LayeredModel(broken)


def test_quantized_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    from studio.checkpoints.model_folder import read_json_object

    config, _ = read_json_object(folder / "config.json")
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="stored quantized"):
        LayeredModel(tmp_path)
