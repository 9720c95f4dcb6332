"""Collecting `Contributions` layer by layer: all questions pass through one decoder layer, then the next is read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from studio.contributions.checkpoint import Arrays, Checkpoint, key_of
from studio.contributions.collector import CONTINUATION_TOKENS, MAX_TOKENS, contributions_of, padded
from studio.contributions.encoding import is_open
from studio.contributions.energies import Energies
from studio.contributions.layered_model import LayeredModel
from studio.contributions.model import SUMS, Array, Contributions
from studio.contributions.observer import Observer, observing
from studio.contributions.prompts import Prompt
from studio.contributions.sequences import TokenSequence, plan_batches, tokenize
from studio.errors import InputError
from studio.families.base import MoeShape
from studio.progress import Progress, Tally, silent

BATCH_TOKENS = 512
"""Less than where the whole model is in memory: what the experts compute has to be small beside one layer."""

_log = logging.getLogger(__name__)


def collect_layered(
    model: LayeredModel,
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
    hidden_bytes: int | None = None,
    energies: Energies | None = None,
) -> Contributions:
    """What `collect` gives for the same arguments, with no more than one layer of `model` in memory.

    Between two layers the hidden states of all questions are kept in memory. With `checkpoint`, a folder that belongs
    to the model as it is built, they are kept there (for two layers at a time), and in memory as well as far as
    `hidden_bytes` go; a pass that was interrupted goes on after the last layer that was finished. `energies` are those
    of `collect`, without what lies outside of layers.

    Raises what `collect` raises, and `InputError` for prompts that the model would have to answer itself.
    """
    if not prompts:
        raise InputError("There is no prompt to analyze the model on.")
    require_answers(prompts, continuation_tokens)
    sequences = [tokenize(tokenizer, prompt, max_tokens=max_tokens, thinking=thinking) for prompt in prompts]
    sequences = [replace(sequence, open=False) for sequence in sequences]
    with torch.inference_mode():
        observation = _Pass(
            model,
            sequences,
            shape,
            batch_tokens=batch_tokens,
            pad_token=tokenizer.pad_token_id or 0,
            checkpoint=Checkpoint(checkpoint),
            hidden_bytes=hidden_bytes,
            energies=energies,
        )
        sums, skipped = observation.run(progress)
    return contributions_of(
        prompts,
        sequences,
        sums,
        skipped,
        shape=shape,
        dtype=model.model.dtype,
        max_tokens=max_tokens,
        model_name=model_name or model.path.name,
    )


def require_answers(prompts: Sequence[Prompt], continuation_tokens: int) -> None:
    """Raise `InputError` when the model would have to answer: each new token would cost a reading of all its layers."""
    if waiting := sum(map(is_open, prompts)) * bool(continuation_tokens):
        raise InputError(
            f"{waiting} of {len(prompts)} prompts have no answer, and a model that is read layer by layer would have "
            "to be read once for every token of one.",
            "Give them answers, or observe the prompts alone: with a continuation of 0 tokens.",
        )


class _Pass:
    """One observation: its batches, and what is known of them so far."""

    def __init__(
        self,
        model: LayeredModel,
        sequences: Sequence[TokenSequence],
        shape: MoeShape,
        *,
        batch_tokens: int,
        pad_token: int,
        checkpoint: Checkpoint,
        hidden_bytes: int | None,
        energies: Energies | None,
    ) -> None:
        self._model = model
        self._shape = shape
        self._batches = plan_batches([len(sequence.tokens) for sequence in sequences], batch_tokens)
        self._tokens = [[sequences[i].tokens for i in batch] for batch in self._batches]
        self._pad_token = pad_token
        self._checkpoint = checkpoint
        self._energies = energies
        key = key_of([self._tokens, pad_token, energies is not None])[:32]
        self._hidden = _HiddenStates(checkpoint, key, model.model.dtype, hidden_bytes)
        self._sums = np.zeros((len(SUMS), len(sequences), shape.layers, shape.experts))
        self._skipped = [np.zeros(len(tokens) * max(map(len, tokens)), dtype=np.bool_) for tokens in self._tokens]

    def run(self, progress: Progress) -> tuple[Array, npt.NDArray[np.int64]]:
        """Sums `[6, Q, L, E]` and skipped tokens `[Q]`."""
        layers, questions = len(self._model.layers), self._sums.shape[1]
        tally = Tally(progress, questions * layers, "questions × layers")
        done = self._resume()
        tally.advance(questions * done, "going on" if done else "reading the token embeddings")
        if not done:
            self._embed()
        with observing(self._model.model, self._shape, self._energies is not None) as observer:
            for layer in range(done, layers):
                measured = Energies()
                with self._model.layer(layer):
                    for index, batch in enumerate(self._batches):
                        self._advance(observer, layer, index, measured, last=layer == layers - 1)
                        tally.advance(len(batch), f"layer {layer + 1} of {layers}")
                self._finish(layer, measured)
        skipped = np.zeros(questions, dtype=np.int64)
        for index, batch in enumerate(self._batches):
            skipped[batch] = self._skipped[index].reshape(len(batch), -1).sum(1)
        return self._sums, skipped

    def _embed(self) -> None:
        with self._model.embedding():
            for index, tokens in enumerate(self._tokens):
                inputs, mask, _ = padded(tokens, self._pad_token, self._model.device)
                self._hidden.put(0, index, self._model.embed(inputs, mask))

    def _advance(self, observer: Observer, layer: int, index: int, measured: Energies, last: bool) -> None:
        """Let one batch pass through one layer, and add the energies of its weights to `measured`."""
        _, mask, question = padded(self._tokens[index], self._pad_token, self._model.device)
        batch = self._batches[index]
        before = self._hidden.take(layer, index)

        def forward() -> torch.Tensor:
            observer.expect(question, len(batch))
            return self._model.forward(layer, before, mask)

        hidden = forward()
        if layer in self._shape.layer_ids:
            row = self._shape.layer_ids.index(layer)
            self._sums[:, batch, row], skipped = observer.layer_totals(row)
            self._skipped[index] |= skipped
        if observer.meter:
            found = observer.meter.totals(forward)
            # What a decoder has outside its layers runs again for each of them, and no importance matrix has it.
            measured.add({name: values for name, values in found.items() if name.startswith(f"layers.{layer}.")})
        if not last:
            self._hidden.put(layer + 1, index, hidden)

    def _finish(self, layer: int, measured: Energies) -> None:
        """Remember that `layer` is done with; its inputs are not needed any more."""
        energies = measured.to_arrays()
        if self._energies is not None:
            self._energies.add(energies)
        pieces = {"skipped": np.concatenate(self._skipped), **energies}
        if layer in self._shape.layer_ids:
            pieces["sums"] = np.ascontiguousarray(self._sums[:, :, self._shape.layer_ids.index(layer)])
        self._checkpoint.write(self._hidden.name(layer), pieces)
        for index in range(len(self._batches)):
            self._hidden.forget(layer, index)

    def _resume(self) -> int:
        """How many layers an earlier run has finished, whose results are taken over; 0 for damaged hidden states."""
        finished: list[Arrays] = []
        while (pieces := self._checkpoint.read(self._hidden.name(len(finished)))) is not None:
            finished.append(pieces)
        done, batches = len(finished), range(len(self._batches))
        if not done or (done < len(self._model.layers) and not all(self._hidden.known(done, i) for i in batches)):
            return 0
        for layer, pieces in enumerate(finished):
            if layer in self._shape.layer_ids:
                self._sums[:, :, self._shape.layer_ids.index(layer)] = pieces["sums"]
            if self._energies is not None:
                self._energies.add({name: pieces[name] for name in pieces.keys() - {"skipped", "sums"}})
        ends = np.cumsum([skipped.size for skipped in self._skipped])
        self._skipped = list(np.split(finished[-1]["skipped"].copy(), ends[:-1]))
        _log.warning("Going on with an analysis that was interrupted, after %d layers.", done)
        return done


class _HiddenStates:
    """What each batch is before a layer: `[B, T, H]`, on the CPU, in memory and in the checkpoint's folder."""

    def __init__(self, checkpoint: Checkpoint, key: str, dtype: torch.dtype, memory: int | None) -> None:
        self._checkpoint = checkpoint
        self._key = key
        self._dtype = dtype
        self._free = memory if checkpoint.keeps else None
        self._held: dict[tuple[int, int], torch.Tensor] = {}

    def name(self, layer: int, index: int | None = None) -> str:
        """Of the piece with a batch before `layer`, or with what was observed in that layer."""
        return f"layer-{self._key}-{layer}" if index is None else f"hidden-{self._key}-{layer}-{index}"

    def put(self, layer: int, index: int, hidden: torch.Tensor) -> None:
        hidden = hidden.cpu().contiguous()
        self._checkpoint.write(
            self.name(layer, index), {"bytes": hidden.view(torch.uint8).numpy(), "shape": np.array(hidden.shape)}
        )
        self._hold(layer, index, hidden)

    def take(self, layer: int, index: int) -> torch.Tensor:
        """The states of a batch, which are not held in memory any more."""
        found = self._held.pop((layer, index), None)
        if found is not None and self._free is not None:
            self._free += found.nbytes
        if found is None:
            found = self._read(layer, index)
        if found is None:
            raise InputError(
                f"Hidden states of batch {index} before layer {layer} are damaged or gone.", "Start the analysis again."
            )
        return found

    def known(self, layer: int, index: int) -> bool:
        """Whether an earlier run has left it whole."""
        found = self._read(layer, index)
        if found is not None:
            self._hold(layer, index, found)
        return found is not None

    def forget(self, layer: int, index: int) -> None:
        self._checkpoint.forget(self.name(layer, index))

    def _hold(self, layer: int, index: int, hidden: torch.Tensor) -> None:
        if self._free is None:
            self._held[layer, index] = hidden
        elif hidden.nbytes <= self._free:
            self._held[layer, index] = hidden
            self._free -= hidden.nbytes

    def _read(self, layer: int, index: int) -> torch.Tensor | None:
        pieces = self._checkpoint.read(self.name(layer, index))
        if pieces is None:
            return None
        return torch.from_numpy(pieces["bytes"].copy()).view(self._dtype).view(*pieces["shape"].tolist())
