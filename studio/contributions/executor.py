"""Making a contribution pass in pieces, wherever they are made: each is a whole batch, and only sums come back.

The batches are those of `collect`, and so are the numbers, to the last bit where the machines are alike: the sums of a
question come from one batch, with one padding, whoever computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from studio.contributions.checkpoint import Arrays, Checkpoint
from studio.contributions.collector import BATCH_TOKENS, contributions_of, forward
from studio.contributions.encoding import load_tokenizer
from studio.contributions.model import SUMS, Contributions
from studio.contributions.observation import Request, load
from studio.contributions.observer import observing
from studio.contributions.sequences import (
    continued,
    end_tokens,
    generate,
    generation_batches,
    plan_batches,
    tokenize,
)
from studio.errors import EspalierError, InputError
from studio.progress import Progress, Tally, silent

Kind = Literal["answers", "sums"]


@dataclass(frozen=True)
class Facts:
    """What has to be known of a model that is loaded elsewhere."""

    dtype: str
    ends: tuple[int, ...]
    """Its end-of-sequence tokens."""


class Executor(Protocol):
    """Makes pieces of work with a model."""

    def facts(self) -> Facts: ...

    def run(self, kind: Kind, inputs: Sequence[Any]) -> Iterator[tuple[int, Arrays]]:
        """(number, piece) for each of `inputs`, in the order in which they are finished."""
        ...


class Worker:
    """A model that is loaded when it is first needed, in the process that makes pieces with it."""

    def __init__(self, request: Request, device: str, threads: int | None = None) -> None:
        self._request = request
        self._device = device
        self._threads = threads

    @cached_property
    def _model(self) -> Any:
        if self._threads:
            torch.set_num_threads(self._threads)  # sums are added in another order by another number
        return load(self._request, self._device)[0]

    def facts(self) -> Facts:
        with _plain_errors():
            return Facts(str(self._model.dtype).rpartition(".")[2], end_tokens(self._model))

    def make(self, kind: Kind, inputs: Any) -> Arrays:
        """What `generate` makes of `inputs` for answers, `forward` for sums."""
        with _plain_errors(), torch.inference_mode():
            if kind == "answers":
                return generate(self._model, *inputs)
            with observing(self._model, self._request.shape) as observer:
                return forward(self._model, observer, *inputs)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Errors that can be sent to another process: those of the house with what they say, and no more."""
    try:
        yield
    except EspalierError as error:
        raise InputError(error.what, error.remedy) from None


class Local:
    """The executor of one process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def facts(self) -> Facts:
        return self._worker.facts()

    def run(self, kind: Kind, inputs: Sequence[Any]) -> Iterator[tuple[int, Arrays]]:
        for number, one in enumerate(inputs):
            yield number, self._worker.make(kind, one)


def collect_with(
    executor: Executor,
    request: Request,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = silent,
    checkpoint: Path | None = None,
) -> Contributions:
    """What `collect` gives for `request`, made by `executor`; `checkpoint` is that of `collect`.

    Raises what `collect` raises, and what the executor does when it cannot go on.
    """
    if not request.prompts:
        raise InputError("There is no prompt to analyze the model on.")
    tokenizer = load_tokenizer(request.model_dir)
    sequences = [
        tokenize(tokenizer, prompt, max_tokens=request.max_tokens, thinking=request.thinking)
        for prompt in request.prompts
    ]
    if not request.continuation_tokens:
        sequences = [replace(sequence, open=False) for sequence in sequences]
    facts, kept, pad_token = executor.facts(), Checkpoint(checkpoint), tokenizer.pad_token_id or 0
    tally = Tally(progress, len(sequences) + sum(sequence.open for sequence in sequences), "questions")

    batches = generation_batches(sequences)
    asked = [
        (tuple(sequences[i].tokens for i in batch), request.continuation_tokens, pad_token, facts.ends)
        for batch in batches
    ]
    for number, made in _pieces(executor, "answers", asked, kept):
        for index, tokens in zip(batches[number], made["tokens"].tolist(), strict=True):
            sequences[index] = continued(sequences[index], tokens, facts.ends)
        tally.advance(len(batches[number]), "letting the model answer")

    batches = plan_batches([len(sequence.tokens) for sequence in sequences], batch_tokens)
    sums = np.zeros((len(SUMS), len(sequences), request.shape.layers, request.shape.experts))
    skipped = np.zeros(len(sequences), dtype=np.int64)
    observed = [([sequences[i].tokens for i in batch], pad_token) for batch in batches]
    for number, made in _pieces(executor, "sums", observed, kept):
        sums[:, batches[number]], skipped[batches[number]] = made["sums"], made["skipped"]
        tally.advance(len(batches[number]), "observing the experts")
    return contributions_of(
        request.prompts,
        sequences,
        sums,
        skipped,
        shape=request.shape,
        dtype=getattr(torch, facts.dtype),
        max_tokens=request.max_tokens,
        model_name=request.model_dir.name,
    )


def _pieces(
    executor: Executor, kind: Kind, inputs: Sequence[Any], checkpoint: Checkpoint
) -> Iterator[tuple[int, Arrays]]:
    """What `checkpoint` knows, then what `executor` makes of the rest, which is remembered."""
    missing = []
    for number, one in enumerate(inputs):
        known = checkpoint.known(kind, one)
        if known is None:
            missing.append(number)
        else:
            yield number, known
    for place, made in executor.run(kind, [inputs[number] for number in missing]):
        checkpoint.keep(kind, inputs[missing[place]], made)
        yield missing[place], made
