"""The verbs up to the drop map: analyze, import, map."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, Overwrite, model_path, progress_bar, read_bytes, result, story_path
from studio.errors import InputError

if TYPE_CHECKING:
    from studio.contributions.model import Contributions
    from studio.recipes.recipe import Recipe


def analyze(
    model: Annotated[Path, typer.Argument(help="Folder of a safetensors model, or the word demo.", metavar="MODEL")],
    *,
    prompts: Annotated[Path, typer.Option(help="JSON lines with class, prompt or messages, and perhaps answer.")],
    out: Annotated[Path, typer.Option(help="The contributions file to write (.safetensors).")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer prompts are cut, and marked so.")] = 4096,
    continuation: Annotated[int, typer.Option(min=1, help="Tokens the model answers where a prompt has none.")] = 128,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    imatrix: Annotated[
        Path | None, typer.Option(help="Also write the importance matrix of these answers (.gguf), in the same pass.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Observe what each expert contributes to answers.

    Where it was interrupted, the same command goes on.
    """
    from studio.contributions.analyze import analyze as observe

    use_energies = None
    if imatrix is not None:
        from studio.checkpoints.reference import open_reference
        from studio.quantize.imatrix_observed import imatrix_writer

        config = open_reference(model_path(model)).config
        use_energies = imatrix_writer(config, prompts.name, imatrix, overwrite)
    with progress_bar() as progress:
        contributions = observe(
            model_path(model),
            prompts,
            out,
            overwrite=overwrite,
            progress=progress,
            dtype=dtype,
            max_tokens=max_tokens,
            continuation_tokens=continuation,
            use_energies=use_energies,
        )
    _describe(json, contributions, out, imatrix)


def import_(
    analysis: Annotated[Path, typer.Argument(help="A published analysis (JSON).", metavar="ANALYSIS")],
    *,
    out: Annotated[Path, typer.Option(help="The contributions file to write (.safetensors).")],
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts per token, which the formats do not say.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Turn a published analysis into a contributions file."""
    from studio.contributions.file import save
    from studio.contributions.importers import import_analysis

    with progress_bar() as progress:
        contributions = import_analysis(analysis, progress, top_k=top_k)
    save(contributions, out, overwrite)
    _describe(json, contributions, out)


def map_(
    contributions: Annotated[Path, typer.Argument(help="Contributions, or a published analysis (JSON).", metavar="C")],
    *,
    out: Annotated[Path, typer.Option(help="The drop map to write (JSON).")],
    preset: Annotated[str | None, typer.Option(help="A published recipe: 98e-v3, 98e-v4 or 109e-v3.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe of your own (JSON).")] = None,
    drop: Annotated[int | None, typer.Option(min=0, help="Experts to drop in every layer.")] = None,
    class_weight: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=WEIGHT", help="May be given several times.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Choose the experts to drop, and say what remains of each class.

    Beside the map lies its story, from which prune and quantize take what they write into manifests.
    """
    from studio.contributions.importers import import_analysis
    from studio.recipes.apply import make_map
    from studio.recipes.preview import preview
    from studio.staging import staged

    chosen = _recipe(preset, recipe, drop, _weights(class_weight or []))
    with progress_bar() as progress:
        analysis = import_analysis(contributions, progress)
    drop_map = make_map(analysis, chosen)
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
        "recipe_hash": chosen.content_hash,
        "recipe": chosen.model_dump(),
    }
    shares = "".join(f"\n  {klass:<12} {share:6.1%}" for klass, share in meaning.share_kept_per_class.items())
    text = (
        f"{out}: keeps {meaning.kept_experts} of {drop_map.experts} experts in each of {drop_map.layers} layers, "
        f"and of each class's contribution{shares}\n"
        f"Most is lost in layer {meaning.worst_layer}, which keeps {meaning.worst_layer_share:.1%}."
    )
    result(json, fields, text)


def _recipe(preset: str | None, path: Path | None, drop: int | None, weights: dict[str, float]) -> Recipe:
    """The recipe that the options describe; what they say on top of a recipe file changes it."""
    from studio.recipes import presets
    from studio.recipes.recipe import Recipe

    if (preset is None) == (path is None):
        raise InputError("Exactly one of --preset and --recipe is needed.")
    if path is not None:
        written = Recipe.from_json(read_bytes(path, "recipe"), name=str(path))
        changes: dict[str, Any] = {} if drop is None else {"drop": drop}
        if weights:
            changes["class_weights"] = {**written.class_weights, **weights}
        return written.but(**changes)
    if drop is None:
        raise InputError("--drop is needed with --preset: how many experts leave each layer.")
    assert preset is not None
    return presets.preset(preset, drop, weights)


def _weights(given: list[str]) -> dict[str, float]:
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
