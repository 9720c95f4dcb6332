"""The verb that shows prompts as a model will see them, and the options that choose prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from studio.cli.terminal import Json, model_path, result

if TYPE_CHECKING:
    from studio.contributions.calibration import Calibration
    from studio.contributions.prompt_preview import PromptPreview, SeenPrompt
    from studio.contributions.prompts import Prompt

BUILTIN = "builtin"
SOURCE_HELP = (
    "builtin, builtin:code,math, JSON lines (class, prompt or messages, perhaps answer), .parquet, .txt (passages "
    "between blank lines, seen without a chat template), or hf:OWNER/NAME[:CONFIG][:SPLIT]."
)

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="KEY=COLUMN",
        help="What a file or data set calls prompt, messages, text, answer, class or id. May be given several times.",
    ),
]
Class = Annotated[str | None, typer.Option("--class", help="The class of prompts whose source names none.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Rows drawn from each file or data set.")]
PerClass = Annotated[int | None, typer.Option(min=1, help="Prompts drawn from each class.")]
Seed = Annotated[int, typer.Option(help="Decides what --limit and --per-class draw.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longer prompts are cut, and marked so.")]
Continuation = Annotated[
    int,
    typer.Option(
        min=0,
        help="Tokens the model answers where a prompt has none; 0 observes the prompt alone. Few rank better than "
        "many: the first are those that the question decides, while a long answer drifts into generic text and "
        "repetition, and in sums over tokens the longest answers would outweigh all others.",
    ),
]
Thinking = Annotated[
    bool,
    typer.Option(
        "--thinking/--no-thinking",
        help="What the chat template is told. Given answers follow without a thought, so combine --thinking with "
        "--answers own.",
    ),
]

_Shown = TypeVar("_Shown", "Prompt", "SeenPrompt")


def prompts(
    sources: Annotated[list[str] | None, typer.Argument(metavar="SOURCE…", help=SOURCE_HELP)] = None,
    *,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a model, or the word demo: its tokenizer and chat template are used.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Prompts of each class to print in full.")] = 1,
    column: Columns = None,
    klass: Class = None,
    limit: Limit = None,
    per_class: PerClass = None,
    seed: Seed = 0,
    max_tokens: MaxTokens = 4096,
    continuation: Continuation = 128,
    thinking: Thinking = False,
    json: Json = False,
) -> None:
    """Show prompts: classes and counts, and with a model exactly what it will see, and how many tokens."""
    calibration = calibration_of(sources, column=column, klass=klass, limit=limit, per_class=per_class, seed=seed)
    seen = None
    if model is not None:
        from studio.contributions.encoding import load_tokenizer
        from studio.contributions.prompt_preview import preview_prompts

        seen = preview_prompts(
            load_tokenizer(model_path(model)),
            calibration.prompts,
            max_tokens=max_tokens,
            continuation_tokens=continuation,
            thinking=thinking,
        )
    text = "\n".join([_counts(calibration, seen), *_shown(calibration.prompts, seen, show)])
    result(json, _fields(calibration, seen, show), text)


def calibration_of(
    sources: Sequence[str] | None,
    *,
    column: Sequence[str] | None,
    klass: str | None,
    limit: int | None,
    per_class: int | None,
    seed: int,
) -> Calibration:
    """The prompts that the options of a verb describe; those that come with Espalier where they name none."""
    from studio.contributions.sources import columns_of, prompts_of

    return prompts_of(
        sources or BUILTIN,
        columns=columns_of(column or []),
        klass=klass,
        limit=limit,
        per_class=per_class,
        seed=seed,
    )


def _fields(calibration: Calibration, seen: PromptPreview | None, show: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "sources": list(calibration.sources),
        "sha256": calibration.digest,
        "questions": len(calibration.prompts),
        "classes": dict(calibration.classes),
    }
    if seen is None:
        return fields | {"prompts": [asdict(prompt) for prompt in _first(calibration.prompts, show)]}
    tokens = {klass: asdict(lengths) for klass, lengths in seen.classes.items()}
    return fields | {"tokens": tokens, "prompts": [asdict(prompt) for prompt in _first(seen.prompts, show)]}


def _counts(calibration: Calibration, seen: PromptPreview | None) -> str:
    head = f"{len(calibration.prompts)} prompts: {calibration.story}"
    if seen is None:
        return "\n".join([head, *(f"  {klass:<14}{count:>6}" for klass, count in calibration.classes.items())])
    lines = [head, f"  {'class':<14}{'prompts':>8}{'min':>8}{'median':>8}{'max':>8}{'tokens':>9}{'cut':>6}{'own':>6}"]
    for klass, of in seen.classes.items():
        lines.append(
            f"  {klass:<14}{of.prompts:>8}{of.shortest:>8}{of.median:>8.0f}{of.longest:>8}{of.total:>9}"
            f"{of.cut:>6}{of.open:>6}"
        )
    total = sum(of.total for of in seen.classes.values())
    return "\n".join([*lines, f"  {total} tokens in all; own: answered by the model itself, which adds to them."])


def _shown(prompts: Sequence[Prompt], seen: PromptPreview | None, show: int) -> list[str]:
    if seen is None:
        return [_unseen(prompt) for prompt in _first(prompts, show)]
    return [_seen(prompt) for prompt in _first(seen.prompts, show)]


def _unseen(prompt: Prompt) -> str:
    turns = [f"[{turn['role']}] {turn['content']}" for turn in prompt.messages]
    if prompt.passage is not None:
        turns.append(f"[passage] {prompt.passage}")
    if prompt.answer is not None:
        turns.append(f"[answer] {prompt.answer}")
    return "\n".join([f"\n── {prompt.id} ({prompt.klass})", *turns])


def _seen(prompt: SeenPrompt) -> str:
    parts = [f"\n── {prompt.id} ({prompt.klass})", f"[observed from here: {prompt.question_tokens} tokens]"]
    parts.append(prompt.question)
    if prompt.answer_tokens:
        parts += [f"[the given answer: {prompt.answer_tokens} tokens]", prompt.answer]
    if prompt.continuation_tokens:
        parts.append(f"[the model's own answer: at most {prompt.continuation_tokens} tokens]")
    parts.append(f"[observed up to here: {prompt.tokens} tokens are known]")
    if prompt.cut_tokens:
        parts += [f"[cut, and not seen: {prompt.cut_tokens} tokens]", prompt.cut]
    return "\n".join(parts)


def _first(prompts: Sequence[_Shown], show: int) -> list[_Shown]:
    """The first `show` of each class."""
    count: dict[str, int] = {}
    chosen = []
    for prompt in prompts:
        count[prompt.klass] = count.get(prompt.klass, 0) + 1
        if count[prompt.klass] <= show:
            chosen.append(prompt)
    return chosen
