"""The verbs up to the drop map: analyze, import, merge, map."""

from __future__ import annotations

from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from studio.cli.prompts import (
    BUILTIN,
    SOURCE_HELP,
    Class,
    Columns,
    Continuation,
    Limit,
    MaxTokens,
    PerClass,
    Seed,
    Thinking,
    calibration_of,
)
from studio.cli.recipes import require_used
from studio.cli.terminal import Json, Overwrite, model_path, progress_bar, read_bytes, require_apart, result, story_path
from studio.errors import InputError

if TYPE_CHECKING:
    from studio.contributions.calibration import Calibration
    from studio.contributions.model import Contributions
    from studio.contributions.preflight import Mode
    from studio.recipes.recipe import Recipe


def analyze(
    model: Annotated[Path, typer.Argument(help="Folder of a safetensors model, or the word demo.", metavar="MODEL")],
    *,
    prompts: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help=f"{SOURCE_HELP} May be given several times. By default {BUILTIN}."),
    ] = None,
    column: Columns = None,
    klass: Class = None,
    limit: Limit = None,
    per_class: PerClass = None,
    seed: Seed = 0,
    answers: Annotated[
        Literal["given", "own"],
        typer.Option(help="given: on the answers of the prompts, where they have one. own: on what the model answers."),
    ] = "given",
    thinking: Thinking = False,
    out: Annotated[Path | None, typer.Option(help="The contributions file to write (.safetensors).")] = None,
    mode: Annotated[
        Literal["auto", "whole", "offloaded", "layered"],
        typer.Option(
            help="whole: the model in memory. offloaded: on GPU and CPU. layered: one layer at a time, for a model "
            "larger than memory. auto: what the estimate says."
        ),
    ] = "auto",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Share the questions among the nodes of a Ray cluster: its address, or auto. Each node needs the "
            "model in the same folder.",
        ),
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what it would take of time and memory.")] = False,
    max_tokens: MaxTokens = 4096,
    continuation: Continuation = 128,
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16, or nf4 for experts in four bits.")
    ] = "auto",
    imatrix: Annotated[
        Path | None, typer.Option(help="Also write the importance matrix of these answers (.gguf), in the same pass.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Observe what each expert contributes to answers. The verb `prompts` shows what the model will see.

    Where it was interrupted, the same command goes on.
    """
    from studio.contributions.analyze import analyze as observe

    if out is None and not estimate:
        raise InputError("--out is missing: the contributions file to write.", "With --estimate none is needed.")
    if imatrix is not None and imatrix == out:
        raise InputError(f"--out and --imatrix are both {out}.", "Name two files.")
    calibration = calibration_of(prompts, column=column, klass=klass, limit=limit, per_class=per_class, seed=seed)
    if answers == "own":
        calibration = calibration.without_answers()
    observed: dict[str, Any] = {
        "dtype": dtype,
        "max_tokens": max_tokens,
        "continuation_tokens": continuation,
        "thinking": thinking,
    }
    if out is None or estimate:
        _estimate(json, mode, model_path(model), calibration, observed)
        return
    use_energies = None
    if imatrix is not None:
        from studio.checkpoints.reference import open_reference
        from studio.quantize.imatrix_observed import imatrix_writer

        config = open_reference(model_path(model)).config
        use_energies = imatrix_writer(config, " + ".join(calibration.sources), imatrix, overwrite)
    with progress_bar() as progress:
        contributions = observe(
            model_path(model),
            calibration,
            out,
            overwrite=overwrite,
            progress=progress,
            use_energies=use_energies,
            mode=mode,
            ray=ray,
            **observed,
        )
    _describe(json, contributions, out, imatrix)


def import_(
    analysis: Annotated[Path, typer.Argument(help="An analysis, or an importance matrix.", metavar="ANALYSIS")],
    *,
    out: Annotated[Path, typer.Option(help="The contributions file to write (.safetensors).")],
    model: Annotated[
        Path | None, typer.Option(help="Safetensors folder, GGUF, or demo: whose norms an importance matrix estimates.")
    ] = None,
    klass: Annotated[str, typer.Option("--class", help="What an importance matrix's text is an example of.")] = "all",
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts per token, which the formats do not say.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Turn an analysis that was made elsewhere into a contributions file.

    Understood are the published JSON analyses by category or by question, and arrays over the experts of a layer, as
    REAP's observer records them: .npz, safetensors, or nested JSON. There a name such as 3/reap, code/3/reap or
    model.layers.3.mlp.reap says the layer, the number (expert_frequency, ean_sum, ean_mean, weighted_ean_sum, reap,
    weighted_expert_frequency_sum, or tokens, gate, norm, norm_squared, weighted_norm, weighted_norm_squared) and
    perhaps a class; without a layer the array has a row per layer.

    An importance matrix of llama.cpp (.gguf) gives the tokens routed to each expert, and with --model an estimate of
    its output norm. Several, each of another class of text, can be merged.
    """
    from studio.checkpoints.reference import open_reference
    from studio.contributions.file import save
    from studio.quantize.imatrix_contributions import import_any

    reference = None if model is None else open_reference(model_path(model))
    with progress_bar() as progress:
        contributions = import_any(analysis, progress, model=reference, klass=klass, top_k=top_k)
    save(contributions, out, overwrite)
    _describe(json, contributions, out)


def merge(
    analyses: Annotated[
        list[Path], typer.Argument(help="Contributions, or published analyses (JSON), of one model.", metavar="C…")
    ],
    *,
    out: Annotated[Path, typer.Option(help="The contributions file to write (.safetensors).")],
    model: Annotated[str | None, typer.Option(help="What the model is called, where they do not agree.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Put several analyses of one model together: their classes and their questions."""
    from studio.contributions.file import save
    from studio.contributions.importers import import_analysis
    from studio.contributions.merge import merge as put_together

    with progress_bar() as progress:
        merged = put_together([import_analysis(path, progress) for path in analyses], model)
    save(merged, out, overwrite)
    _describe(json, merged, out)


def map_(
    contributions: Annotated[Path, typer.Argument(help="Contributions, or a published analysis (JSON).", metavar="C")],
    *,
    out: Annotated[Path, typer.Option(help="The drop map to write (JSON).")],
    preset: Annotated[
        str | None, typer.Option(help="A published recipe: 98e-v3, 98e-v4, 109e-v3, 98e-v5-coder or REAP.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe of your own (JSON), or the name of one.")] = None,
    drop: Annotated[int | None, typer.Option(min=0, help="Experts to drop in every layer.")] = None,
    class_weight: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=WEIGHT", help="May be given several times.")
    ] = None,
    floor_contributions: Annotated[
        Path | None, typer.Option(help="A second analysis, which the recipe's floors go by.")
    ] = None,
    layer_floor: Annotated[
        Path | None, typer.Option(help="Experts to protect in each layer (JSON), in place of the recipe's own floors.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Choose the experts to drop, and say what remains of each class.

    Beside the map lies its story, from which prune and quantize take what they write into manifests.
    """
    from studio.contributions.importers import import_analysis
    from studio.recipes.apply import make_map
    from studio.recipes.floors import with_layer_floors
    from studio.recipes.presets import scaled
    from studio.recipes.preview import preview
    from studio.staging import staged

    require_apart((out, story_path(out)), (contributions, recipe, floor_contributions, layer_floor))
    chosen = chosen_recipe(preset, recipe, drop, class_weights(class_weight or []))
    if layer_floor is not None:
        chosen = with_layer_floors(chosen, read_bytes(layer_floor, "file of floors"), str(layer_floor))
    require_used(floor_contributions, chosen)
    with progress_bar() as progress:
        analysis = import_analysis(contributions, progress)
        second = None if floor_contributions is None else import_analysis(floor_contributions, progress)
    if preset is not None:
        chosen = scaled(chosen, analysis.shape.experts)
    drop_map = make_map(analysis, chosen, second)
    meaning = preview(analysis, drop_map)
    with staged(out, overwrite=overwrite) as partial:
        partial.write_text(drop_map.to_json(), encoding="utf-8")
    with staged(story_path(out), overwrite=True) as partial:
        partial.write_text(dumps({**drop_map.provenance, "map_hash": drop_map.content_hash}, indent=2) + "\n")
    fields = {
        "map": str(out),
        "kept_experts": meaning.kept_experts,
        "dropped_experts": meaning.dropped_experts,
        "share_kept": meaning.share_kept_per_class,
        "worst_layer": meaning.worst_layer,
        "worst_layer_share": meaning.worst_layer_share,
        "map_hash": drop_map.content_hash,
        "contributions_hash": analysis.content_hash,
        "floor_contributions_hash": drop_map.provenance.get("floor_contributions_hash"),
        "recipe_hash": chosen.content_hash,
        "recipe": loads(chosen.to_json()),
    }
    shares = "".join(f"\n  {klass:<12} {share:6.1%}" for klass, share in meaning.share_kept_per_class.items())
    text = (
        f"{out}: keeps {meaning.kept_experts} of {drop_map.experts} experts in each of {drop_map.layers} layers, "
        f"and of each class's contribution{shares}"
    )
    if meaning.dropped_experts:
        text += f"\nMost is lost in layer {meaning.worst_layer}, which keeps {meaning.worst_layer_share:.1%}."
    result(json, fields, text)


def chosen_recipe(preset: str | None, path: Path | None, drop: int | None, weights: dict[str, float]) -> Recipe:
    """The recipe that the options describe; what they say on top of a recipe file changes it."""
    from studio.cli.recipes import read_recipe
    from studio.recipes import presets

    if (preset is None) == (path is None):
        raise InputError("Exactly one of --preset and --recipe is needed.")
    if path is not None:
        written = read_recipe(path)
        changes: dict[str, Any] = {} if drop is None else {"drop": drop}
        if weights:
            changes["class_weights"] = {**written.class_weights, **weights}
        return written.but(**changes)
    if drop is None:
        raise InputError("--drop is needed with --preset: how many experts leave each layer.")
    assert preset is not None
    named = presets.preset(preset, drop)
    return named.but(class_weights={**named.class_weights, **weights}) if weights else named


def class_weights(given: list[str]) -> dict[str, float]:
    weights = {}
    for text in given:
        klass, equals, number = text.partition("=")
        if klass in weights:
            raise InputError(f"--class-weight names {klass!r} twice.")
        try:
            weights[klass] = float(number)
        except ValueError:
            equals = ""
        if not equals or not klass:
            raise InputError(f"--class-weight {text!r} is not a class and a number.", "Write, for instance, code=3.")
    return weights


def _estimate(
    as_json: bool,
    mode: Mode | Literal["auto"],
    model: Path,
    calibration: Calibration,
    observed: dict[str, Any],
) -> None:
    """Say what an analysis would take."""
    from studio.contributions.analyze import estimate
    from studio.contributions.preflight import describe
    from studio.errors import ResourceError

    found = estimate(model, calibration, **observed)
    try:
        chosen = found.choose(mode)
    except ResourceError:
        chosen = None
    result(as_json, found.fields(chosen), describe(found.estimates, chosen))


def _describe(as_json: bool, contributions: Contributions, out: Path, imatrix: Path | None = None) -> None:
    shape, questions = contributions.shape, contributions.questions
    fields = {
        "contributions": str(out),
        "model": contributions.model,
        "source": contributions.source,
        "layers": shape.layers,
        "experts": shape.experts,
        "questions": len(questions),
        "classes": list(contributions.classes),
        "sums": list(contributions.sums),
        "estimated": list(contributions.estimated),
        "truncated_questions": sum(question.truncated for question in questions),
        "skipped_tokens": sum(question.skipped_tokens for question in questions),
        "not_finite": int(contributions.nonfinite.sum()),
        "contributions_hash": contributions.content_hash,
        "imatrix": str(imatrix) if imatrix else None,
    }
    text = (
        f"{out}: {len(questions)} questions in {len(contributions.classes)} classes "
        f"({', '.join(contributions.classes)}), {shape.layers} layers × {shape.experts} experts; "
        f"{contributions.source}."
    )
    if imatrix:
        text += f"\n{imatrix}: the importance matrix of the same answers."
    if fields["not_finite"]:
        text += f"\n{fields['not_finite']} entries are not finite; the recipe says what becomes of them."
    result(as_json, fields, text)
