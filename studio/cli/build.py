"""The verb that makes a whole artifact, as the page does."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.contributions import chosen_recipe, class_weights
from studio.cli.models import ClassWeights, Drop, ImatrixFile, Preset, RecipeFile, bytes_of, drop_map_at
from studio.cli.recipes import require_used
from studio.cli.terminal import DEMO, Json, progress_bar, result, size
from studio.errors import InputError
from studio.staging import FOLDER_MARK
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.checkpoints.reference import Reference
    from studio.contributions.model import Contributions
    from studio.recipes.dropmap import DropMap


def build(
    reference: Annotated[
        Path,
        typer.Argument(
            help="Folder of a safetensors model, a GGUF file, the name of one in the workspace, or demo.",
            metavar="REFERENCE",
        ),
    ],
    *,
    map_: Annotated[Path | None, typer.Option("--map", help="The drop map to build (JSON).")] = None,
    contributions: Annotated[
        Path | None,
        typer.Option(
            help="The analysis: a recipe makes the map from it; beside --map, it is what manifest, card and CD tiers "
            "go by."
        ),
    ] = None,
    recipe: RecipeFile = None,
    preset: Preset = None,
    drop: Drop = None,
    class_weight: ClassWeights = None,
    floor_contributions: Annotated[
        Path | None, typer.Option(help="The second analysis, where the recipe's floors go by one.")
    ] = None,
    safetensors: Annotated[bool, typer.Option("--safetensors", help="Make a pruned safetensors checkpoint.")] = False,
    tier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIER",
            help="Make a GGUF file of it: Q4_K_M, or a JSON file; may be given several times. Without one, a GGUF "
            "reference keeps the types that it has.",
        ),
    ] = None,
    imatrix: ImatrixFile = None,
    name: Annotated[
        str | None,
        typer.Option(help="What it is called; by default after the reference and the experts that it keeps."),
    ] = None,
    split_max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Split GGUF files into parts of this size, such as 5G.")
    ] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Take a reference that is quantized already.")
    ] = False,
    zero_nonfinite: Annotated[
        bool, typer.Option("--zero-nonfinite", help="Make zeros of NaN and infinity instead of refusing them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a build of this name.")] = False,
    json: Json = False,
) -> None:
    """Make a smaller model with its story: safetensors, GGUF files, and the manifest that says how they came to be.

    It is the job that the page starts, and lies where the page finds it; `verify`, `card`, `ollama`, `publish` and
    `replay` take its name. Ctrl-C cancels it. Where it was killed or paused, the same command goes on.
    """
    from studio.checkpoints.reference import open_reference
    from studio.contributions.importers import import_analysis
    from studio.jobs import adopt
    from studio.jobs.store import JobStore
    from studio.jobs.task import reference_path
    from studio.jobs.waiting import run_job

    workspace = Workspace.open()
    is_named = str(reference) == DEMO or workspace.model(str(reference)) is not None
    named = str(reference) if is_named and not reference.exists() else adopt.adopted_reference(workspace, reference)
    opened = open_reference(reference_path(workspace, named))
    analyses = {"contributions": contributions, "floor_contributions": floor_contributions}
    with progress_bar() as progress:
        read = {key: (path, import_analysis(path, progress)) for key, path in analyses.items() if path is not None}
    known = {key: analysis for key, (_, analysis) in read.items()}
    drop_map = _chosen(
        opened,
        map_,
        known,
        recipe=recipe,
        preset=preset,
        drop=drop,
        class_weight=class_weight,
        floor_contributions=floor_contributions,
    )
    made = [*(["safetensors"] if safetensors else []), *(["gguf"] if tier or opened.kind == "gguf" else [])]
    if not made:
        raise InputError("Nothing is to be made.", "Say --safetensors, or --tier and a tier, or both.")
    parameters: dict[str, Any] = {
        "reference": named,
        "name": name or f"{opened.name.rpartition('/')[2].removesuffix('.gguf')}-{drop_map.kept_count}e",
        "outputs": made,
        "tiers": [_tier_text(one) for one in tier or []],
        "requantize": allow_requantize,
        "zero_nonfinite": zero_nonfinite,
        "overwrite": overwrite,
    }
    for key, (path, analysis) in read.items():
        parameters[key] = str(adopt.adopted_analysis(workspace, path, analysis))
    text = drop_map.to_json()
    if known and "recipe_hash" in drop_map.provenance:
        parameters["recipe"] = drop_map.provenance["recipe"]
    elif drop_map.provenance:
        text = dumps(drop_map.to_metadata())
    parameters["map"] = _relative(workspace, adopt.adopted_text(workspace.maps, text))
    if imatrix is not None:
        parameters["imatrix"] = _relative(workspace, adopt.adopted_file(workspace, imatrix, workspace.imatrix))
    if split_max_size is not None:
        parameters["split_bytes"] = bytes_of(split_max_size)
    with progress_bar() as progress:
        job = run_job(JobStore(workspace), "build", parameters, progress)
    folder = workspace.artifacts / parameters["name"]
    files = [{**file, "path": str(workspace.root / file["path"])} for file in job.files]
    lines = [f"{size(file['bytes']):>12}  {Path(file['path']).relative_to(folder)}" for file in files]
    kept = f"{drop_map.kept_count} of {drop_map.experts} experts in each layer"
    lines.append(f"{folder}: {kept}, {size(sum(file['bytes'] for file in files))}, and the manifest.")
    fields = {
        "name": folder.name,
        "folder": str(folder),
        "manifest": str(folder / FOLDER_MARK),
        "files": files,
        "kept_experts": drop_map.kept_count,
        "map_hash": drop_map.content_hash,
        "job": job.id,
    }
    result(json, fields, "\n".join(lines))


def _chosen(
    opened: Reference,
    map_: Path | None,
    known: dict[str, Contributions],
    *,
    recipe: Path | None,
    preset: str | None,
    drop: int | None,
    class_weight: list[str] | None,
    floor_contributions: Path | None,
) -> DropMap:
    """The map to build, with its story: the one that is given, or the one that the recipe makes."""
    from studio.recipes.apply import make_map
    from studio.recipes.presets import scaled

    asked = recipe or preset or drop is not None or class_weight
    if map_ is not None and asked:
        raise InputError("A map is given, and a recipe too.", "Leave --map or the recipe out.")
    if map_ is not None:
        return drop_map_at(map_, opened.shape)
    if "contributions" not in known:
        raise InputError("There is no map to build.", "Give --map, or --contributions with --recipe or --preset.")
    analysis, second = known["contributions"], known.get("floor_contributions")
    chosen = chosen_recipe(preset, recipe, drop, class_weights(class_weight or []))
    require_used(floor_contributions, chosen)
    made = make_map(analysis, chosen if preset is None else scaled(chosen, analysis.shape.experts), second)
    made.check(opened.shape)
    return made


def _tier_text(named: str) -> str:
    """A tier as jobs take it: a known name, or the JSON of a person's own."""
    from studio.quantize.custom import tier_of

    tier_of(named)  # says what is wrong with it
    return Path(named).read_text(encoding="utf-8") if named.endswith(".json") else named


def _relative(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.root).as_posix()
