"""A tokenizer of 2,048 tokens in Gemma's layout, trained from nothing on generated exercises.

Layout: byte-pair merges over text whose spaces became "▁", 256 byte tokens for whatever is unknown, special tokens for
turns, channels and tools. Two rules keep llama.cpp's gemma4 tokenizer and this one alike: no token mixes a line break
with anything else, and every run of up to 16 line breaks is one token. Digits are never merged.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from random import Random
from typing import Any

from studio.demo.dialogue import dialogue

PAD, EOS, BOS, UNK, MASK = "<pad>", "<eos>", "<bos>", "<unk>", "<mask>"
TURN_END = "<turn|>"
CONTROL = (
    "<|turn>",
    TURN_END,
    "<|channel>",
    "<channel|>",
    "<|think|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
)
VOCABULARY = 2048
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_LINE_BREAKS = 16  # longest run that is one token
_BLANKS = 8
# Merges are learnt inside words, single punctuation marks and single digits only.
_WORD = r"▁?[A-Za-z]+|▁?[^\sA-Za-z0-9▁]|[0-9]|▁+|\n+"


def train_tokenizer(seed: int = 0, dialogues: int = 10_000) -> Any:
    """Trains on generated conversations. Returns a `transformers.GemmaTokenizer` with the chat template."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    rng = Random(seed)

    def texts() -> Any:
        for _ in range(dialogues):
            yield "user\nmodel\nthought\nsystem"  # the turn format's own words, so that each becomes one token
            for exercise in dialogue(rng).exchanges:
                yield exercise.prompt
                yield exercise.answer
                yield exercise.thought

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "isolated")
    specials = [PAD, EOS, BOS, UNK, MASK, *CONTROL]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [
        *sorted(set(string.printable) - set(string.whitespace)),
        "▁",
        "×",
        "ä",
        "é",
        "ö",
        "ü",
        "ß",
        "’",
        "–",
        "€",
    ]
    runs: list[tuple[str, str]] = []
    for character, longest in (("\n", _LINE_BREAKS), ("▁", _BLANKS)):
        # Powers of two first, then the rest from short to long, so that a run of any length merges into one token.
        runs += [(character * (n // 2), character * (n // 2)) for n in (2, 4, 8, 16) if n <= longest]
        runs += [(character * a, character * b) for a in (2, 4, 8) for b in range(1, a) if a + b <= longest]
    run_tokens = sorted({a + b for a, b in runs} | {"\n"}, key=lambda token: (token[0], len(token)))

    room = VOCABULARY - len(specials) - len(byte_tokens) - len(run_tokens)
    words = trainers.BpeTrainer(vocab_size=room, min_frequency=2, initial_alphabet=letters, show_progress=False)
    learner.train_from_iterator(texts(), words)
    learnt = json.loads(learner.to_str())["model"]
    merges: list[tuple[str, str]] = [(a, b) for a, b in learnt["merges"]]
    tokens = [token for token, _ in sorted(learnt["vocab"].items(), key=lambda item: item[1])]
    ordered = list(dict.fromkeys([*specials, *byte_tokens, *run_tokens, *(t for t in tokens if "\n" not in t)]))
    ordered += [f"<unused{n}>" for n in range(VOCABULARY - len(ordered))]
    vocabulary = {token: index for index, token in enumerate(ordered[:VOCABULARY])}
    kept = [(a, b) for a, b in [*runs, *merges] if a in vocabulary and b in vocabulary and a + b in vocabulary]
    make_merges: Any = list(dict.fromkeys(kept))
    tokenizer = GemmaTokenizer(
        vocab=vocabulary,
        merges=make_merges,
        extra_special_tokens=list(CONTROL),
        model_max_length=4096,
    )
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer saved in a checkpoint's folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
