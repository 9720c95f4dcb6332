"""Wherever the layers of a model lie, and however its weights are kept, the same is observed."""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.contributions.analyze import analyze, estimate
from studio.contributions.collector import collect
from studio.contributions.energies import Energies
from studio.contributions.four_bit import pack_experts, packed_bytes
from studio.contributions.model import SUMS
from studio.contributions.modules import input_device
from studio.contributions.observer import observing
from studio.contributions.prompts import Prompt
from studio.errors import InputError, UnsupportedError
from studio.families import shape_of_config
from tests.contributions.slow import sums_of_question
from tests.contributions.tiny import tiny_config, tiny_model, tiny_tokenizer
from tests.families.tiny_models import save

PROMPTS = [
    Prompt(str(number), "a", ({"role": "user", "content": "word " * number},), "yes" if number % 2 else None)
    for number in range(1, 6)
]
SCATTERED = {
    "model.embed_tokens": "cpu",
    "lm_head": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.layers.3": "cpu",
}
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model(layers=4).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def collected(model):
    """Sums `[6, Q, L, E]`, and energies."""
    energies = Energies()
    shape = shape_of_config(model.config.to_dict())
    found = collect(model, tiny_tokenizer(), PROMPTS, shape=shape, continuation_tokens=4, energies=energies)
    return np.stack([found.sum(name) for name in SUMS]), energies


@pytest.mark.parametrize("device_map", ["auto", SCATTERED, {"model": "disk", "lm_head": "disk"}])
def test_layers_on_the_disk_are_observed_as_those_in_memory(folder, tmp_path, device_map):
    together = AutoModelForCausalLM.from_pretrained(folder).eval()
    apart = AutoModelForCausalLM.from_pretrained(folder, device_map=device_map, offload_folder=tmp_path).eval()
    (sums, energies), (expected, expected_energies) = collected(apart), collected(together)
    np.testing.assert_array_equal(sums, expected)
    assert energies.sums.keys() == expected_energies.sums.keys()
    for name, values in expected_energies.sums.items():
        np.testing.assert_array_equal(energies.sums[name], values)
    assert input_device(apart) == torch.device("cpu")


def wide_model(**sizes):
    """With experts of whole blocks."""
    return tiny_model(dtype="bfloat16", layers=2, hidden=64, expert_size=64, **sizes)


@needs_bitsandbytes
def test_experts_in_four_bits_are_observed_as_what_they_are_when_they_are_read():
    model = wide_model()
    shape = shape_of_config(model.config.to_dict())
    before, whole = model.get_memory_footprint(), model.model.layers[0].experts.gate_up_proj.clone()
    foretold = packed_bytes(model, shape)
    pack_experts(model, shape, torch.device("cpu"))
    assert model.get_memory_footprint() < foretold < before
    error = (model.model.layers[0].experts.gate_up_proj - whole).float().norm() / whole.float().norm()
    assert 0.05 < error < 0.12, "four bits"
    prompts = [prompt for prompt in PROMPTS if prompt.answer]
    found = collect(model, tiny_tokenizer(), prompts, shape=shape)
    from studio.contributions.sequences import tokenize

    tokens = [list(tokenize(tiny_tokenizer(), prompt, max_tokens=100).tokens) for prompt in prompts]
    slow = np.stack([sums_of_question(model, one) for one in tokens], axis=1)
    sums = np.stack([found.sum(name) for name in SUMS])
    np.testing.assert_allclose(sums.sum((1, 3)), slow.sum((1, 3)), rtol=0.03)
    assert (sums[0].sum(-1) == slow[0].sum(-1)).all()


@needs_bitsandbytes
def test_a_model_that_bitsandbytes_loads_in_four_bits_is_observed(tmp_path):
    from transformers import BitsAndBytesConfig

    wide_model().save_pretrained(tmp_path)
    loose = ["router.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "lm_head"]  # no 32 rows, or no 64 columns
    asked = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=loose)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=asked, dtype=torch.bfloat16).eval()
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    sums, energies = collected(model)
    assert (sums[0].sum(-1) > 0).all()
    assert energies.counts["layers.1.self_attn.q_proj"] == sums[0].sum() / 3 / 2
    assert energies.counts["layers.1.experts.down_proj"].sum() == sums[0].sum() / 2


@needs_bitsandbytes
def test_the_verb_packs_the_experts_and_says_so(tmp_path):
    folder = tmp_path / "wide"
    wide_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (tmp_path / "p.jsonl").write_text(json.dumps({"class": "a", "prompt": "2?", "answer": "2"}) + "\n")
    made = analyze(folder, tmp_path / "p.jsonl", tmp_path / "c.safetensors", dtype="nf4")
    assert "experts in NF4" in made.source
    whole = analyze(folder, tmp_path / "p.jsonl", tmp_path / "d.safetensors")
    assert not np.array_equal(made.sum("norm"), whole.sum("norm"))


@needs_bitsandbytes
def test_experts_that_do_not_fill_blocks_are_refused():
    model = tiny_model(layers=2)
    with pytest.raises(InputError, match="weights of 48 columns"):
        pack_experts(model, shape_of_config(model.config.to_dict()), torch.device("cpu"))


def test_a_dtype_that_the_model_cannot_be_loaded_in_is_refused_before_its_weights_are_read(tmp_path, monkeypatch):
    folder = save(tiny_model(layers=2), tmp_path / "narrow")
    tiny_tokenizer().save_pretrained(folder)
    (tmp_path / "p.jsonl").write_text(json.dumps({"class": "a", "prompt": "2?", "answer": "2"}) + "\n")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    installed = types.ModuleType("bitsandbytes")
    installed.__spec__ = importlib.util.spec_from_loader("bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", installed)
    for dtype, words in (("int8", "'int8' is nothing"), ("nn", "'nn' is nothing"), ("nf4", "weights of 48 columns")):
        with pytest.raises(InputError, match=words):
            analyze(folder, tmp_path / "p.jsonl", tmp_path / "c.safetensors", dtype=dtype)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        estimate(folder, tmp_path / "p.jsonl", dtype="nf4")


def test_experts_in_eight_bits_are_refused_by_name():
    from transformers.integrations.finegrained_fp8 import FP8Experts

    model = tiny_model(layers=2)
    shape = shape_of_config(model.config.to_dict())
    config = tiny_config(layers=2)
    model.model.layers[1].experts = FP8Experts(config, block_size=(8, 8))
    refused = r"layer 1 are FP8Experts, with gate_up_proj as torch.float8_e4m3fn"
    with pytest.raises(UnsupportedError, match=refused), observing(model, shape):
        pass
