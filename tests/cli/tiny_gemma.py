"""A random Gemma 4 MoE small enough to go all the way (analyze, prune, convert, quantize, chat) in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from tests.gemma4 import gemma4_config, gemma4_tokenizer, spread_routers

LAYERS, EXPERTS, TOP_K = 4, 8, 2

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn>{{ message['role'] }}\n{{ message['content'] }}<turn|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A checkpoint of 4 layers × 8 experts in bf16 with its tokenizer and chat template (about 3 MB)."""
    import torch
    from transformers import Gemma4ForCausalLM

    tokenizer = gemma4_tokenizer([("t", "h"), ("th", "e")], chat_template=CHAT_TEMPLATE)
    config = gemma4_config(
        len(tokenizer),
        hidden_size=256,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
        num_attention_heads=2,
        num_experts=EXPERTS,
        top_k_experts=TOP_K,
        moe_intermediate_size=48,
        sliding_window=64,
        max_position_embeddings=1024,
    )
    torch.manual_seed(seed)
    model = Gemma4ForCausalLM(config).to(torch.bfloat16)
    spread_routers(model)
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
