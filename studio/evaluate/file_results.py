"""The divergence of a GGUF file as a `Result` that lives with the file: measured once, and found again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.contributions.calibration import Calibration
from studio.contributions.checkpoint import key_of
from studio.errors import InputError
from studio.evaluate.divergence import Divergence
from studio.evaluate.files import diverge
from studio.evaluate.logits import LogitsProcess
from studio.evaluate.reference_logits import LogitCache
from studio.evaluate.reference_rows import Keep
from studio.evaluate.results import Result, Value, file_name, find, folder_of, ground_of, model_record
from studio.evaluate.samples import (
    PROMPT_CONTEXT,
    TEXT_CONTEXT,
    Samples,
    read_text,
    samples_of_prompts,
    samples_of_text,
)
from studio.evaluate.statistics import wilson
from studio.progress import Progress, silent
from studio.quantize.fit import context_length
from studio.quantize.placement import Offload
from studio.workspace import Workspace

KIND = "divergence"
_NORMAL_95 = 1.959964
"""A normal distribution lies within so many standard errors with 95 %."""


@dataclass(frozen=True)
class Ground:
    """What two files are compared on: the text of a file, or prompts, exactly one of them."""

    text: Path | None = None
    calibration: Calibration | None = None
    context: int | None = None
    """Tokens of a chunk, or of a prompt with its answer; None is 512 and 4096, as far as the model goes."""
    continuation: int = 128
    """Of an open prompt: tokens that the reference itself answers."""
    thinking: bool = False

    def __post_init__(self) -> None:
        if (self.text is None) == (self.calibration is None):
            raise InputError("A text and prompts are two different grounds.", "Name one of them.")

    @property
    def name(self) -> str:
        """Of the text or the sources, for a person."""
        return self.text.name if self.text else " + ".join(self.calibration.sources if self.calibration else ())

    def fixed(self, reference: GgufHeader) -> Ground:
        """With the context that is meant for `reference` where none was named."""
        most = context_length(reference)
        usual = TEXT_CONTEXT if self.text else PROMPT_CONTEXT
        return self if self.context else replace(self, context=min(usual, most or usual))

    @property
    def configuration(self) -> dict[str, Any]:
        if self.text:
            return {"context": self.context, "scored": "the second half of every chunk"}
        asked = {"continuation": self.continuation, "thinking": self.thinking}
        return {"context": self.context, "scored": "answers", **asked}

    @property
    def inputs(self) -> dict[str, Any]:
        """Raises `InputError` as `read_text` does."""
        if self.text:
            return {"text": self.text.name, "sha256": hashlib.sha256(read_text(self.text).encode()).hexdigest()}
        assert self.calibration
        return {"prompts": list(self.calibration.sources), "sha256": self.calibration.digest}

    def samples(self, model: LogitsProcess, header: GgufHeader) -> Samples:
        """What both models read, made with the tokenizer and the template of the reference."""
        assert self.context
        if self.text:
            return samples_of_text(model, read_text(self.text), self.context)
        assert self.calibration
        template = header.values.get("tokenizer.chat_template")
        return samples_of_prompts(
            model,
            template if isinstance(template, str) else None,
            self.calibration.prompts,
            context=self.context,
            continuation=self.continuation,
            thinking=self.thinking,
        )


def measure(
    candidate: Path,
    reference: Path,
    ground: Ground,
    workspace: Workspace,
    *,
    reference_name: str | None = None,
    together: bool | None = None,
    threads: int | None = None,
    offload: Offload | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> tuple[Result, Path]:
    """How far `candidate` is from `reference` on `ground`, and the file of the result.

    `reference_name` is what to call the reference, where that is not its file's name.

    What was measured before, of the same bytes on the same ground, is not measured again unless `overwrite` is true.
    The logits of the reference are kept for the next candidate, see `diverge`. Raises as `diverge` and `read_text` do.
    """
    ground = ground.fixed(read_header(reference))
    model = model_record(candidate, workspace, progress)
    against = model_record(reference, workspace, progress, name=reference_name)
    key = ground_of(KIND, ground.name, ground.configuration, ground.inputs, against)
    name = file_name(KIND, ground.name, key, model.sha256)
    folder = folder_of(candidate, workspace)
    if not overwrite and (known := find(candidate, name, workspace)):
        return known, folder / name
    assert ground.context
    kept_for = key_of([against.sha256, ground.configuration, ground.inputs["sha256"]])
    with TemporaryDirectory(dir=workspace.cache, prefix="logits-") as scratch:
        found = diverge(
            candidate,
            reference,
            ground.samples,
            context=ground.context,
            scratch=Path(scratch),
            together=together,
            threads=threads,
            offload=offload,
            keep=Keep(LogitCache(workspace.cache / "logits"), kept_for),
            progress=progress,
        )
    result = Result(
        kind=KIND,
        name=ground.name,
        model=model,
        reference=against,
        configuration=ground.configuration,
        inputs=ground.inputs,
        values=values_of(found.overall),
        versions={"xllamacpp": version("xllamacpp")},
        details=found.to_json(),
    )
    return result, result.write(folder, overwrite=overwrite)


def values_of(one: Divergence) -> dict[str, Value]:
    """The numbers of a divergence as results have them, the mean KL divergence first."""
    reach = _NORMAL_95 * one.kl_mean_error
    same = wilson(round(one.same_top * one.tokens), one.tokens)
    return {
        "KL divergence": Value(
            value=one.kl_mean, low=max(0.0, one.kl_mean - reach), high=one.kl_mean + reach, unit="nats", better="lower"
        ),
        "same top token": Value(value=one.same_top, low=same.low, high=same.high, unit="share", better="higher"),
        "perplexity": Value(value=one.candidate_perplexity, unit="perplexity", better="lower"),
        "perplexity ratio": Value(value=one.perplexity_ratio, unit="ratio", better="lower"),
        "tokens": Value(value=one.tokens, unit="count"),
    }


def in_words(result: Result) -> str:
    """What a result says, for a terminal: a line for all, and one per class where there are several."""
    details: Any = result.details
    of = {"all": details["overall"], **details["by_class"]} if len(details["by_class"]) > 1 else details["by_class"]
    width = max(map(len, of))
    lines = [f"{result.model.name} against {result.reference.name if result.reference else ''}, on {result.name}:"]
    lines += [f"  {klass:<{width}}  {_line(one)}" for klass, one in of.items()]
    if details["cut"]:
        lines.append(f"  {details['cut']} prompts were cut to {details['context']} tokens.")
    if details["left_out"]:
        lines.append(f"  {details['left_out']} prompts left no token of an answer to score.")
    return "\n".join(lines)


def _line(one: dict[str, Any]) -> str:
    def shown(name: str, form: str) -> str:
        return "infinite" if one[name] is None else format(one[name], form)

    parts = [
        f"KL divergence {shown('kl_mean', '.4f')} ± {shown('kl_mean_error', '.4f')} (median "
        f"{shown('kl_median', '.4f')}, 99 % {shown('kl_p99', '.3f')})",
        f"same top token {shown('same_top', '.1%')}",
        f"perplexity {shown('candidate_perplexity', '.4g')} for {shown('reference_perplexity', '.4g')}",
        f"{one['tokens']:,} tokens",
    ]
    return ", ".join(parts)
