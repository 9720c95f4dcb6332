"""The verbs that look at what is there: insights of an analysis, similarity of experts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, model_path, progress_bar, result
from studio.errors import MismatchError

if TYPE_CHECKING:
    from studio.contributions.answers import Answers


def insights(
    contributions: Annotated[Path, typer.Argument(help="Contributions, or a published analysis.", metavar="C")],
    *,
    against: Annotated[
        Path | None, typer.Option(help="Another analysis of the same model: how alike both rank experts.")
    ] = None,
    json: Json = False,
) -> None:
    """Say how concentrated, shared and sure an analysis is, and which experts stand out."""
    from studio.contributions.answers import answers_of, findings, measure
    from studio.contributions.importers import import_analysis
    from studio.contributions.insights import measured, spearman

    with progress_bar() as progress:
        analysis = import_analysis(contributions, progress)
        other = None if against is None else import_analysis(against, progress)
    answers = answers_of(analysis)
    found = findings(answers)
    fields = _fields(answers)
    fields["findings"] = {name: {"title": one.title, "text": one.text} for name, one in found.items()}
    lines = [f"{contributions}: {len(analysis.questions)} questions. Contribution is {measure(analysis)}."]
    lines += [f"\n{one.title}.\n{one.text}" for one in found.values()]
    lines += ["", _layer_table(answers)]
    if answers.overlap is not None:
        lines += ["", _overlap_table(answers)]
    if answers.specialists:
        lines += ["", _specialist_table(answers)]
    if other is not None:
        if not other.shape.same_grid(analysis.shape):
            raise MismatchError(f"{against} is an analysis of another grid than {contributions}.")
        alike = spearman(measured(analysis).sum(axis=0), measured(other).sum(axis=0))
        fields["rank_correlation"] = dict(zip(analysis.shape.layer_ids, alike.tolist(), strict=True))
        listed = ", ".join(f"{one:.2f}" for one in alike)
        lines += [f"\n{against} ranks experts alike to {alike.mean():.2f} (Spearman, by layer {listed})."]
    result(json, fields, "\n".join(lines))


def similarity(
    model: Annotated[Path, typer.Argument(help="Safetensors folder, GGUF, or the word demo.", metavar="MODEL")],
    *,
    layers: Annotated[int, typer.Option(min=1, help="Layers to look at, drawn by lot.")] = 4,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of experts in each, drawn by lot.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the lots.")] = 0,
    json: Json = False,
) -> None:
    """Compare the weights of experts: whether some are so alike that one could stand in for two."""
    from dataclasses import asdict

    from studio.checkpoints.expert_weights import ExpertWeights
    from studio.checkpoints.reference import open_reference
    from studio.checkpoints.similarity import in_words
    from studio.checkpoints.similarity import similarity as compare

    weights = ExpertWeights(open_reference(model_path(model)))
    with progress_bar() as progress:
        found = compare(weights, layers=layers, pairs=pairs, seed=seed, progress=progress)
    rows = (
        [str(one.layer), f"{one.mean:.3f}", f"{one.largest:.3f}", "{} and {}".format(*one.experts)] for one in found
    )
    table = _table(["Layer", "Mean", "Most alike", "Experts"], rows)
    result(json, {"layers": [asdict(one) for one in found], "says": in_words(found)}, f"{in_words(found)}\n\n{table}")


def _fields(answers: Answers) -> dict[str, Any]:
    layers, classes = answers.contributions.shape.layer_ids, answers.contributions.classes
    overlap, halves = answers.overlap, answers.halves
    return {
        "layers": [
            {
                "layer": layer,
                "gini": float(answers.gini[row]),
                "experts_for_half": int(answers.half[row]),
                "experts_for_80_percent": int(answers.needed[row]),
                "importance": float(answers.importance[row]),
                "split_half": None if halves is None else float(halves[row]),
            }
            for row, layer in enumerate(layers)
        ],
        "top": answers.top,
        "overlap": None
        if overlap is None
        else {one: dict(zip(classes, line.tolist(), strict=True)) for one, line in zip(classes, overlap, strict=True)},
        "unused": None if answers.unused is None else [list(place) for place in answers.unused],
        "specialists": [vars(one) for one in answers.specialists],
        "enough_questions": answers.enough,
        "outliers": answers.outliers,
        "skipped_tokens": answers.skipped_tokens,
        "truncated_questions": answers.truncated,
        "estimated": list(answers.contributions.estimated),
    }


def _layer_table(answers: Answers) -> str:
    head = ["Layer", "Of the largest", "Gini", "For half", "For 80 %", "Halves agree"]
    halves = ["–"] * len(answers.gini) if answers.halves is None else [f"{one:.2f}" for one in answers.halves]
    rows = zip(
        map(str, answers.contributions.shape.layer_ids),
        [f"{one:.0%}" for one in answers.importance],
        [f"{one:.2f}" for one in answers.gini],
        map(str, answers.half),
        map(str, answers.needed),
        halves,
        strict=True,
    )
    return _table(head, rows)


def _overlap_table(answers: Answers) -> str:
    assert answers.overlap is not None
    classes = answers.contributions.classes
    rows = ([one, *(f"{value:.1f}" for value in line)] for one, line in zip(classes, answers.overlap, strict=True))
    return _table([f"Of the {answers.top} strongest", *classes], rows)


def _specialist_table(answers: Answers) -> str:
    rows = ([one.klass, str(one.layer), str(one.expert), f"{one.share:.0%}"] for one in answers.specialists)
    return _table(["Specialist of", "Layer", "Expert", "Share"], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they have to be, numbers to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
