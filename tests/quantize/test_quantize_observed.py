"""The importance matrix of an analysis is what llama-imatrix measures on the same tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.checkpoints.convert import convert_to_gguf, converter
from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.reference import open_reference
from studio.cli.app import main
from studio.contributions.analyze import analyze
from studio.contributions.checkpoint import Checkpoint
from studio.contributions.collector import _observe
from studio.contributions.energies import Energies
from studio.contributions.observer import observing, question_of_token
from studio.contributions.sequences import TokenSequence
from studio.errors import OutputExistsError, UnsupportedError
from studio.families import GEMMA4, shape_of_config
from studio.progress import Tally, silent
from studio.quantize.imatrix_file import read_imatrix
from studio.quantize.imatrix_observed import _Names, _tiled, imatrix_of, imatrix_writer
from tests.contributions.tiny import tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "data" / "llama_imatrix.npz"
EVERY = 16


def measured(model, sequences, batches):
    """The energies of token sequences, in these batches."""
    shape = shape_of_config(model.config.to_dict())
    energies = Energies()
    asked = [TokenSequence(tuple(tokens), False, False) for tokens in sequences]
    with torch.inference_mode():
        _observe(
            model, asked, shape, batches=batches, pad_token=0, tally=Tally(silent, len(asked)),
            checkpoint=Checkpoint(), energies=energies,
        )  # fmt: skip
    return energies


class TabledGelu(torch.nn.Module):
    """As ggml has it on a CPU: looked up in a table of halves, with a half."""

    def forward(self, x):
        looked_up = torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, 0.0, torch.where(x >= 10, x, looked_up))


@pytest.mark.parametrize("tabled", [False, True])
def test_llama_imatrix_measures_the_same_on_the_same_tokens(tabled):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(ROOT / "assets" / "demo-model", dtype=torch.float32).eval()
    if tabled:
        for layer in model.model.layers:
            layer.mlp.act_fn = layer.experts.act_fn = TabledGelu()
    recorded = np.load(RECORDED)
    tokens = recorded["tokens"].tolist()
    energies = measured(model, tokens, [[0, 1, 2], [3, 4, 5], [6, 7]])
    imatrix, left_out = imatrix_of(energies, model.config.to_dict(), "text", chunk_size=len(tokens[0]))
    assert left_out == ()
    assert imatrix.chunk_count == len(tokens)
    assert {f"{name}.sums" for name in imatrix.entries} == {name for name in recorded.files if name.endswith(".sums")}
    largest, counts_off = {}, 0
    for name, entry in imatrix.entries.items():
        theirs, counts = recorded[f"{name}.sums"], recorded[f"{name}.counts"]
        counts_off += np.abs(entry.counts - counts).sum()
        alike = entry.counts == counts
        difference = np.abs(entry.sums[:, ::EVERY] - theirs)[alike] / np.maximum(theirs[alike], 1e-30)
        kind = name.split(".", 2)[2]
        largest[kind] = max(largest.get(kind, 0.0), difference[theirs[alike] > 0].max())
    # What is left with the same activation is the order of additions; a column of a few tiny neurons differs most.
    neurons = {"ffn_down.weight", "ffn_down_exps.weight"}
    assert counts_off <= (0 if tabled else 6), "a token whose fourth and fifth expert are as good as equal"
    assert max(largest[kind] for kind in largest.keys() - neurons) < (3e-5 if tabled else 3e-4)
    assert max(largest[kind] for kind in neurons) < (1e-3 if tabled else 5e-3)


def slow_energies(model, sequences):
    """Σ x² and tokens, by weight: one question at a time, in fp64, from the inputs that modules were called with."""
    sums, counts = {}, {}

    def add(name, matrix, rows, matrices):
        rows = rows[torch.isfinite(rows.float().square().sum(-1))]
        total = sums.setdefault(name, np.zeros((matrices, rows.shape[-1])))
        total[matrix] += (rows.double() ** 2).sum(0).numpy()
        counts.setdefault(name, np.zeros(matrices, dtype=int))[matrix] += len(rows)

    def experts(name, module, states, chosen):
        for expert in range(module.num_experts):
            rows = states[(chosen == expert).any(-1)]
            gate, up = (rows.double() @ module.gate_up_proj[expert].double().T).chunk(2, dim=-1)
            add(f"{name}.gate_up_proj", expert, rows, module.num_experts)
            neurons = torch.nn.functional.gelu(gate, approximate="tanh") * up
            add(f"{name}.down_proj", expert, neurons, module.num_experts)

    hooks = []
    for name, module in model.get_decoder().named_modules():
        if isinstance(module, torch.nn.Linear):
            see = lambda _, given, name=name: add(name, 0, given[0].reshape(-1, given[0].shape[-1]), 1)  # noqa: E731
            hooks.append(module.register_forward_pre_hook(see))
        elif name.endswith(".experts"):
            hooks.append(
                module.register_forward_pre_hook(lambda m, given, name=name: experts(name, m, given[0], given[1]))
            )
    with torch.inference_mode():
        for tokens in sequences:
            model(input_ids=torch.tensor([tokens]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return sums, counts


SEQUENCES = [[2, 10, 11, 12, 13, 14], [2, *range(20, 60)], [2, 5], [2, *range(100, 130)]]


@pytest.mark.parametrize("batches", [[[0], [1], [2], [3]], [[1, 0, 2, 3]], [[1], [3, 0, 2]]])
def test_energies_are_those_of_a_slow_recomputation_and_padding_is_not_in_them(batches):
    model = tiny_model()
    energies = measured(model, SEQUENCES, batches)
    sums, counts = slow_energies(model, SEQUENCES)
    assert energies.sums.keys() == sums.keys()
    for name, expected in sums.items():
        np.testing.assert_array_equal(energies.counts[name], counts[name])
        np.testing.assert_allclose(energies.sums[name], expected, rtol=2e-5)


def test_a_bf16_model_is_measured_in_fp32():
    model = tiny_model(dtype="bfloat16", layers=2)
    energies = measured(model, SEQUENCES, [[1, 0, 2, 3]])
    sums, counts = slow_energies(model, SEQUENCES)
    first = [name for name in sums if name.startswith("layers.0.self_attn.q")]
    for name in first:  # its input depends on no batch
        np.testing.assert_allclose(energies.sums[name], sums[name], rtol=1e-6)
    assert all((energies.counts[name].sum() == counts[name].sum()) for name in sums)


def test_a_token_that_is_not_finite_is_left_out_and_no_other():
    model = tiny_model(layers=2)
    with torch.no_grad():
        model.model.embed_tokens.weight[5] = float("inf")
        model.model.layers[1].experts.gate_up_proj[4] = 1e25
    sums, counts = slow_energies(model, SEQUENCES)
    energies = measured(model, SEQUENCES, [[1, 0, 2, 3]])
    assert len({int(count.sum()) for count in counts.values()}) > 3, "it depends on the layer, and on the expert"
    for name, expected in sums.items():
        np.testing.assert_array_equal(energies.counts[name], counts[name])
        np.testing.assert_allclose(energies.sums[name], expected, rtol=2e-5)


def test_what_does_not_see_tokens_and_what_is_only_observed_leave_no_hook():
    model = tiny_model(layers=2)
    shape = shape_of_config(model.config.to_dict())
    with observing(model, shape, energies=True) as observer, torch.inference_mode():
        observer.expect(question_of_token([3], 3, torch.device("cpu")), 1)
        model(input_ids=torch.tensor([[2, 7, 8]]), use_cache=False)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with observing(model, shape) as observer:
        assert observer.meter is None
        assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma4"
    tiny_model(dtype="bfloat16", layers=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(f'{{"class": "a", "prompt": "{n}?", "answer": "{"so " * 90 * n}"}}\n' for n in (1, 2, 5, 10, 11, 12))
        + "".join(f'{{"class": "b", "prompt": "{n}?"}}\n' for n in range(4))
    )
    return path


def test_the_verb_writes_an_entry_for_every_weight_that_is_quantized(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"class": "a", "prompt": "What is 2 + 2?"}\n')
    out, imatrix = tmp_path / "c.safetensors", tmp_path / "i.gguf"
    demo = str(ROOT / "assets" / "demo-model")
    arguments = ["analyze", demo, "--prompts", str(prompts), "--out", str(out), "--continuation", "2"]
    assert main([*arguments, "--imatrix", str(imatrix)]) == 0
    gguf = convert_to_gguf(Path(demo), tmp_path / "demo.gguf")
    shapes = {tensor.name: tensor.shape for tensor in read_header(gguf).tensors if len(tensor.shape) > 1}
    written = read_imatrix(imatrix)
    assert written.matched(shapes).left_out == 0
    assert shapes.keys() - written.entries.keys() == {"token_embd.weight"}
    assert written.datasets == ("prompts.jsonl",)
    assert main([*arguments, "--imatrix", str(imatrix)]) != 0, "it is there already"


def test_an_interrupted_analysis_makes_the_same_importance_matrix(folder, prompts, tmp_path):
    config = open_reference(folder).config

    def run(name, progress=silent):
        use = imatrix_writer(config, "text", tmp_path / f"{name}.gguf")
        analyze(
            folder, prompts, tmp_path / f"{name}.safetensors", continuation_tokens=2, use_energies=use,
            progress=progress,
        )  # fmt: skip
        return (tmp_path / f"{name}.gguf").read_bytes(), (tmp_path / f"{name}.safetensors").read_bytes()

    whole = run("whole")
    moments = []
    run("counted", lambda *given: moments.append(given))
    for moment in range(6, len(moments) + 1, 2):

        def stop(*given, calls=[]):  # noqa: B006
            calls.append(given)
            if len(calls) == moment:  # noqa: B023
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(f"stopped-{moment}", stop)
        assert run(f"stopped-{moment}") == whole


def test_names_are_those_of_the_converter():
    def names(architecture, weight):
        return list(_Names(replace(GEMMA4, gguf_architecture=architecture), 4).of(weight))

    assert names("gemma4", "layers.1.experts.gate_up_proj") == ["blk.1.ffn_gate_up_exps.weight"]
    assert names("qwen3moe", "layers.1.mlp.experts.gate_up_proj") == [
        "blk.1.ffn_gate_exps.weight",
        "blk.1.ffn_up_exps.weight",
    ]
    assert names("nemotron_h_moe", "layers.1.mixer.experts.up_proj") == ["blk.1.ffn_up_exps.weight"]
    assert names("qwen3moe", "layers.1.mlp.gate") == ["blk.1.ffn_gate_inp.weight"]
    assert names("deepseek2", "layers.1.self_attn.kv_b_proj") == [], "llama.cpp cuts it up"
    assert names("deepseek2", "layers.3.mlp.shared_experts.down_proj") == ["blk.3.ffn_down_shexp.weight"]
    assert names("qwen3moe", "layers.1.something_new") == []
    with pytest.raises(UnsupportedError, match="gpt-9"):
        names("gpt-9", "layers.1.mlp.gate")


ITS_OWN_ORDER = """
import torch
from conversion.qwen import _LinearAttentionVReorderBase as converter
print(converter._reorder_v_heads(torch.arange(60).reshape(1, 60), 1, 3, 4, 5).flatten().tolist())
"""


def test_columns_that_the_converter_reorders_are_reordered_in_the_same_way():
    llama = converter().parent
    said = subprocess.run(
        [sys.executable, "-c", ITS_OWN_ORDER], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{llama / 'gguf-py'}:{llama}"},
    ).stdout  # fmt: skip
    text = {"linear_num_key_heads": 3, "linear_num_value_heads": 12, "linear_value_head_dim": 5}
    ours = _tiled(np.arange(60, dtype=np.float32).reshape(1, 60), text)
    assert ours[0].astype(int).tolist() == json.loads(said)


def test_an_importance_matrix_that_is_there_is_said_before_the_weights_are_read(tmp_path):
    (tmp_path / "i.gguf").write_text("mine")
    with pytest.raises(OutputExistsError):
        imatrix_writer({"model_type": "gemma4_text"}, "text", tmp_path / "i.gguf")
