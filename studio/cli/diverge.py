"""The verb that measures how far a quantized file is from its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.models import as_gguf
from studio.cli.prompts import (
    BUILTIN,
    SOURCE_HELP,
    Class,
    Columns,
    Continuation,
    Limit,
    PerClass,
    Seed,
    Thinking,
    calibration_of,
)
from studio.cli.terminal import Json, progress_bar, result
from studio.errors import InputError
from studio.workspace import Workspace


def diverge(
    candidate: Annotated[Path, typer.Argument(help="A GGUF file.", metavar="CANDIDATE.gguf")],
    *,
    against: Annotated[
        Path, typer.Option(help="Its reference: a GGUF file of the same vocabulary, a safetensors folder, or demo.")
    ],
    text: Annotated[
        Path | None, typer.Option(help="A text, compared in chunks of --context tokens as llama-perplexity does.")
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help=f"{SOURCE_HELP} By default {BUILTIN}, unless --text is given."),
    ] = None,
    column: Columns = None,
    klass: Class = None,
    limit: Limit = None,
    per_class: PerClass = None,
    seed: Seed = 0,
    continuation: Continuation = 128,
    thinking: Thinking = False,
    context: Annotated[
        int | None,
        typer.Option(min=4, help="Tokens of a chunk (512), or the most of a prompt with its answer (4096)."),
    ] = None,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--in-turn",
            help="Both models in memory, or one after the other with the reference's logits on disk. By default those "
            "are kept for the next candidate, and where they are too many it is what fits. The numbers are the same.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each model.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure again what was measured already.")] = False,
    json: Json = False,
) -> None:
    """Say how far a model's predictions are from those of its reference, on the same tokens.

    The result lies with the model, and is found again when the same is asked for.
    """
    from studio.evaluate.file_results import Ground, in_words, measure

    if text is not None and (prompts or column or klass or limit or per_class):
        raise InputError("--text is compared as it stands, without prompts.", "Name --text or --prompts, not both.")
    if text is None:
        calibration = calibration_of(prompts, column=column, klass=klass, limit=limit, per_class=per_class, seed=seed)
        ground = Ground(calibration=calibration, context=context, continuation=continuation, thinking=thinking)
    else:
        ground = Ground(text=text, context=context)
    with progress_bar() as progress:
        reference = as_gguf(against, progress)
        found, path = measure(
            candidate,
            reference,
            ground,
            Workspace.open(),
            reference_name=against.name,
            together=together,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
        )
    result(json, {"result": str(path), **found.details}, in_words(found))
