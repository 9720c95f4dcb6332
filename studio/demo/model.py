"""The demo model's architecture: Gemma 4 26B-A4B in small, with every feature that pruning meets there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS = 6
EXPERTS = 32


def demo_config(vocabulary: int = 2048) -> Any:
    """The `Gemma4TextConfig`: five sliding layers and a full one, keys used as values on the full layer, a dense MLP
    beside 32 experts of which 4 are used, and an expert size (96) that is no multiple of 256, as
    704 is none in the original."""
    from transformers import Gemma4TextConfig

    # Through `Any`: the class takes the two global head settings as keywords that its signature does not list.
    make: Any = Gemma4TextConfig
    return make(
        architectures=["Gemma4ForCausalLM"],
        vocab_size=vocabulary,
        vocab_size_per_layer_input=vocabulary,
        hidden_size=256,
        intermediate_size=288,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        global_head_dim=128,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        enable_moe_block=True,
        num_experts=EXPERTS,
        top_k_experts=4,
        moe_intermediate_size=96,
        hidden_size_per_layer_input=0,
        num_kv_shared_layers=0,
        sliding_window=128,
        max_position_embeddings=4096,
        final_logit_softcapping=30.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def new_model(seed: int = 0, vocabulary: int = 2048) -> Any:
    """An untrained demo model in float32, the same for ever for one seed."""
    import torch
    from transformers import Gemma4ForCausalLM

    torch.manual_seed(seed)
    model: Any = Gemma4ForCausalLM(demo_config(vocabulary))
    # The stock initialisation suits a checkpoint that will be loaded, not one that learns from nothing: embeddings get
    # size 1 after their scaling by √hidden, attention gets scores of size 1 although Gemma 4 does not divide them by
    # √head size, each layer adds little to what came before, and the router's scores differ enough to break the tie.
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=model.config.hidden_size**-0.5)
    for layer in model.model.layers:
        attention = layer.self_attn
        for norm in (attention.q_norm, attention.k_norm):
            torch.nn.init.constant_(norm.weight, attention.head_dim**-0.25)
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            torch.nn.init.constant_(norm.weight, 0.3)
        torch.nn.init.normal_(layer.router.proj.weight, std=0.3)
    return model.float()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a bfloat16 checkpoint with tokenizer and chat template, as `AutoModelForCausalLM` loads it."""
    import copy

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.config.dtype = "bfloat16"
    turn_end = tokenizer.convert_tokens_to_ids("<turn|>")
    half.generation_config.eos_token_id = [1, turn_end]
    half.generation_config.pad_token_id = 0
    half.generation_config.bos_token_id = 2
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_model(folder: Path) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer, from a folder written by `save_model`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.set_experts_implementation("grouped_mm")
    return model.eval(), AutoTokenizer.from_pretrained(folder)
