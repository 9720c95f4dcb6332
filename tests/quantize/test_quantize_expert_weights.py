"""Single experts, read from every kind of file that a model comes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from studio.checkpoints.expert_weights import ExpertWeights
from studio.checkpoints.reference import open_reference
from studio.contributions.modules import modules_by_layer
from studio.errors import FormatError, MismatchError, UnsupportedError
from studio.families.lookup import family_named
from tests.families.tiny_models import CONFIGS, NAMED_DRAFT, NUMBERED_DRAFT, add_draft, save, tiny
from tests.quantize.quantize_experts import EXPERTS, HIDDEN, INNER, LAYERS, weights, write_checkpoint, write_gguf


def test_a_checkpoint_gives_the_weights_of_one_expert(tmp_path: Path) -> None:
    given = weights()
    found = ExpertWeights(open_reference(write_checkpoint(tmp_path / "m", given)))
    for layer in range(LAYERS):
        assert np.array_equal(found.scale(layer), given["scale"][layer])
        for expert in range(EXPERTS):
            assert np.array_equal(found.down(layer, expert), given["down"][layer, expert])
            flat = [given["down"][layer, expert].ravel(), given["gate_up"][layer, expert].ravel()]
            assert np.array_equal(found.flat(layer, expert), np.concatenate(flat))
    assert found.bytes_per_expert == 4 * 3 * HIDDEN * INNER


@pytest.mark.parametrize("fused", [False, True], ids=["hub", "fused"])
@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_every_family_gives_the_experts_of_its_layers_and_none_of_a_drafting_block(
    model_type: str, fused: bool, tmp_path: Path
) -> None:
    model = tiny(model_type)
    folder = save(model, tmp_path / "m", fused=fused)
    if model_type in NAMED_DRAFT | NUMBERED_DRAFT and not fused:
        add_draft(folder, model_type)
    reference = open_reference(folder)
    found = ExpertWeights(reference)
    modules = modules_by_layer(model, family_named(reference.shape.family).experts_module, reference.shape)
    for layer, module in zip(reference.shape.layer_ids, modules, strict=True):
        down = module.down_proj.detach().numpy()
        down = down.swapaxes(1, 2) if module.is_transposed else down
        for expert in (0, reference.shape.experts - 1):
            assert np.array_equal(found.down(layer, expert), down[expert])
            assert found.flat(layer, expert).size == down[expert].size + module.gate_up_proj[expert].numel()


@pytest.mark.parametrize(("kind", "error"), [(Type.F32, 0), (Type.BF16, 0.02), (Type.Q8_0, 0.02), (Type.Q4_0, 0.4)])
def test_a_gguf_gives_them_in_any_type(kind: Type, error: float, tmp_path: Path) -> None:
    given = weights()
    found = ExpertWeights(open_reference(write_gguf(tmp_path / "m.gguf", given, kind)))
    for layer, expert in ((0, 0), (1, EXPERTS - 1)):
        assert abs(found.down(layer, expert) - given["down"][layer, expert]).max() <= error
        assert np.array_equal(found.scale(layer), given["scale"][layer])


def test_transposed_projections_are_turned_where_their_shape_does_not_tell(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gpt_oss", num_hidden_layers=1, num_local_experts=4, hidden_size=32,
                                  intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                                  vocab_size=64)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).float()
    found = ExpertWeights(open_reference(save(model, tmp_path / "m")))
    down = model.model.layers[0].mlp.experts.down_proj.detach().numpy()
    assert np.array_equal(found.down(0, 2), down[2].T)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", weights())
    whole = load_file(folder / "model.safetensors")
    name = "model.layers.1.experts.down_proj"

    def opened(changed: np.ndarray | None) -> ExpertWeights:
        tensors = {key: value for key, value in whole.items() if key != name}
        save_file(tensors | ({} if changed is None else {name: changed}), folder / "model.safetensors")
        return ExpertWeights(open_reference(folder))

    with pytest.raises(UnsupportedError, match="no down projection of layer 1, expert 0"):
        opened(None)
    with pytest.raises(UnsupportedError, match="down_proj' is I8"):
        opened(whole[name].astype(np.int8))
    with pytest.raises(FormatError, match="has to have 4 experts first"):
        opened(whole[name][:3])
    with pytest.raises(
        MismatchError, match=r"layer 1, expert 0, is \[32, 63\], and the model's header says \[32, 64\]"
    ):
        opened(np.ascontiguousarray(whole[name][..., :63])).down(1, 0)
