"""Collecting `Contributions` from a loaded model: one observed forward pass per question, nothing computed twice."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from studio.contributions.checkpoint import Arrays, Checkpoint
from studio.contributions.energies import Energies, RunningTotal
from studio.contributions.model import SUMS, Array, Contributions, Question
from studio.contributions.modules import input_device
from studio.contributions.observer import Observer, observing, question_of_token
from studio.contributions.prompts import Prompt
from studio.contributions.sequences import TokenSequence, continue_greedily, plan_batches, tokenize
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.progress import Progress, Tally, silent

MAX_TOKENS = 4096
CONTINUATION_TOKENS = 128
BATCH_TOKENS = 4096

_log = logging.getLogger(__name__)


def collect(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    shape: MoeShape,
    max_tokens: int = MAX_TOKENS,
    continuation_tokens: int = CONTINUATION_TOKENS,
    batch_tokens: int = BATCH_TOKENS,
    thinking: bool = False,
    progress: Progress = silent,
    model_name: str = "",
    checkpoint: Path | None = None,
    energies: Energies | None = None,
) -> Contributions:
    """Observe `model` (transformers, any dtype) on `prompts`: the six sums of each question, in fp64.

    A question with an answer is observed on prompt and answer together, cut to `max_tokens`. One without is cut to
    `max_tokens` and continued greedily by the model itself, by at most `continuation_tokens`, and then observed on
    both; with 0 of these it is observed on the prompt alone. Questions of similar length share a pass of at most
    `batch_tokens` tokens; the result does not depend on it beyond rounding. Tokens whose hidden state is not finite
    before or after a layer's experts are left out there and counted in `Question.skipped_tokens`. What was cut and
    skipped is said in the questions and in `source`.

    `checkpoint` is a folder that belongs to `model` as it is loaded. Every finished batch of answers and of questions
    is kept there, and one that is there already is not computed again: an analysis that was killed goes on, to the
    result of one that was not.

    `energies`, empty at first, is filled with the energy of what flowed into every weight of the decoder.

    Raises `InputError` for no prompts or one that the chat template refuses, `MismatchError` or `UnsupportedError` for
    a model that is not of `shape`.
    """
    if not prompts:
        raise InputError("There is no prompt to analyze the model on.")
    sequences = [tokenize(tokenizer, prompt, max_tokens=max_tokens, thinking=thinking) for prompt in prompts]
    if not continuation_tokens:
        sequences = [replace(sequence, open=False) for sequence in sequences]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            pad_token = tokenizer.pad_token_id or 0
            tally = Tally(progress, len(sequences) + sum(sequence.open for sequence in sequences), "questions")
            kept = Checkpoint(checkpoint)
            for index, sequence in continue_greedily(model, sequences, continuation_tokens, pad_token, kept):
                sequences[index] = sequence
                tally.advance(1, "letting the model answer")
            sums, skipped = _observe(
                model,
                sequences,
                shape,
                batches=plan_batches([len(sequence.tokens) for sequence in sequences], batch_tokens),
                pad_token=pad_token,
                tally=tally,
                checkpoint=kept,
                energies=energies,
            )
    finally:
        model.train(was_training)
    return contributions_of(
        prompts,
        sequences,
        sums,
        skipped,
        shape=shape,
        dtype=model.dtype,
        max_tokens=max_tokens,
        model_name=model_name or str(getattr(model.config, "_name_or_path", "")),
    )


def contributions_of(
    prompts: Sequence[Prompt],
    sequences: Sequence[TokenSequence],
    sums: Array,
    skipped: npt.NDArray[np.int64],
    *,
    shape: MoeShape,
    dtype: torch.dtype,
    max_tokens: int,
    model_name: str,
) -> Contributions:
    """What was observed, sums `[6, Q, L, E]` and skipped tokens `[Q]`, with its story."""
    questions = tuple(
        Question(prompt.id, prompt.klass, truncated=sequence.truncated, skipped_tokens=int(count))
        for prompt, sequence, count in zip(prompts, sequences, skipped, strict=True)
    )
    return Contributions(
        shape=shape,
        model=model_name,
        questions=questions,
        sums=dict(zip(SUMS, sums, strict=True)),
        source=_source(questions, sum(len(sequence.tokens) for sequence in sequences), max_tokens, dtype),
    )


def _observe(
    model: Any,
    sequences: Sequence[TokenSequence],
    shape: MoeShape,
    *,
    batches: Sequence[Sequence[int]],
    pad_token: int,
    tally: Tally,
    checkpoint: Checkpoint,
    energies: Energies | None,
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Sums `[6, Q, L, E]` and skipped tokens `[Q]`."""
    sums = np.zeros((len(SUMS), len(sequences), shape.layers, shape.experts))
    skipped = np.zeros(len(sequences), dtype=np.int64)
    inputs = [([sequences[i].tokens for i in batch], pad_token) for batch in batches]
    total = RunningTotal(energies, inputs, checkpoint) if energies is not None else None
    known = 0
    with observing(model, shape, energies is not None) as observer:
        for number, batch in enumerate(batches):
            missing = total is not None and not total.includes(number)
            made, was_known = checkpoint.remember(
                "sums", inputs[number], partial(forward, model, observer, *inputs[number]), anew=missing
            )
            if total is not None and missing:
                assert observer.meter is not None
                total.add(number, observer.meter.totals(partial(forward, model, observer, *inputs[number])))
            sums[:, batch], skipped[batch] = made["sums"], made["skipped"]
            known += was_known * len(batch)
            tally.advance(len(batch), "going on after an interruption" if was_known else "observing the experts")
    if known:
        _log.info("%d of %d questions had been observed before the interruption", known, len(sequences))
    return sums, skipped


def forward(model: Any, observer: Observer, batch: Sequence[tuple[int, ...]], pad_token: int) -> Arrays:
    """One pass over `batch`, padded on the right: what `Observer.totals` gives, by name."""
    inputs, mask, question = padded(batch, pad_token, input_device(model))
    observer.expect(question, len(batch))
    # Logits are not needed, and with a vocabulary of 262,144 they would be the largest tensor by far.
    model(input_ids=inputs, attention_mask=mask, use_cache=False, logits_to_keep=1)
    sums, skipped = observer.totals()
    return {"sums": np.ascontiguousarray(sums), "skipped": skipped}


def padded(
    batch: Sequence[tuple[int, ...]], pad_token: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens and mask `[Q, T]` of `batch`, padded on the right, and each token's question `[Q · T]`."""
    width = max(len(tokens) for tokens in batch)
    inputs = torch.tensor([[*tokens, *[pad_token] * (width - len(tokens))] for tokens in batch], device=device)
    question = question_of_token([len(tokens) for tokens in batch], width, device)
    return inputs, (question >= 0).to(torch.int64).view(len(batch), width), question


def _source(questions: Sequence[Question], tokens: int, max_tokens: int, dtype: torch.dtype) -> str:
    text = f"observed by Espalier on {len(questions)} questions, {tokens} tokens, {str(dtype).rpartition('.')[2]}"
    if cut := sum(question.truncated for question in questions):
        text += f"; {cut} questions were cut to {max_tokens} tokens"
    if skipped := sum(question.skipped_tokens for question in questions):
        text += f"; {skipped} tokens were skipped because their hidden state was not finite"
    if cut or skipped:
        _log.warning("%s", text)
    return text
