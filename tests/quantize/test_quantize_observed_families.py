"""In every family the importance matrix has the columns of the tensors that llama.cpp's converter writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from studio.checkpoints.gguf_header import read_header
from studio.contributions.checkpoint import Checkpoint
from studio.contributions.collector import _observe
from studio.contributions.energies import Energies
from studio.contributions.sequences import TokenSequence
from studio.families import family_of_config, shape_of_config
from studio.families.lookup import text_config
from studio.progress import Tally, silent
from studio.quantize.imatrix_observed import _Names, _tiled, imatrix_of

families = pytest.importorskip("tests.families.tiny_models")

CONVERTED = sorted(getattr(families, "CONFIGS", {}).keys() - {"gemma4_text", "phimoe"})
"""Those of which the converter takes a model without a vocabulary; Gemma 4 is compared with llama-imatrix itself."""
PER_HEAD = {"attn_k_b.weight", "attn_v_b.weight"}
"""What llama.cpp makes of `kv_b_proj`, to multiply it with something that transformers never computes."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """By model type: the model, and its GGUF in f32."""
    place, arguments, found = tmp_path_factory.mktemp("converted"), [], {}
    for model_type in CONVERTED:
        model = families.tiny(model_type)
        folder = families.save(model, place / model_type)
        if model_type in families.NAMED_DRAFT | families.NUMBERED_DRAFT:
            families.add_draft(folder, model_type)
        found[model_type] = model, place / f"{model_type}.gguf"
        arguments += [str(folder), str(place / f"{model_type}.gguf")]
    script = Path(families.__file__).with_name("convert_without_vocabulary.py")
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


def energies_of(model):
    energies = Energies()
    with torch.inference_mode():
        _observe(
            model, [TokenSequence((1, *range(3, 40)), False, False)], shape_of_config(model.config.to_dict()),
            batches=[[0]], pad_token=0, tally=Tally(silent, 1), checkpoint=Checkpoint(), energies=energies,
        )  # fmt: skip
    return energies


def weights_of(model, name):
    """The matrices behind an energy: `[M, rows, columns]`."""
    module, _, last = name.rpartition(".")
    found = model.get_decoder().get_submodule(module if module.endswith(".experts") else name)
    if module.endswith(".experts"):
        weight = getattr(found, last)
        return (weight.transpose(1, 2) if found.is_transposed else weight).detach().numpy()
    return found.weight.detach().numpy()[np.newaxis]


@pytest.mark.parametrize("model_type", CONVERTED)
def test_every_entry_has_the_columns_of_its_tensor_in_their_order(model_type, converted):
    model, gguf = converted[model_type]
    config = model.config.to_dict()
    energies = energies_of(model)
    imatrix, left_out = imatrix_of(energies, config, "text")
    assert {name.rpartition(".")[2] for name in left_out} <= {"kv_b_proj"}
    header, layers = read_header(gguf), model.config.num_hidden_layers
    data = gguf.read_bytes()
    tensors = {
        tensor.name: tensor
        for tensor in header.tensors
        if len(tensor.shape) > 1 and tensor.name.endswith(".weight") and tensor.name.startswith("blk.")
        if int(tensor.name.split(".")[1]) < layers and "conv1d" not in tensor.name
    }
    missing = {name.split(".", 2)[2] for name in tensors.keys() - imatrix.entries.keys()}
    assert missing == (PER_HEAD if left_out else set())
    assert imatrix.entries.keys() <= tensors.keys()
    names = _Names(family_of_config(config), layers)
    for weight in energies.sums:
        matrices = weights_of(model, weight)
        if weight.endswith("linear_attn.out_proj") and model_type.startswith("qwen3_5"):
            text = text_config(config, family_of_config(config))
            matrices = np.stack([_tiled(row[np.newaxis], text) for row in matrices[0]], axis=1)
        for name in names.of(weight):
            tensor = tensors[name]
            start = header.start_of(tensor)
            stored = np.frombuffer(data[start : start + tensor.size], dtype="<f4").reshape(tensor.shape[::-1])
            stored = stored.reshape(len(matrices), -1, tensor.shape[0])
            assert imatrix.entries[name].sums.shape == (len(matrices), tensor.shape[0])
            for ours, theirs in zip(matrices, stored, strict=True):
                rows = {np.ascontiguousarray(row, dtype="<f4").tobytes() for row in ours}
                assert all(row.tobytes() in rows for row in theirs), (weight, name)
