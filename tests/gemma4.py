"""What the tiny Gemma 4 models that go all the way to llama.cpp have in common: the shape of the real one, and a
tokenizer that needs no download. Each folder of tests chooses its own sizes and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>")
_USUAL = 5
"""So many of them every tokenizer has; the rest it is told of."""


def gemma4_config(vocabulary: int, **sizes: Any) -> Any:
    """A `Gemma4TextConfig` with experts in every layer and keys for values in the full ones."""
    from transformers import Gemma4TextConfig

    shape = {
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "head_dim": 32,
        "global_head_dim": 64,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "final_logit_softcapping": 30.0,
    }
    return Gemma4TextConfig(vocab_size=vocabulary, **shape, **sizes)


def gemma4_tokenizer(
    merges: Sequence[tuple[str, str]],
    *,
    special: Sequence[str] = SPECIAL_TOKENS,
    characters: Sequence[str] = (),
    chat_template: str | None = None,
) -> Any:
    """A tokenizer of `special`, all bytes, ASCII, `characters`, and what `merges` makes."""
    from transformers import GemmaTokenizer

    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "▁", "\n", *characters]
    tokens += [left + right for left, right in merges]
    return GemmaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),
        extra_special_tokens=list(special[_USUAL:]),
        **({} if chat_template is None else {"chat_template": chat_template}),
    )


def spread_routers(model: Any) -> None:
    """Give `model` routers and scales that differ in everything that pruning has to carry along."""
    import torch

    for layer in model.model.layers:
        torch.nn.init.normal_(layer.router.proj.weight, std=0.5)
        torch.nn.init.uniform_(layer.router.per_expert_scale, 0.5, 1.5)
