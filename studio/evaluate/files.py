"""How far a GGUF file is from its reference, computed by llama.cpp on the same tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.errors import InputError, MismatchError, ResourceError, UnsupportedError
from studio.evaluate.divergence import Divergence, TokenDivergences, joined, summarised, token_divergences
from studio.evaluate.logits import LogitsProcess, Rows, block_sizes
from studio.evaluate.reference_rows import Keep, row_bytes
from studio.evaluate.samples import Sample, Samples
from studio.machine import free_ram, threads_for
from studio.progress import Progress, Tally, silent
from studio.quantize.card import free_card_bytes
from studio.quantize.fit import architecture_of, context_length, need_of
from studio.quantize.placement import Offload, placement, placements
from studio.staging import explained_disk_errors, require_disk

Prepare = Callable[[LogitsProcess, GgufHeader], Samples]
"""Makes the samples, with the tokenizer and the template of the reference."""

_VOCABULARY = ("tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges")


@dataclass(frozen=True)
class FileDivergence:
    """A candidate file against its reference."""

    overall: Divergence
    by_class: Mapping[str, Divergence]
    context: int
    """The most tokens that were read at a time."""
    cut: int
    left_out: int
    """Prompts that were cut to the context, and those of which nothing could be scored."""
    together: bool
    """Whether both were in memory at the same time; the numbers are the same."""

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            **asdict(self),
            "overall": _told(self.overall),
            "by_class": {klass: _told(one) for klass, one in self.by_class.items()},
        }


def diverge(
    candidate: Path,
    reference: Path,
    prepare: Prepare,
    *,
    context: int,
    scratch: Path,
    threads: int | None = None,
    together: bool | None = None,
    offload: Offload | None = None,
    wide: bool = False,
    keep: Keep | None = None,
    progress: Progress = silent,
) -> FileDivergence:
    """Compare two GGUF files on the samples that `prepare` makes, none longer than `context` tokens.

    With `keep`, the reference's logits are computed once and kept there for the next candidate, unless they are too
    many. What is not kept is computed by both models at the same time where memory allows, else one after the other,
    and the logits of the reference lie in a file in `scratch` meanwhile. `together` decides otherwise; true keeps
    nothing. All ways give the same numbers. `scratch` is a folder that gets the logs too. `offload` is what of both
    goes to the graphics card, by default what fits. `wide` is as for `LlamaModel`.

    Raises `UnsupportedError` for a file without a language model, `MismatchError` for two of different vocabularies,
    `InputError` for a context longer than the model's, `ResourceError` for too little memory or disk, `ProcessError`
    when llama.cpp fails, and what `prepare` raises.
    """
    headers = [read_header(path) for path in (reference, candidate)]
    require_comparable(headers[0], headers[1], context)
    scratch.mkdir(parents=True, exist_ok=True)
    opener = _Opener(context, scratch, threads, offload, wide)
    with ExitStack() as stack:
        ready = None
        if keep is not None and together is not True:
            _, offloads = _places(headers, context, together=False)
            ready = _kept(keep, opener, reference, prepare, placed=offloads[0], progress=progress)
        if ready is not None and ready.rows is not None:
            together = False
            stack.enter_context(ready.rows)
        else:
            together, offloads = _places(headers, context, together)
            prepare = prepare if ready is None else partial(_prepared, ready.samples)
            first = stack.enter_context(opener(reference, "reference", offloads[0], 2 if together else 1))
            if not together:
                samples = prepare(first, headers[0])
                tally = Tally(progress, 2 * samples.scored, "tokens")
                ready = _Ready(samples, stack.enter_context(_stored(samples, first, scratch, tally)), tally)
                first.close()
        second = stack.enter_context(opener(candidate, "candidate", offloads[1], 2 if together else 1))
        if together:
            samples = prepare(first, headers[0])
            tally = Tally(progress, samples.scored, "tokens")
            parts = _compared(samples, lambda sample: _asked(first, sample), second, tally)
        else:
            assert ready is not None and ready.rows is not None
            samples, rows, vocabulary = ready.samples, ready.rows, second.about["vocabulary"]
            parts = _compared(samples, lambda sample: _read(rows, sample.scored, vocabulary), second, ready.tally)
    classes = list(dict.fromkeys(sample.klass for sample in samples.samples))
    of_class = {
        klass: joined(part for sample, part in zip(samples.samples, parts, strict=True) if sample.klass == klass)
        for klass in classes
    }
    return FileDivergence(
        overall=summarised(joined(parts)),
        by_class={klass: summarised(part) for klass, part in of_class.items()},
        context=context,
        cut=samples.cut,
        left_out=samples.left_out,
        together=together,
    )


@dataclass(frozen=True)
class _Opener:
    """How both models are opened."""

    context: int
    scratch: Path
    threads: int | None
    offload: Offload | None
    wide: bool

    def __call__(self, path: Path, name: str, placed: Offload | None, sides: int) -> LogitsProcess:
        """The model at `path`, one of `sides` that compute at the same time."""
        return LogitsProcess(
            path,
            context=self.context,
            threads=self.each(sides),
            log=self.scratch / f"{name}.log",
            offload=self.offload or placed,
            wide=self.wide,
        )

    def each(self, sides: int) -> int:
        """Threads of each model."""
        return self.threads or threads_for(sides)


@dataclass(frozen=True)
class _Ready:
    """What the reference has to say, before the candidate is opened."""

    samples: Samples
    rows: IO[bytes] | None
    """Its logits for all samples, one after the other; None where they are too many to keep."""
    tally: Tally
    """Of what was computed for them, and of the candidate's part."""


def _kept(
    keep: Keep, opener: _Opener, path: Path, prepare: Prepare, *, placed: Offload | None, progress: Progress
) -> _Ready:
    """What is kept of the reference at `path`, computed unless it is there."""
    key = keep.key(context=opener.context, threads=opener.each(1), offload=opener.offload or placed, wide=opener.wide)
    known = keep.open(key)
    if known is not None:
        return _Ready(*known, Tally(progress, known[0].scored, "tokens"))
    with opener(path, "reference", placed, 1) as model:
        samples = prepare(model, read_header(path))
        tally = Tally(progress, 2 * samples.scored, "tokens")
        made = keep.make(key, samples, model.about["vocabulary"], lambda: _computed(model, samples, tally))
    known = keep.open(key) if made else None
    return _Ready(samples, None if known is None else known[1], tally)


def _prepared(samples: Samples, _model: LogitsProcess, _header: GgufHeader) -> Samples:
    return samples


def _computed(model: LogitsProcess, samples: Samples, tally: Tally) -> Iterator[Rows]:
    """The logits of the reference for all samples, one after the other."""
    for sample in samples.samples:
        for block in _asked(model, sample):
            yield block
            tally.advance(len(block), "Computing the reference")


def _compared(
    samples: Samples, reference_rows: Callable[[Sample], Iterator[Rows]], candidate: LogitsProcess, tally: Tally
) -> list[TokenDivergences]:
    """The divergences of each sample."""
    parts = []
    for sample in samples.samples:
        following = np.array(sample.tokens[sample.first + 1 :], dtype=np.int64)
        before, after = reference_rows(sample), _asked(candidate, sample)
        blocks, done = [], 0
        for left, right in zip(before, after, strict=True):
            blocks.append(token_divergences(left, right, following[done : done + len(left)]))
            done += len(left)
            tally.advance(len(left), "Comparing")
        parts.append(joined(blocks))
    return parts


def _asked(model: LogitsProcess, sample: Sample) -> Iterator[Rows]:
    """The logits of `model` for what it has to predict in `sample`; it begins to compute at once."""
    model.ask(sample.tokens[:-1], sample.first)
    return model.rows(sample.scored)


@contextmanager
def _stored(samples: Samples, reference: LogitsProcess, scratch: Path, tally: Tally) -> Iterator[IO[bytes]]:
    """The logits of `reference` for all samples, one after the other, in a file that vanishes, however this ends."""
    require_disk(scratch, row_bytes(samples, reference.about["vocabulary"]))
    with TemporaryFile(dir=scratch) as file:
        with explained_disk_errors(scratch / "logits"):
            for block in _computed(reference, samples, tally):
                file.write(block.data)
            file.seek(0)
        yield file


def _read(file: IO[bytes], count: int, vocabulary: int) -> Iterator[Rows]:
    """The next `count` rows of `file`, in the blocks that `LogitsProcess.rows` makes."""
    for rows in block_sizes(count, vocabulary):
        yield np.frombuffer(file.read(rows * vocabulary * 4), dtype=np.float32).reshape(rows, vocabulary)


def require_comparable(reference: GgufHeader, candidate: GgufHeader, context: int) -> None:
    """Raise unless both hold language models of one vocabulary that take `context` tokens; see `diverge`."""
    for header in (reference, candidate):
        architecture = architecture_of(header)
        if header.values.get(f"{architecture}.attention.causal") is False:
            raise UnsupportedError(
                f"{header.path} looks at a whole text at once, and predicts no next token.",
                "Choose the GGUF of a model that chats.",
            )
        most = context_length(header)
        if most is not None and context > most:
            raise InputError(
                f"{header.path} was made for {most} tokens at a time, and {context} are asked for.",
                f"Choose a context of {most} or less.",
            )
    if any(_raw(reference, key) != _raw(candidate, key) for key in _VOCABULARY):
        raise MismatchError(
            f"{candidate.path} has another vocabulary than {reference.path}: their predictions cannot be compared.",
            "Choose the reference that it was made from.",
        )


def _raw(header: GgufHeader, key: str) -> bytes | None:
    return header.values.pair_bytes(key) if key in header.values else None


def _places(headers: Sequence[GgufHeader], context: int, together: bool | None) -> tuple[bool, list[Offload | None]]:
    """Whether both run at the same time, as `together` says or as memory allows, and what of each goes to the card.

    Raises `ResourceError` where one does not fit even alone.
    """
    needs = [need_of(header, context) for header in headers]
    card, ram = free_card_bytes(), free_ram()
    found = placements(needs, card or 0, ram)
    models = found.models
    if together is not None and together != found.together:
        models = tuple(placement(need, (card or 0) // (2 if together else 1), ram) for need in needs)
    for header, model in zip(headers, models, strict=True):
        if model.kind == "no":
            raise ResourceError(
                model.reason.replace("It", header.path.name, 1), "Close something, or choose a smaller context."
            )
    chosen = [None if card is None else model.offload for model in models]
    return found.together if together is None else together, chosen


def _told(one: Divergence) -> dict[str, Any]:
    """Numbers for JSON, which has none for what is not a number or infinite."""
    values = {**asdict(one), "perplexity_ratio": one.perplexity_ratio}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
