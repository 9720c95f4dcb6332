"""The sections of a model card, each a text; every name and value that came from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.evaluate.results_table import value_text
from studio.publish.artifact import Artifact, GgufFile
from studio.publish.escape import fenced, plain
from studio.publish.licence import UNKNOWN, strictest
from studio.publish.measures import Comparison
from studio.publish.ollama import hub_command, ollama_model
from studio.publish.pictures import Point, classes_picture, kept_picture, sizes_picture
from studio.publish.snippets import server_command, transformers_code
from studio.recipes.presets import PRESETS
from studio.recipes.recipe import Recipe
from studio.units import GIB

KEPT, CLASSES = "kept.svg", "classes.svg"
_FEWEST_POINTS = 2
"""A picture of one model says nothing."""

_ADVICE: tuple[tuple[float, str], ...] = (
    (15.0, "As the weights are: to quantize from, or where memory does not matter."),
    (7.5, "Hardly told apart from the unquantized model; where memory allows it."),
    (5.5, "Close to the unquantized model, at two thirds of the memory of eight bits."),
    (4.0, "The usual balance of size and quality: start here."),
    (3.0, "Where the next larger one does not fit; expect to notice it."),
    (0.0, "The last resort; measure before you trust it."),
)
"""From how many bits per weight on → when to choose a file: rules of thumb, and no measurement."""


def title_section(artifact: Artifact, formats: Sequence[str]) -> str:
    """The name, and in a paragraph what this is."""
    told = artifact.manifest
    lines = [f"# {plain(artifact.name)}", ""]
    kinds = " and ".join({"safetensors": "a safetensors checkpoint", "gguf": "GGUF files"}[one] for one in formats)
    if told.map is None:
        return "\n".join([*lines, f"{plain(told.reference.name)} as {kinds}."])
    sizes = ""
    if told.reference.parameters and told.map.parameters:
        before, after = told.reference.parameters, told.map.parameters
        sizes = f" {_count(after)} parameters are left of {_count(before)}, {after / before:.0%}."
    lines.append(
        f"{plain(told.reference.name)} with {told.map.kept} of its {told.map.experts} experts in each of "
        f"{len(told.map.dropped)} layers, as {kinds}.{sizes} Nothing was trained: what is left is what it was."
    )
    return "\n".join(lines)


def files_section(artifact: Artifact) -> str:
    """The table of GGUF files."""
    rows = [
        "## Files",
        "",
        "| tier | file | GiB | bits per weight | tensors | choose it |",
        "|---|---|---:|---:|---|---|",
    ]
    for file in artifact.ggufs:
        name = Path(file.names[0]).name + (f" and {len(file.names) - 1} more parts" if len(file.names) > 1 else "")
        bits = file.bits_per_weight
        rows.append(
            f"| {plain(file.tier or 'as the reference')} | {plain(name)} | {_gib(file.bytes)} | {bits:.2f} "
            f"| {plain(_notes(file, artifact))} | {next(text for least, text in _ADVICE if bits >= least)} |"
        )
    used = artifact.manifest.imatrix
    if used is not None:
        rows += ["", f"Made with the importance matrix {plain(used.name)} (sha256 {used.sha256[:16]}…)."]
    return "\n".join(rows)


def _notes(file: GgufFile, artifact: Artifact) -> str:
    total = sum(file.types.values())
    mostly = [f"{name} {size / total:.0%}" for name, size in file.types.items() if size / total >= 0.05]
    by_layer = file.tier.startswith("CD-") and artifact.manifest.build and artifact.manifest.build.ranking
    return ", ".join(mostly) + ("; more bits for layers that contribute more" if by_layer else "")


def measures_section(artifact: Artifact, measured: Sequence[Comparison], pictures: Mapping[str, str]) -> str:
    """What was measured, beside the reference where that was measured on the same ground."""
    if not measured:
        return "## Measures\n\nNothing was measured. How much was lost is not known: try it on what you need it for."
    lines = ["## Measures", ""]
    if any(row.value.low is not None for one in measured for row in one.rows):
        lines += ["Intervals hold the true value with 95 % confidence, where they are given.", ""]
    for number, one in enumerate(measured):
        has_reference = any(row.is_reference for row in one.rows)
        lines += [f"| {plain(one.title)} | GiB | {plain(one.measure)} | against the reference |", "|---|---:|---:|---|"]
        lines += [
            f"| {'**reference**: ' if row.is_reference else ''}{plain(row.name)} | {_gib(row.bytes)} "
            f"| {plain(value_text(row.value))} | {plain(row.against)} |"
            for row in one.rows
        ]
        lines += [] if has_reference else ["", "The reference was not measured on the same ground."]
        if (picture := _size_name(number)) in {Path(name).name for name in pictures}:
            lines += ["", f"![{plain(one.measure)} against size](pictures/{picture})"]
        lines.append("")
    return "\n".join(lines).rstrip()


def usage_section(artifact: Artifact, formats: Sequence[str], repository: str | None, template: str) -> str:
    """How it is run with llama-server, Ollama and transformers."""
    family = artifact.manifest.reference.family
    lines = ["## Run it"]
    if "gguf" in formats and artifact.ggufs:
        file = _recommended(artifact.ggufs)
        name = Path(file.names[0]).name
        model = ["--hf-repo", repository, "--hf-file", name] if repository else ["--model", file.names[0]]
        lines += ["", "llama.cpp:", "", fenced(server_command(model, family, template), "sh")]
        if len(file.names) == 1:
            lines += ["", *_ollama_lines(file, repository)]
    if "safetensors" in formats:
        code = transformers_code(repository or "safetensors", family, template)
        lines += ["", "transformers:", "", fenced(code, "python")]
    return "\n".join(lines)


def _ollama_lines(file: GgufFile, repository: str | None) -> list[str]:
    remark = ollama_model(file.path).remark
    command = hub_command(repository or "OWNER/NAME", file.tier, file.path.name)
    return ["Ollama:", "", fenced(command, "sh"), "", plain(remark)]


def _recommended(files: Sequence[GgufFile]) -> GgufFile:
    """The file for somebody who does not want to choose: the smallest with four bits per weight or more."""
    return next((file for file in files if file.bits_per_weight >= 4), files[-1])


def how_section(artifact: Artifact, pictures: Mapping[str, str]) -> str:
    """How it was pruned, and how anybody makes it again."""
    told = artifact.manifest
    lines = ["## How it was made", ""]
    if told.map is not None:
        lines.append(recipe_in_words(told.recipe))
        if f"pictures/{KEPT}" in pictures:
            lines += ["", f"![Which experts were kept in each layer](pictures/{KEPT})"]
    if told.map is not None and told.map.class_shares:
        lines += ["", "Of what the experts contributed to each class of prompts, those that were kept make:", ""]
        lines += ["| class | kept |", "|---|---:|"]
        shares = sorted(told.map.class_shares.items(), key=lambda item: item[1])
        lines += [f"| {plain(name)} | {share:.1%} |" for name, share in shares]
        lines += ["", f"![Contribution kept per class](pictures/{CLASSES})"]
    facts = {
        "reference": told.reference.sha256,
        "revision of the reference": told.reference.revision,
        "contributions": told.contributions,
        "recipe": told.recipe_sha256,
        "drop map": told.map.sha256 if told.map else None,
        "importance matrix": told.imatrix.sha256 if told.imatrix else None,
    }
    lines += ["", "| made from | hash |", "|---|---|"]
    lines += [f"| {name} | {plain(value)} |" for name, value in facts.items() if value]
    tools = ", ".join(f"{plain(name)} {plain(version)}" for name, version in sorted(told.versions.items()))
    lines += ["", f"Tools: {tools}. `espalier-manifest.json` tells all of it, and makes it again:", ""]
    lines.append(
        fenced("python -m studio verify .\npython -m studio replay espalier-manifest.json --reference …", "sh")
    )
    if told.recipe is not None:
        recipe = Recipe.from_json(told.recipe).to_json()
        lines += ["", "<details><summary>The recipe</summary>", "", fenced(recipe, "json"), "", "</details>"]
    return "\n".join(lines)


def recipe_in_words(recipe: Mapping[str, object] | None) -> str:
    """How the experts were chosen, in a sentence or two."""
    if recipe is None:
        return "The experts were dropped by a map whose recipe was not recorded."
    chosen = Recipe.from_json(recipe)
    for preset in PRESETS.values():
        free = {
            name: getattr(chosen, name) for name in ("drop", "drop_share", "class_weights") if hasattr(chosen, name)
        }
        if preset.recipe.but(**free) == chosen:
            weights = ", ".join(f"{plain(name)} × {weight:g}" for name, weight in chosen.class_weights.items())
            weighed = f" Classes were weighed: {weights}." if weights else ""
            return f"Experts were chosen by the recipe {preset.name} ({preset.title.lower()}). {preset.when}{weighed}"
    return (
        f"Experts were ranked by {plain(chosen.criterion)}, normalised per class by {plain(chosen.normalise)} and "
        f"combined by {plain(chosen.aggregate)}; the recipe below has all choices."
    )


def limits_section(artifact: Artifact, measured: Sequence[Comparison]) -> str:
    """What a person should not expect."""
    told = artifact.manifest
    lines = ["## Limits", ""]
    if told.map is not None:
        lines.append(
            "- The experts that were dropped are gone. What only they knew the model now guesses, fluently: subjects "
            "and languages that the analysis did not ask about may have lost most."
        )
    if told.map is not None and told.map.class_shares:
        name, share = min(told.map.class_shares.items(), key=lambda item: item[1])
        lines.append(
            f"- Of the classes that were looked at, {plain(name)} kept least: {share:.1%} of its contribution."
        )
    lines.append(
        "- A share of contribution is not a share of quality."
        + ("" if measured else " No answers of this model were measured before it was published.")
    )
    if told.tiers:
        lines.append("- Fewer bits per weight add errors of their own, most where an expert was seldom used.")
    lines.append("- It has the biases and gaps of its base, and no safety training was done after pruning.")
    return "\n".join(lines)


def licence_section(artifact: Artifact) -> str:
    """The licence of the base, carried on."""
    named = artifact.manifest.reference.licenses
    base = plain(artifact.manifest.reference.name)
    if not named:
        return f"## Licence\n\nThat of {base}: {UNKNOWN}. Neither its card nor its files name one."
    text = f"## Licence\n\nThat of {base}, whose terms apply to this model too: {plain(strictest(named))}."
    if len(named) > 1:
        text += f" It names {', '.join(plain(name) for name in named)}, of which this is the strictest."
    return text


def pictures_of(artifact: Artifact, measured: Sequence[Comparison]) -> dict[str, str]:
    """File name → SVG."""
    pictures: dict[str, str] = {}
    kept = artifact.manifest.map
    if kept is not None and kept.dropped:
        title = f"{kept.kept} of {kept.experts} experts were kept in each layer"
        pictures[KEPT] = kept_picture(kept.dropped, kept.experts, title)
    if kept is not None and kept.class_shares:
        pictures[CLASSES] = classes_picture(kept.class_shares, "Contribution that was kept, by class of prompts")
    for number, one in enumerate(measured):
        points = [
            Point(row.name, row.bytes / GIB, row.value.value, row.value.low, row.value.high, row.is_reference)
            for row in one.rows
            if row.value.value is not None
        ]
        if len(points) >= _FEWEST_POINTS:
            unit = one.rows[0].value.unit
            pictures[_size_name(number)] = sizes_picture(points, f"{one.title}: {one.measure} against size", unit)
    return pictures


def _size_name(number: int) -> str:
    return f"size-{number + 1}.svg"


def _count(parameters: int) -> str:
    """Parameters as people say them."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)


def _gib(size: int) -> str:
    gib = size / GIB
    return f"{gib:.2f}" if gib >= 0.1 else f"{gib:.2g}"
