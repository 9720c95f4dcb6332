"""What is read from a `config.json` or a GGUF header, and which tensors carry the expert axis."""

from __future__ import annotations

from typing import Any

import pytest

from studio.errors import InputError, UnsupportedError
from studio.families import (
    GEMMA4,
    ExpertPlace,
    MoeShape,
    draft_layers_of_gguf,
    family_named,
    family_of_config,
    shape_of_config,
    shape_of_gguf,
)

TEXT: dict[str, Any] = {
    "model_type": "gemma4_text",
    "num_hidden_layers": 30,
    "num_experts": 128,
    "top_k_experts": 8,
    "hidden_size": 2816,
    "moe_intermediate_size": 704,
    "intermediate_size": 2112,
}
GGUF: dict[str, Any] = {
    "general.architecture": "gemma4",
    "gemma4.block_count": 30,
    "gemma4.expert_count": 128,
    "gemma4.expert_used_count": 8,
    "gemma4.embedding_length": 2816,
    "gemma4.expert_feed_forward_length": 704,
}
GEMMA4_26B = MoeShape("gemma4", tuple(range(30)), experts=128, top_k=8, hidden_size=2816, expert_size=704)

# Every tensor of a layer, in the published checkpoint and in its GGUF; those with an expert axis apart.
CHECKPOINT_EXPERTS = ("experts.gate_up_proj", "experts.down_proj", "router.proj.weight", "router.per_expert_scale")
CHECKPOINT_OTHERS = (
    "router.scale",
    "layer_scalar",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "self_attn.o_proj.weight",
    "self_attn.q_norm.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "mlp.down_proj.weight",
    "pre_feedforward_layernorm_2.weight",
    "post_feedforward_layernorm_1.weight",
)
GGUF_EXPERTS = ("ffn_gate_up_exps.weight", "ffn_down_exps.weight", "ffn_down_exps.scale", "ffn_gate_inp.weight")
GGUF_OTHERS = (
    "ffn_gate_inp.scale",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "attn_k.weight",
    "layer_output_scale.weight",
    "pre_ffw_norm_2.weight",
)


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def test_the_published_config_text_only_and_multimodal_gives_the_published_shape() -> None:
    assert shape_of_config(TEXT) == GEMMA4_26B
    assert shape_of_config({"model_type": "gemma4", "text_config": TEXT, "vision_config": {}}) == GEMMA4_26B


def test_a_gguf_header_gives_the_same_shape_as_the_config() -> None:
    assert shape_of_gguf(GGUF) == shape_of_config(TEXT)


def test_layers_are_counted_and_named_from_0() -> None:
    assert GEMMA4_26B.layers == 30
    assert GEMMA4_26B.layer_ids == tuple(range(30))


def test_two_shapes_share_a_grid_when_layers_and_experts_agree() -> None:
    other = MoeShape("unknown", tuple(range(30)), experts=128, top_k=1, hidden_size=0, expert_size=0)
    assert GEMMA4_26B.same_grid(other)
    assert not GEMMA4_26B.same_grid(MoeShape("gemma4", tuple(range(30)), 98, 8, 2816, 704))
    assert not GEMMA4_26B.same_grid(MoeShape("gemma4", tuple(range(29)), 128, 8, 2816, 704))


@pytest.mark.parametrize("model_type", ["gpt2", "", None, 7])
def test_an_unknown_architecture_is_refused_by_name(model_type: object) -> None:
    with pytest.raises(UnsupportedError, match=f"{model_type!r}.*gemma4"):
        shape_of_config({**TEXT, "model_type": model_type})
    with pytest.raises(UnsupportedError, match=f"{model_type!r}.*gemma4"):
        shape_of_gguf({**GGUF, "general.architecture": model_type})
    with pytest.raises(UnsupportedError, match="None"):
        family_of_config({})
    with pytest.raises(UnsupportedError, match="gpt2"):
        family_named("gpt2")


@pytest.mark.parametrize("key", sorted(TEXT.keys() - {"model_type", "intermediate_size"}))
def test_a_missing_or_senseless_config_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=key):
        shape_of_config(without(TEXT, key))
    with pytest.raises(InputError, match=key):
        shape_of_config({"model_type": "gemma4", "text_config": without(TEXT, key)})
    for senseless in (None, 0, -1, True, 8.0, "8", [8], 10**12):
        with pytest.raises(InputError, match=key):
            shape_of_config({**TEXT, key: senseless})


@pytest.mark.parametrize("key", sorted(GGUF.keys() - {"general.architecture"}))
def test_a_missing_or_senseless_gguf_key_is_named(key: str) -> None:
    with pytest.raises(InputError, match=key):
        shape_of_gguf(without(GGUF, key))
    for senseless in (None, 0, -1, True, 8.0, "8", [8], 10**12):
        with pytest.raises(InputError, match=key):
            shape_of_gguf({**GGUF, key: senseless})


def test_a_dense_gemma_4_is_no_mixture_of_experts() -> None:
    with pytest.raises(InputError, match=r"num_experts is None.*Is this a MoE model\?"):
        shape_of_config({**TEXT, "num_experts": None})


@pytest.mark.parametrize("prefix", ["model.", "model.language_model."])
@pytest.mark.parametrize("layer", [0, 7, 29])
def test_the_checkpoint_tensors_with_an_expert_axis_are_known_and_no_others(prefix: str, layer: int) -> None:
    for name in CHECKPOINT_EXPERTS:
        assert GEMMA4.place(f"{prefix}layers.{layer}.{name}") == ExpertPlace(layer)
    for name in CHECKPOINT_OTHERS:
        assert GEMMA4.place(f"{prefix}layers.{layer}.{name}") is None


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.vision_tower.layers.3.experts.down_proj",
        "model.layers.3.experts.down_proj.weight",
        "xmodel.layers.3.experts.down_proj",
        "model.layers.x.experts.down_proj",
        "model.layers.3.experts.down_proj\n",
        "modelxlayers.3.experts.down_proj",
    ],
)
def test_names_that_only_resemble_expert_tensors_are_left_alone(name: str) -> None:
    assert GEMMA4.place(name) is None


@pytest.mark.parametrize("layer", [0, 7, 29])
def test_the_gguf_tensors_with_an_expert_axis_are_known_and_no_others(layer: int) -> None:
    for name in GGUF_EXPERTS:
        assert GEMMA4.gguf_layer(f"blk.{layer}.{name}") == layer
    for name in GGUF_OTHERS:
        assert GEMMA4.gguf_layer(f"blk.{layer}.{name}") is None
    for name in ("token_embd.weight", "output_norm.weight", "v.blk.0.ffn_down_exps.weight"):
        assert GEMMA4.gguf_layer(name) is None


def test_a_model_built_by_transformers_has_exactly_these_tensors() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Gemma4TextConfig(
        num_hidden_layers=2, hidden_size=32, intermediate_size=48, num_experts=4, top_k_experts=2,
        moe_intermediate_size=24, enable_moe_block=True, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        global_head_dim=16, vocab_size=64, hidden_size_per_layer_input=0,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    shape = shape_of_config(config.to_dict())
    assert shape == MoeShape("gemma4", (0, 1), experts=4, top_k=2, hidden_size=32, expert_size=24)
    tensors = transformers.Gemma4ForCausalLM(config).state_dict()
    found = {name: place for name in tensors if (place := GEMMA4.place(name)) is not None}
    assert len(found) == 2 * len(CHECKPOINT_EXPERTS)
    assert all(tensors[name].shape[axis] == shape.experts for name, (_, _, axis) in found.items())


def test_dense_layers_are_left_out_as_each_family_says_it() -> None:
    qwen = {"model_type": "qwen3_moe", "num_hidden_layers": 8, "num_experts": 4, "num_experts_per_tok": 2,
            "hidden_size": 8, "moe_intermediate_size": 8}  # fmt: skip
    assert shape_of_config(qwen).layer_ids == tuple(range(8))
    assert shape_of_config({**qwen, "decoder_sparse_step": 2, "mlp_only_layers": [3]}).layer_ids == (1, 5, 7)
    glm = {**qwen, "model_type": "glm4_moe", "n_routed_experts": 4, "first_k_dense_replace": 3}
    assert shape_of_config(glm).layer_ids == (3, 4, 5, 6, 7)
    lite = {**glm, "model_type": "glm4_moe_lite", "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 6}
    assert shape_of_config(lite).layer_ids == (2, 3, 4, 5, 6, 7)
    with pytest.raises(InputError, match="first_k_dense_replace is None"):
        shape_of_config(without(glm, "first_k_dense_replace"))
    with pytest.raises(InputError, match="no layer has experts"):
        shape_of_config({**glm, "first_k_dense_replace": 8})
    with pytest.raises(InputError, match="mlp_only_layers"):
        shape_of_config({**qwen, "mlp_only_layers": 3})


def test_a_gguf_header_says_which_blocks_are_dense_and_which_draft() -> None:
    header = {"general.architecture": "glm4moe"} | {
        f"glm4moe.{key}": value
        for key, value in {
            "block_count": 10, "nextn_predict_layers": 1, "leading_dense_block_count": 2, "expert_count": 8,
            "expert_used_count": 2, "embedding_length": 8, "feed_forward_length": 8,
        }.items()
    }  # fmt: skip
    assert shape_of_gguf(header).layer_ids == tuple(range(2, 9))
    assert list(draft_layers_of_gguf(header)) == [9]
    with pytest.raises(InputError, match="nextn_predict_layers is 10"):
        shape_of_gguf({**header, "glm4moe.nextn_predict_layers": 10})
    with pytest.raises(InputError, match="uses 9 of 8 experts"):
        shape_of_gguf({**header, "glm4moe.expert_used_count": 9})
    with pytest.raises(InputError, match="groups"):
        shape_of_gguf({**header, "glm4moe.expert_group_count": 3})
