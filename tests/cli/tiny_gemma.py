"""A random Gemma 4 MoE small enough to go all the way (analyze, prune, convert, quantize, chat) in seconds."""

from __future__ import annotations

import json
from pathlib import Path

LAYERS, EXPERTS, TOP_K = 4, 8, 2

SPECIAL_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] }}\n{{ message['content'] }}<turn|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A checkpoint of 4 layers × 8 experts in bf16 with its tokenizer and chat template (about 3 MB)."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig, GemmaTokenizer

    tokens = SPECIAL_TOKENS + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += [chr(code) for code in range(33, 127)] + ["▁", "\n", "th", "the"]
    tokenizer = GemmaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[("t", "h"), ("th", "e")],
        extra_special_tokens=SPECIAL_TOKENS[5:],
        chat_template=CHAT_TEMPLATE,
    )
    config = Gemma4TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
        num_attention_heads=2,
        num_key_value_heads=2,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        head_dim=32,
        global_head_dim=64,
        hidden_size_per_layer_input=0,
        enable_moe_block=True,
        num_experts=EXPERTS,
        top_k_experts=TOP_K,
        moe_intermediate_size=48,
        sliding_window=64,
        max_position_embeddings=1024,
        final_logit_softcapping=30.0,
    )
    torch.manual_seed(seed)
    model = Gemma4ForCausalLM(config).to(torch.bfloat16)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.router.proj.weight, std=0.5)
        torch.nn.init.uniform_(layer.router.per_expert_scale, 0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_prompts(path: Path) -> Path:
    """Four questions of two classes, three with an answer."""
    lines = [
        {"class": "math", "prompt": "What is 2 + 2?", "answer": "4"},
        {"class": "math", "prompt": "What is 3 + 5?", "answer": "8"},
        {"class": "code", "prompt": "Print the number one.", "answer": "print(1)"},
        {"class": "code", "prompt": "Print something."},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
