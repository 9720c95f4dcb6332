"""A tiny Gemma 4 mixture of experts, with the features of the real one, and a tokenizer that needs no download."""

from __future__ import annotations

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message.role }}\n{{ message.content }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{% if enable_thinking %}<|think|>{% endif %}{% endif %}"
)


def tiny_config(layers: int = 6, experts: int = 12, hidden: int = 48, expert_size: int = 40, top_k: int = 3):
    """Five sliding layers and one full one with key = value, a dense MLP beside the experts."""
    from transformers import Gemma4TextConfig

    return Gemma4TextConfig(
        vocab_size=300,
        hidden_size=hidden,
        intermediate_size=56,
        num_hidden_layers=layers,
        layer_types=["sliding_attention"] * (layers - 1) + ["full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        num_global_key_value_heads=1,
        head_dim=16,
        global_head_dim=32,
        attention_k_eq_v=True,
        enable_moe_block=True,
        num_experts=experts,
        top_k_experts=top_k,
        moe_intermediate_size=expert_size,
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=300,
        sliding_window=16,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
    )


def tiny_model(seed: int = 0, dtype: str = "float32", **sizes):
    """A model whose experts, routers and scales all differ, in evaluation mode."""
    import torch
    from transformers import Gemma4ForCausalLM

    torch.set_num_threads(1)  # more only wait for each other at this size
    torch.manual_seed(seed)
    model = Gemma4ForCausalLM(tiny_config(**sizes)).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "per_expert_scale" in name:
                weights.uniform_(0.5, 2.0)
            elif "router.scale" in name:
                weights.uniform_(1.0, 6.0)
            elif weights.ndim > 1:
                weights.normal_(0.0, 0.15)
    return model.to(getattr(torch, dtype))


def tiny_tokenizer():
    """One token per byte, and Gemma 4's turn markers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|think|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        chat_template=CHAT_TEMPLATE,
    )
