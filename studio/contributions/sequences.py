"""From prompts to the token sequences that a model is observed on: chat template, answers, the model's own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from studio.contributions.checkpoint import Arrays, Checkpoint
from studio.contributions.encoding import encode, is_open
from studio.contributions.modules import input_device
from studio.contributions.prompts import Prompt

GENERATION_BATCH = 8
"""Questions continued at once. Fixed, so that continuations never depend on how the observed pass is batched."""


@dataclass(frozen=True)
class TokenSequence:
    """The tokens of one question."""

    tokens: tuple[int, ...]
    truncated: bool
    """Whether it was cut to the limit."""
    open: bool
    """Whether the model is to continue it: there was no answer."""


def tokenize(tokenizer: Any, prompt: Prompt, *, max_tokens: int, thinking: bool = False) -> TokenSequence:
    """What `encode` makes of the prompt, question and answer, at most `max_tokens` in all. Raises what it raises."""
    question, answer = encode(tokenizer, prompt, thinking=thinking)
    tokens = question + answer
    return TokenSequence(tuple(tokens[:max_tokens]), len(tokens) > max_tokens, is_open(prompt))


def continue_greedily(
    model: Any,
    sequences: Sequence[TokenSequence],
    new_tokens: int,
    pad_token: int,
    checkpoint: Checkpoint | None = None,
) -> Iterator[tuple[int, TokenSequence]]:
    """Each open one of `sequences` with the model's own greedy continuation, and its index, as they are finished.

    A continuation has at most `new_tokens` tokens and ends before an end-of-sequence token. What `checkpoint` knows is
    not generated again.
    """
    checkpoint = checkpoint or Checkpoint()
    ends = end_tokens(model)
    for batch in generation_batches(sequences):
        asked = (tuple(sequences[i].tokens for i in batch), new_tokens, pad_token, ends)
        made, _ = checkpoint.remember("answers", asked, partial(generate, model, *asked))
        for index, continuation in zip(batch, made["tokens"].tolist(), strict=True):
            yield index, continued(sequences[index], continuation, ends)


def generation_batches(sequences: Sequence[TokenSequence]) -> list[list[int]]:
    """Indices of the open ones of `sequences`, as they are continued together."""
    waiting = sorted(
        (i for i, sequence in enumerate(sequences) if sequence.open), key=lambda i: len(sequences[i].tokens)
    )
    return [waiting[start : start + GENERATION_BATCH] for start in range(0, len(waiting), GENERATION_BATCH)]


def continued(sequence: TokenSequence, continuation: Sequence[int], ends: Sequence[int]) -> TokenSequence:
    """`sequence` with what was generated after it, up to an end-of-sequence token."""
    until = next((place for place, token in enumerate(continuation) if token in ends), len(continuation))
    return replace(sequence, tokens=sequence.tokens + tuple(continuation[:until]), open=False)


def generate(
    model: Any, prompts: Sequence[tuple[int, ...]], new_tokens: int, pad_token: int, ends: Sequence[int]
) -> Arrays:
    """ "tokens": what follows each of `prompts`, `[prompts, up to new_tokens]`, with whatever comes after an end."""
    from transformers import GenerationConfig

    width = max(len(tokens) for tokens in prompts)
    inputs = torch.full((len(prompts), width), pad_token, dtype=torch.int64)
    mask = torch.zeros_like(inputs)
    for row, tokens in enumerate(prompts):  # padded on the left, so that all continue at the same place
        inputs[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    greedy = GenerationConfig.from_dict(
        {
            "do_sample": False,
            "max_new_tokens": new_tokens,
            "eos_token_id": list(ends) or None,
            "pad_token_id": pad_token,
        }
    )
    device = input_device(model)
    generated = model.generate(input_ids=inputs.to(device), attention_mask=mask.to(device), generation_config=greedy)
    return {"tokens": np.ascontiguousarray(generated[:, width:].cpu().numpy())}


def end_tokens(model: Any) -> tuple[int, ...]:
    """The tokens that end an answer of `model`."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        return ()
    return tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths` in batches of similar length: at most `budget` tokens each with padding, but at least one.

    Longest first, so that a batch that does not fit in memory shows at once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
