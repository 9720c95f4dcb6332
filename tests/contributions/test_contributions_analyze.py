"""From a model folder to a contributions file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import Gemma4ForCausalLM

from studio.contributions.analyze import analyze
from studio.contributions.collector import collect
from studio.contributions.file import load
from studio.contributions.prompts import read_prompts
from studio.errors import FormatError, InputError, OutputExistsError, UnsupportedError
from tests.contributions.tiny import tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma4"
    tiny_model(dtype="bfloat16", layers=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(prompt_file):
    return prompt_file(
        {"class": "math", "prompt": "2 + 2?", "answer": "4"}, {"class": "code", "prompt": "print?", "answer": "print()"}
    )


def test_a_folder_is_analyzed_in_its_own_dtype_and_saved(model_folder, prompts, tmp_path):
    made = analyze(model_folder, prompts, tmp_path / "c.safetensors")
    assert load(tmp_path / "c.safetensors").content_hash == made.content_hash
    assert made.classes == ("math", "code")
    assert made.model == "tiny-gemma4"
    assert "bfloat16" in made.source
    assert (made.shape.layers, made.shape.experts, made.shape.top_k) == (2, 12, 3)
    loaded = Gemma4ForCausalLM.from_pretrained(model_folder)
    direct = collect(loaded, tiny_tokenizer(), read_prompts(prompts), shape=made.shape)
    np.testing.assert_allclose(made.sum("norm"), direct.sum("norm"), rtol=1e-6)


def test_two_runs_save_the_same_bytes(model_folder, prompts, tmp_path):
    analyze(model_folder, prompts, tmp_path / "a.safetensors")
    analyze(model_folder, prompts, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_another_dtype_can_be_asked_for(model_folder, prompts, tmp_path):
    assert "float32" in analyze(model_folder, prompts, tmp_path / "c.safetensors", dtype="float32").source
    with pytest.raises(InputError, match="'float7' is nothing that a model can be loaded in"):
        analyze(model_folder, prompts, tmp_path / "d.safetensors", dtype="float7")


def test_what_is_wrong_is_said_before_the_weights_are_read(model_folder, prompts, tmp_path):
    out = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match=r"holds no config\.json"):
        analyze(tmp_path, prompts, out)
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        analyze(folder, prompts, out)
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(UnsupportedError, match="'mamba'"):
        analyze(folder, prompts, out)
    (folder / "config.json").write_text((model_folder / "config.json").read_text())
    with pytest.raises(InputError, match=r"neither model\.safetensors nor"):
        analyze(folder, prompts, out)
    prompts.write_text("broken\n")
    with pytest.raises(FormatError, match="line 1"):
        analyze(model_folder, prompts, out)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        analyze(model_folder, prompts, out)


def test_damaged_weights_are_refused(model_folder, prompts, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = (model_folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(FormatError, match=r"damaged.model\.safetensors, header: .* not fully covered"):
        analyze(folder, prompts, tmp_path / "c.safetensors")


def test_nothing_here_imports_torch_until_a_model_runs():
    script = (
        "import sys, studio.contributions.analyze, studio.contributions.importers, studio.contributions.prompts\n"
        "import studio.evaluate.masking\n"
        "print(json.dumps([name for name in ('torch', 'transformers', 'gradio', 'plotly') if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import json\n" + script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
