"""The virtual model: a reference in memory that answers as any model that could be pruned from it, before it is built.

virtual = VirtualModel.load(folder)
ruler = Ruler(virtual, held_out(virtual.tokenizer, prompts), cache)
ruler.measure(drop_map).classes["math"].kl_mean
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from studio.checkpoints.reference import Reference, open_reference
from studio.contributions.checkpoint import key_of
from studio.contributions.preflight import Estimate
from studio.errors import InputError, ResourceError
from studio.evaluate.divergence import Divergence, TokenDivergences, joined, summarised, token_divergences
from studio.evaluate.held_out import CONTINUATION_TOKENS, HeldOut, Passage
from studio.evaluate.masking import masked
from studio.evaluate.reference_logits import MEMORY_BYTES, Entry, LogitCache
from studio.families.base import MoeShape
from studio.progress import Progress, silent
from studio.recipes.dropmap import DropMap

BATCH_TOKENS = 4096
"""With padding; a batch of this size keeps two cores busy and its activations small."""
LOGIT_BYTES = 256 << 20
"""The logits of one batch take no more than this, unless a single prompt's do."""


@dataclass(frozen=True, eq=False)
class VirtualModel:
    """A transformers model with experts, in evaluation mode, and everything that could be pruned from it."""

    model: Any
    tokenizer: Any
    shape: MoeShape
    key: str
    """Stands for the model as it is loaded, and so for every number that it gives on the same tokens."""

    @classmethod
    def load(cls, model_dir: Path, dtype: str = "auto") -> VirtualModel:
        """The safetensors model in `model_dir`, on the GPU where it fits there, else shared with main memory.

        `dtype` is one of those of `analyze`; "auto" is that of the checkpoint, but float32 on a CPU that has the memory
        for it, where that is faster. Raises `InputError` for what is no such model, `UnsupportedError` for an unknown
        architecture, `ResourceError` for one that is larger than memory.
        """
        from studio.contributions.observation import Request, load, model_place_key

        shape = _checkpoint(Path(model_dir)).shape
        chosen, dtype = _way(Path(model_dir), dtype)
        model, tokenizer = load(Request(Path(model_dir), [], shape, dtype, 1, 0, False), chosen.device)
        return cls(model, tokenizer, shape, model_place_key(Path(model_dir), f"{model.dtype} {dtype}", chosen.device))

    @contextmanager
    def pruned(self, drop: DropMap | None) -> Iterator[None]:
        """While open, the model is the one that `drop` leaves, or the reference for None.

        Raises what `DropMap.check` raises for a map that does not fit.
        """
        if drop is not None:
            drop.check(self.shape)
        with nullcontext() if drop is None else masked(self.model, drop.mask, self.shape):
            yield


def _checkpoint(model_dir: Path) -> Reference:
    reference = open_reference(model_dir)
    if reference.kind != "safetensors":
        raise InputError(f"{reference.name} is a GGUF file, and cannot be loaded in torch.", "Open the checkpoint.")
    return reference


def _way(model_dir: Path, dtype: str) -> tuple[Estimate, str]:
    """Where the model goes, and in which dtype; `ResourceError` when it fits nowhere."""
    from studio.contributions.measuring import measure as foresee
    from studio.contributions.prompts import Prompt

    one_token = [Prompt("load", "load", (), passage="a")]
    config = _checkpoint(model_dir).config
    found: list[tuple[Estimate, str]] = []
    for wanted in ("auto", "float32") if dtype == "auto" else (dtype,):
        foreseen = foresee(model_dir, config, one_token, dtype=wanted, continuation_tokens=0)
        found += [(way, wanted) for way in foreseen.estimates if way.mode != "layered"]
    possible = [(way, wanted) for way, wanted in found if way.possible]
    for way, wanted in possible:
        if way.device != "cpu" or wanted == "float32" or dtype != "auto":
            return way, wanted
    if possible:
        return possible[0]
    reasons = dict.fromkeys(way.reason for way, _ in found)
    raise ResourceError(
        f"{model_dir.name} does not fit in memory: {' '.join(reasons)}",
        "Load it with experts in four bits (nf4), use a machine with more memory, or measure the built files.",
    )


@dataclass(frozen=True)
class Measurement:
    """How far a pruned model is from its reference on held-out prompts."""

    map_hash: str
    """`DropMap.content_hash`; empty for the reference itself."""
    story: str
    """Of the prompts: sources and fingerprint."""
    prompts: int
    seconds: float
    """Of the measurement, without the reference's own pass."""
    overall: Divergence
    """Over the tokens of all classes."""
    classes: Mapping[str, Divergence]

    @property
    def kl(self) -> float:
        """The mean over classes of their mean divergence, in nats per token: each class counts the same."""
        return float(np.mean([one.kl_mean for one in self.classes.values()]))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is not finite is None in it."""
        return {
            **{name: getattr(self, name) for name in ("map_hash", "story", "prompts", "seconds")},
            "kl": _finite(self.kl),
            "overall": _fields(self.overall),
            "classes": {klass: _fields(one) for klass, one in self.classes.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Measurement:
        """The counterpart of `to_json`."""
        return cls(
            content["map_hash"],
            content["story"],
            content["prompts"],
            content["seconds"],
            _divergence(content["overall"]),
            {klass: _divergence(one) for klass, one in content["classes"].items()},
        )


class Ruler:
    """Held-out prompts, and the reference's logits on them, to hold pruned models against.

    `cache` is the folder for logits, None keeps none on disk. The reference is passed over once, at the first
    measurement or in `prepare`; every map then costs one pass.
    """

    def __init__(self, virtual: VirtualModel, prompts: HeldOut, cache: Path | None = None) -> None:
        self.virtual = virtual
        self.story = prompts.story
        self._passages = prompts.passages
        self._cache = None if cache is None else LogitCache(cache)
        self._entry: Entry | None = None
        self._memory: list[Any] | None = None
        self._batches: list[list[int]] = []

    def prepare(self, progress: Progress = silent) -> None:
        """Let the reference answer what is open, and keep its logits; a second call does nothing."""
        if self._batches:
            return
        asked = [[passage.tokens, passage.first, passage.open] for passage in self._passages]
        key = key_of([self.virtual.key, asked, CONTINUATION_TOKENS, BATCH_TOKENS, LOGIT_BYTES])[:32]
        self._entry = self._cache.find(key) if self._cache else None
        if self._entry is not None:
            answered = self._entry.read_sequences()
            self._passages = tuple(p.answered(tokens) for p, tokens in zip(self._passages, answered, strict=True))
        else:
            self._answer(progress)
        self._batches = self._planned()
        size = sum(passage.counted for passage in self._passages) * self._bytes_per_token
        if size <= MEMORY_BYTES:
            self._memory = [
                self._entry.read(number) if self._entry else self._logits(batch)
                for number, batch in enumerate(self._reported(progress, "reading the reference"))
            ]
        if self._entry is None and self._cache is not None and self._cache.fits(size):
            self._entry = self._cache.make(key, size, lambda entry: self._write(entry, progress))

    def measure(self, drop: DropMap | None, progress: Progress = silent) -> Measurement:
        """The model that `drop` leaves, against the reference. Raises as `VirtualModel.pruned` does."""
        self.prepare(progress)
        start = time.perf_counter()
        parts: list[tuple[str, TokenDivergences]] = []
        for number, batch in enumerate(self._reported(progress, "measuring")):
            reference = self._reference(number)
            with self.virtual.pruned(drop):
                candidate = self._logits(batch)
            parts += self._compared(batch, reference, candidate)
        classes = dict.fromkeys(passage.klass for passage in self._passages)
        return Measurement(
            map_hash="" if drop is None else drop.content_hash,
            story=self.story,
            prompts=len(self._passages),
            seconds=time.perf_counter() - start,
            overall=summarised(joined(part for _, part in parts)),
            classes={klass: summarised(joined(part for of, part in parts if of == klass)) for klass in classes},
        )

    def _answer(self, progress: Progress) -> None:
        """Let the reference answer the prompts that have no answer."""
        from studio.contributions.sequences import TokenSequence, continue_greedily

        waiting = [index for index, passage in enumerate(self._passages) if passage.open]
        sequences = [TokenSequence(self._passages[index].tokens, False, True) for index in waiting]
        passages = list(self._passages)
        pad = self.virtual.tokenizer.pad_token_id or 0
        answers = continue_greedily(self.virtual.model, sequences, CONTINUATION_TOKENS, pad)
        with _inference():
            for done, (place, sequence) in enumerate(answers):
                passages[waiting[place]] = passages[waiting[place]].answered(sequence.tokens)
                progress(done + 1, len(waiting), "prompts", "letting the reference answer")
        self._passages = tuple(passages)

    def _planned(self) -> list[list[int]]:
        """Indices of the passages that count, in batches that are neither too many tokens nor too many logits."""
        from studio.contributions.sequences import plan_batches

        counting = [index for index, passage in enumerate(self._passages) if passage.counted > 0]
        most = max(1, LOGIT_BYTES // self._bytes_per_token)
        batches: list[list[int]] = []
        for planned in plan_batches([len(self._passages[index].tokens) for index in counting], BATCH_TOKENS):
            batch: list[int] = []
            logits = 0
            for index in (counting[place] for place in planned):
                if batch and logits + self._passages[index].counted > most:
                    batches.append(batch)
                    batch, logits = [], 0
                batch.append(index)
                logits += self._passages[index].counted
            batches.append(batch)
        return batches

    @property
    def _bytes_per_token(self) -> int:
        head = self.virtual.model.get_output_embeddings()
        return int(head.weight.shape[0]) * int(self.virtual.model.dtype.itemsize)

    def _write(self, entry: Entry, progress: Progress) -> None:
        for number, batch in enumerate(self._reported(progress, "reading the reference")):
            entry.write(number, self._memory[number] if self._memory else self._logits(batch))
        entry.write_sequences([list(passage.tokens) for passage in self._passages])

    def _reference(self, number: int) -> Any:
        if self._memory is not None:
            return self._memory[number]
        return self._entry.read(number) if self._entry else self._logits(self._batches[number])

    def _logits(self, batch: Sequence[int]) -> Any:
        """The model as it is now, on the counted tokens of `batch`: logits `[counted, V]` on the CPU, in its dtype."""
        return counted_logits(self.virtual, [self._passages[index] for index in batch])

    def _compared(self, batch: Sequence[int], reference: Any, candidate: Any) -> Iterator[tuple[str, TokenDivergences]]:
        """(class, divergences) of each passage of `batch`."""
        start = 0
        for passage in (self._passages[index] for index in batch):
            rows = slice(start, start + passage.counted)
            following = np.array(passage.tokens[passage.first : passage.first + passage.counted], dtype=np.int64)
            yield passage.klass, token_divergences(reference[rows].float(), candidate[rows].float(), following)
            start = rows.stop

    def _reported(self, progress: Progress, message: str) -> Iterator[list[int]]:
        total, done = sum(map(len, self._batches)), 0
        for batch in self._batches:
            progress(done, total, "prompts", message)
            yield batch
            done += len(batch)
        progress(done, total, "prompts", message)


def counted_logits(virtual: VirtualModel, passages: Sequence[Passage]) -> Any:
    """One pass over `passages`: what predicts their counted tokens, logits `[counted, V]` on the CPU, in their order.

    Only those are computed: what flows into the output embeddings is cut to them, and whatever a model does to its
    logits after that (a cap, a scale) it does to each by itself.
    """
    import torch

    from studio.contributions.collector import padded
    from studio.contributions.modules import input_device

    tokens, mask, _ = padded(
        [passage.tokens for passage in passages], virtual.tokenizer.pad_token_id or 0, input_device(virtual.model)
    )
    places = [
        row * tokens.shape[1] + passage.first - 1 + offset
        for row, passage in enumerate(passages)
        for offset in range(passage.counted)
    ]

    def only_counted(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = arguments[0]  # (Q, T, H)
        chosen = torch.tensor(places, device=hidden.device)
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, chosen).unsqueeze(0), *arguments[1:])

    hook = virtual.model.get_output_embeddings().register_forward_pre_hook(only_counted)
    try:
        with _inference():
            return virtual.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits.squeeze(0).cpu()
    finally:
        hook.remove()


def _inference() -> Any:
    import torch

    return torch.inference_mode()


def _fields(divergence: Divergence) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in asdict(divergence).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _divergence(content: Mapping[str, Any]) -> Divergence:
    values: dict[str, Any] = {field.name: content[field.name] for field in fields(Divergence)}
    values |= {name: float("nan") for name, value in values.items() if value is None}
    return Divergence(**values)
