"""The verb that measures a pruned model before it is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.models import ClassWeights, Drop, Preset, RecipeFile
from studio.cli.prompts import SOURCE_HELP, Class, Columns, Limit, MaxTokens, Seed, Thinking, calibration_of
from studio.cli.terminal import Json, model_path, progress_bar, read_bytes, result
from studio.errors import InputError
from studio.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from studio.evaluate.divergence import Divergence
    from studio.evaluate.virtual import Measurement
    from studio.recipes.dropmap import DropMap

Sources = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help=f"{SOURCE_HELP} May be given several times. By default builtin, and for the demo model the exercises that "
        "it has never seen.",
    ),
]
MeasuredPerClass = Annotated[int, typer.Option("--per-class", min=1, help="Prompts of each class.")]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto (the checkpoint's, and on a CPU float32), float32, bfloat16, float16, or nf4 for experts in four "
        "bits."
    ),
]


def measure(
    model: Annotated[Path, typer.Argument(help="Folder of a safetensors model, or the word demo.", metavar="MODEL")],
    *,
    map_: Annotated[Path | None, typer.Option("--map", help="The drop map to measure (JSON).")] = None,
    contributions: Annotated[
        Path | None,
        typer.Option(help="Contributions to make the map from; beside --map, they tell which prompts are held out."),
    ] = None,
    recipe: RecipeFile = None,
    preset: Preset = None,
    drop: Drop = None,
    class_weight: ClassWeights = None,
    prompts: Sources = None,
    column: Columns = None,
    klass: Class = None,
    limit: Limit = None,
    per_class: MeasuredPerClass = 40,
    seed: Seed = 0,
    max_tokens: MaxTokens = 4096,
    thinking: Thinking = False,
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Measure a pruned model before it is built: how far it is from its reference on held-out prompts.

    Dropped experts are masked in the reference's routers, which is the pruned model to the last digits. Answers count,
    given ones or the reference's own, and of plain passages everything. The reference's logits are kept for the next
    map.
    """
    from studio.checkpoints.reference import open_reference
    from studio.cli.contributions import chosen_recipe, class_weights
    from studio.contributions.importers import import_analysis
    from studio.evaluate.held_out import held_out, overlap, own_prompts
    from studio.evaluate.virtual import Ruler, VirtualModel
    from studio.recipes.apply import make_map
    from studio.recipes.dropmap import DropMap
    from studio.recipes.presets import scaled

    folder = model_path(model)
    reference = open_reference(folder)
    if reference.kind != "safetensors":
        raise InputError(f"{model} is a GGUF file, and cannot be measured before it is built.", "Name the checkpoint.")
    if map_ is not None and (recipe or preset or drop is not None or class_weight):
        raise InputError("A map is given, and a recipe too.", "Leave --map or the recipe out.")
    if map_ is None and contributions is None:
        raise InputError("There is no map to measure.", "Give --map, or --contributions with --recipe or --preset.")
    with progress_bar() as progress:
        analysis = None if contributions is None else import_analysis(contributions, progress)
        if map_ is not None:
            drop_map = DropMap.from_json(read_bytes(map_, "drop map"), shape=reference.shape, name=str(map_))
        else:
            assert analysis is not None
            chosen = chosen_recipe(preset, recipe, drop, class_weights(class_weight or []))
            drop_map = make_map(analysis, chosen if preset is None else scaled(chosen, analysis.shape.experts))
            drop_map.check(reference.shape)
        calibration = calibration_of(
            prompts or [own_prompts(folder)],
            column=column,
            klass=klass,
            limit=limit,
            per_class=per_class,
            seed=seed,
        )
        virtual = VirtualModel.load(folder, dtype)
        passages = held_out(virtual.tokenizer, calibration, max_tokens=max_tokens, thinking=thinking)
        found = Ruler(virtual, passages, Workspace.open().cache / "logits").measure(drop_map, progress)
    warning = "" if analysis is None else overlap(analysis, calibration)
    fields = {**found.to_json(), "dropped": drop_map.dropped_count, "warning": warning}
    result(json, fields, _described(found, drop_map, warning))


def _described(found: Measurement, drop_map: DropMap, warning: str) -> str:
    lines = [
        f"{drop_map.dropped_count} of {drop_map.experts} experts dropped in every layer; {found.prompts} prompts, "
        f"{found.overall.tokens} tokens of answers, {found.seconds:.1f} s. {found.story}",
        *divergence_table({**found.classes, "all": found.overall}),
        f"Mean of the classes: {found.kl:.4f} nats per token.",
    ]
    return "\n".join([*lines, warning] if warning else lines)


def divergence_table(rows: Mapping[str, Divergence]) -> list[str]:
    """Divergences as lines of text, in nats per token."""
    head = f"  {'':<14}{'tokens':>8}{'KL mean':>10}{'median':>10}{'99 %':>10}{'same top':>10}{'perplexity':>12}"
    lines = [f"{head}{'reference':>12}"]
    for name, one in rows.items():
        lines.append(
            f"  {name:<14}{one.tokens:>8}{one.kl_mean:>10.4f}{one.kl_median:>10.4f}{one.kl_p99:>10.4f}"
            f"{one.same_top:>10.1%}{one.candidate_perplexity:>12.3f}{one.reference_perplexity:>12.3f}"
        )
    return lines
