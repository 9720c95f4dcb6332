"""The verbs that measure: a model on a task, all results as one table, and files of questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from studio.cli.models import as_gguf
from studio.cli.terminal import Json, Overwrite, note, progress_bar, result
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.evaluate.configuration import Configuration
    from studio.evaluate.results import Result

Model = Annotated[Path, typer.Argument(help="A GGUF file, a safetensors folder, or demo.", metavar="MODEL")]
PerCategory = Annotated[int, typer.Option(min=0, help="Questions of each category; 0 takes all.")]
SubsetSeed = Annotated[int, typer.Option(help="Which questions of each category; the same seed, the same ones.")]
Configured = Annotated[
    str | None, typer.Option(help="For instance greedy; by default the official one of the reference's family.")
]
Thinking = Annotated[bool, typer.Option("--thinking", help="Let the models think first.")]
Slots = Annotated[int, typer.Option(min=1, max=64, help="Questions that are answered at once.")]


def evaluate(
    model: Model,
    *,
    task: Annotated[str, typer.Option(help="A file of JSON lines (see `tasks show --help`), or demo.")],
    against: Annotated[Path | None, typer.Option(help="A reference, which is asked the same.")] = None,
    per_category: PerCategory = 20,
    seed: SubsetSeed = 42,
    configuration: Configured = None,
    thinking: Thinking = False,
    slots: Slots = 4,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Ask a model questions with known answers, and compare it with a reference.

    What was measured already is not measured again; interrupted and called again, it goes on where it was.
    """
    from studio.demo.task import task_named
    from studio.evaluate.runner import evaluate as measure

    chosen, workspace = task_named(task).subset(per_category or None, seed), Workspace.open()

    def ask(file: Path, locked: Configuration, **also: Any) -> Result:
        return measure(file, chosen, locked, workspace, slots=slots, overwrite=overwrite, **also)

    locked, measured = _measured(ask, against, model, configuration, thinking)
    note(f"{chosen.name}: {len(chosen.questions)} questions, configuration {locked.name}")
    _tell(json, measured)


def harness(
    model: Model,
    *,
    task: Annotated[str, typer.Option(help="A task as lm-evaluation-harness calls it.")],
    against: Annotated[Path | None, typer.Option(help="A reference, which is asked the same.")] = None,
    include: Annotated[Path | None, typer.Option(help="A folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many questions.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    configuration: Configured = None,
    thinking: Thinking = False,
    slots: Slots = 4,
    json: Json = False,
) -> None:
    """Run a generative task of lm-evaluation-harness against a model.

    The harness is optional: pip install "lm_eval[api]".
    """
    from studio.evaluate.harness import measure_with_harness

    workspace = Workspace.open()

    def ask(file: Path, locked: Configuration, **also: Any) -> Result:
        asked: dict[str, Any] = {"include": include, "limit": limit, "shots": shots, "slots": slots}
        return measure_with_harness(file, task, locked, workspace, **asked, **also)

    _, measured = _measured(ask, against, model, configuration, thinking)
    _tell(json, measured)


def results(
    *,
    against: Annotated[
        str | None, typer.Option(help="Compare all with this model: its file name, path, or the start of its sha256.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="model, bytes, or how a column's title begins.")] = None,
    descending: Annotated[
        bool | None, typer.Option("--descending/--ascending", help="By default the best comes first.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the table to a .csv or .md file.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show all results of the workspace as one table."""
    from dataclasses import asdict

    from studio.evaluate import results_table
    from studio.evaluate.results import read_results

    found, damaged = read_results(Workspace.open())
    for error in damaged:
        note(str(error))
    table = results_table.table_of(found, against)
    table = table if sort is None else table.sorted_by(sort, descending=descending)
    if export is not None:
        results_table.export(table, export, overwrite=overwrite)
    rows = [
        {
            "model": row.model.model_dump(),
            "values": {column.title: value.model_dump() for column, value in row.values.items()},
            "comparisons": [asdict(comparison) for comparison in row.comparisons.values()],
        }
        for row in table.rows
    ]
    text = results_table.as_markdown(table).strip() if found else "Nothing has been measured yet."
    result(json, {"rows": rows}, f"{export}: {len(rows)} models." if export else text)


def show_task(
    file: Annotated[str, typer.Argument(help="A file of JSON lines, or demo.", metavar="FILE.jsonl")],
    *,
    per_category: PerCategory = 0,
    seed: SubsetSeed = 42,
    json: Json = False,
) -> None:
    """Check a file of questions, and count them.

    A line holds "question" and "answer", perhaps "category" and "id". With "options", a list, the answer is the letter
    of one; without, the final answer has to match "answer", or one of a list.
    """
    from studio.demo.task import task_named

    task = task_named(file).subset(per_category or None, seed)
    counts = [f"  {name}: {count}" for name, count in task.categories.items()]
    text = "\n".join([f"{task.name}: {len(task.questions)} questions", *counts])
    fields = {"name": task.name, "sha256": task.sha256, "questions": len(task.questions)}
    result(json, {**fields, "categories": task.categories}, text)


def convert_task(
    format_: Annotated[Literal["mmlu-pro"], typer.Argument(help="Whose columns the file has.", metavar="FORMAT")],
    file: Annotated[Path, typer.Argument(help="A parquet file or JSON lines.", metavar="IN")],
    *,
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.")],
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Make a file of questions from a benchmark's own; FORMAT is mmlu-pro."""
    from studio.evaluate.tasks.mmlu_pro import read_mmlu_pro
    from studio.evaluate.tasks.task import write_task

    count = write_task(out, read_mmlu_pro(file), overwrite=overwrite)
    result(json, {"out": str(out), "format": format_, "questions": count}, f"{out}: {count} questions.")


def _measured(
    measure: Callable[..., Result], against: Path | None, model: Path, configuration: str | None, thinking: bool
) -> tuple[Configuration, list[Result]]:
    """What `measure` makes of the reference, where there is one, and of the model, in one configuration for both."""
    with progress_bar() as progress:
        named = [path for path in (against, model) if path is not None]
        files = [as_gguf(path, progress) for path in named]
        locked = _locked(configuration, files[0], thinking)
        pairs = zip(named, files, strict=True)
        return locked, [measure(file, locked, name=path.name, progress=progress) for path, file in pairs]


def _locked(name: str | None, reference: Path, thinking: bool) -> Configuration:
    """The configuration that a person named, or the official one of the reference's family."""
    from studio.evaluate.configuration import configuration_for, configuration_named

    return configuration_named(name, thinking=thinking) if name else configuration_for(reference, thinking=thinking)


def _tell(as_json: bool, measured: list[Result]) -> None:
    """What a model scored, and where there is a reference, the first of `measured`, how they compare."""
    from dataclasses import asdict

    from studio.evaluate import results_table
    from studio.evaluate.results import different_versions
    from studio.evaluate.statistics import in_words

    lines = [results_table.in_words(one) for one in measured]
    fields: dict[str, Any] = {"model": _fields(measured[-1])}
    if len(measured) > 1:
        comparison = results_table.compare_results(measured[0], measured[-1])
        says = in_words(comparison)
        fields |= {"against": _fields(measured[0]), "comparison": asdict(comparison), "says": says}
        lines.append(says)
        if warning := different_versions(measured[0], measured[-1]):
            note(warning)
    result(as_json, fields, "\n".join(lines))


def _fields(measured: Result) -> dict[str, Any]:
    values = {name: value.model_dump() for name, value in measured.values.items()}
    return {"model": measured.model.model_dump(), "values": values, "result": measured.file_name}
