"""The verb that looks for recipes that harm a model least."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.measure import Dtype, Sources
from studio.cli.prompts import Class, Columns, Limit, MaxTokens, Seed, Thinking, calibration_of
from studio.cli.terminal import Json, model_path, progress_bar, result
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.evaluate.search_run import SearchResult


def search(
    model: Annotated[Path, typer.Argument(help="Folder of a safetensors model, or the word demo.", metavar="MODEL")],
    *,
    contributions: Annotated[Path, typer.Option(help="Contributions, or a published analysis (JSON).")],
    drop: Annotated[list[int], typer.Option(min=1, help="Experts to drop in every layer. May be given several times.")],
    out: Annotated[Path, typer.Option(help="The folder to write to. A search that is there goes on.")],
    budget: Annotated[float, typer.Option(min=1, help="Seconds, those of earlier runs included.")] = 120.0,
    prompts: Sources = None,
    unseen: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="What the end is measured on. By default half of the prompts, by --seed."),
    ] = None,
    column: Columns = None,
    klass: Class = None,
    limit: Limit = None,
    per_class: Annotated[int, typer.Option(min=2, help="Prompts of each class, in both parts together.")] = 80,
    seed: Seed = 0,
    max_tokens: MaxTokens = 4096,
    thinking: Thinking = False,
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Look for the recipes that harm a model least, by measuring them without building anything.

    First come the fixed criteria, and each class weighted once; then an optimiser over the recipe's parameters, and
    swaps of single experts, in turn. The same seed gives the same recipes, and a larger budget more of them. At the end
    the best are measured on prompts that the search has not seen, which is not part of the budget.

    Every recipe stands in the folder as soon as it is measured. After an interruption the same command goes on.
    """
    from studio.contributions.importers import import_analysis
    from studio.evaluate.held_out import own_prompts
    from studio.evaluate.search_run import SearchRequest, run_search

    folder = model_path(model)
    with progress_bar() as progress:
        sources = [prompts or [own_prompts(folder)], *([unseen] if unseen else [])]
        parts = [
            calibration_of(one, column=column, klass=klass, limit=limit, per_class=per_class, seed=seed)
            for one in sources
        ]
        request = SearchRequest(
            folder,
            import_analysis(contributions, progress),
            parts[0],
            tuple(drop),
            seed=seed,
            dtype=dtype,
            max_tokens=max_tokens,
            thinking=thinking,
            unseen=parts[1] if unseen else None,
        )
        found = run_search(request, out, budget_s=budget, cache=Workspace.open().cache / "logits", progress=progress)
    result(json, {"folder": str(out), **found.to_json()}, f"{_described(found)}\nRecipes and maps are in {out}.")


def _described(found: SearchResult) -> str:
    """The table of finalists."""
    classes = found.classes
    seconds = sum(point.seconds for point in found.points)
    lines = [
        f"{len(found.points)} recipes measured in {seconds:.0f} s. KL divergence on unseen prompts, in nats per token:",
        f"  {'dropped':>7}  {'chosen by':<18}{'mean':>9}" + "".join(f"{klass[:11]:>12}" for klass in classes),
    ]
    for one in found.finalists:
        per_class = "".join(f"{one.unseen.classes[klass].kl_mean:>12.4f}" for klass in classes)
        lines.append(f"  {one.drop:>7}  {one.label:<18}{one.unseen.kl:>9.4f}{per_class}")
    return "\n".join(lines)
