"""The sections of a model card, each a text; every name and value that came from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studio.evaluate.results_table import value_text
from studio.publish.artifact import Artifact, GgufFile
from studio.publish.escape import fenced, plain
from studio.publish.licence import NOBODY_NAMES_ONE, NOT_BY_NAME, UNKNOWN, is_clear, is_legal, legal_names, strictest
from studio.publish.manifest import Manifest
from studio.publish.measures import Comparison
from studio.publish.ollama import hub_command, ollama_model
from studio.publish.pictures import Point, classes_picture, kept_picture, sizes_picture
from studio.publish.sampling import GUARDS
from studio.publish.snippets import server_command, transformers_code
from studio.recipes.presets import PRESETS, preset_named
from studio.recipes.recipe import Recipe
from studio.units import GIB

KEPT, CLASSES = "kept.svg", "classes.svg"
_FEWEST_POINTS = 2
"""A picture of one model says nothing."""

_ADVICE: tuple[tuple[float, str], ...] = (
    (15.0, "To quantize from, or where memory does not matter."),
    (7.5, "Where memory allows it."),
    (5.5, "Between eight bits and four, in size and usually in quality."),
    (4.0, "The usual balance of size and quality."),
    (3.0, "Small; expect to notice it."),
    (0.0, "The last resort; measure before you trust it."),
)
"""From how many bits per weight on → when to choose a file: rules of thumb, and no measurement."""
_FIRST = "Start here. "


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
        f"{len(told.map.dropped)} layers, as {kinds}.{sizes} Nothing was trained. {_weights(told, formats)}"
    )
    return "\n".join(lines)


def _weights(told: Manifest, formats: Sequence[str]) -> str:
    """What became of the weights that are left."""
    says = []
    if "safetensors" in formats:
        says.append("The weights that are left in the safetensors are the reference's own, bit for bit.")
    if "gguf" in formats and told.tiers:
        says.append("Those in the GGUF files were rounded to the types in the table below.")
    elif "gguf" in formats:
        says.append("Those in the GGUF file are the reference's own, bit for bit.")
    if "gguf" in formats and told.build is not None and told.build.zero_nonfinite:
        says.append("NaN and infinity, where there were any, became zeros in the GGUF files.")
    return " ".join(says)


def files_section(artifact: Artifact) -> str:
    """The table of GGUF files."""
    rows = [
        "## Files",
        "",
        "| tier | file | GiB | bits per weight | types, of its bytes | when to choose it |",
        "|---|---|---:|---:|---|---|",
    ]
    start = _recommended(artifact.ggufs) if len(artifact.ggufs) > 1 else None
    for file in artifact.ggufs:
        name = Path(file.names[0]).name + (f" and {len(file.names) - 1} more parts" if len(file.names) > 1 else "")
        bits = file.bits_per_weight
        advice = next(text for least, text in _ADVICE if bits >= least)
        rows.append(
            f"| {plain(file.tier or 'as the reference')} | {plain(name)} | {_gib(file.bytes)} | {bits:.2f} "
            f"| {plain(_notes(file, artifact))} | {_FIRST if file is start else ''}{advice} |"
        )
    rows += ["", "When to choose which is a rule of thumb that goes by the bits per weight alone, and no measurement."]
    used = artifact.manifest.imatrix
    if used is not None:
        rows += [
            "",
            f"Rounding went by the importance matrix {plain(used.name)} (sha256 {used.sha256[:16]}…) in the types that "
            "take one: Q8_0, F16, BF16 and F32 do not.",
        ]
    return "\n".join(rows)


def _notes(file: GgufFile, artifact: Artifact) -> str:
    told = artifact.manifest
    total = sum(file.types.values())
    mostly = [f"{name} {size / total:.0%}" for name, size in file.types.items() if size / total >= 0.05]
    by_layer = file.tier.startswith("CD-") and told.build and told.build.ranking
    ranked = "the analysis" if told.contributions else "the importance matrix"
    return ", ".join(mostly) + (f"; more bits for layers that {ranked} ranks higher" if by_layer else "")


def measures_section(
    artifact: Artifact, formats: Sequence[str], measured: Sequence[Comparison], pictures: Mapping[str, str]
) -> str:
    """What was measured, beside the reference where that was measured on the same ground."""
    if not measured:
        return "## Measures\n\nNothing was measured. How much was lost is not known: try it on what you need it for."
    lines = ["## Measures", ""]
    if "gguf" not in formats:
        lines += ["GGUF files of the same pruned model were measured, which are not among these files.", ""]
    if any(row.value.low is not None for one in measured for row in one.rows):
        lines += ["In brackets: the 95 % confidence interval, where there is one.", ""]
    if any(row.against for one in measured for row in one.rows):
        lines += [
            "Against the reference: the difference in right answers to the same questions, and McNemar's exact p.",
            "",
        ]
    for number, one in enumerate(measured):
        lines += [f"| {plain(one.title)} | GiB | {plain(one.measure)} | against the reference |", "|---|---:|---:|---|"]
        lines += [
            f"| {'**reference**: ' if row.is_reference else ''}{plain(row.name)} | {_gib(row.bytes)} "
            f"| {plain(value_text(row.value))} | {plain(row.against)} |"
            for row in one.rows
        ]
        lines += ["", plain(one.conditions)] if one.conditions else []
        lines += [] if one.has_reference else ["", "No result of the reference itself on the same ground was found."]
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
        lines += ["", "llama.cpp:", "", fenced(server_command(model, family, template, file.header.values), "sh")]
        if len(file.names) == 1:
            lines += ["", *_ollama_lines(file, repository)]
        if note := _sampling_note(family, len(file.names) == 1):
            lines += ["", note]
    if "safetensors" in formats:
        code = transformers_code(repository or "safetensors", family, template)
        lines += ["", "transformers:", "", fenced(code, "python")]
    return "\n".join(lines)


def _ollama_lines(file: GgufFile, repository: str | None) -> list[str]:
    remark = ollama_model(file.path).remark
    command = hub_command(repository or "OWNER/NAME", file.tier, file.path.name)
    return ["Ollama:", "", fenced(command, "sh"), "", plain(remark)]


def _sampling_note(family: str | None, has_ollama: bool) -> str:
    """Where the lines differ, and why."""
    guard = GUARDS.get(family or "")
    if guard is None:
        return ""
    both = (
        "Both sample alike, but for what keeps the model from repeating itself: llama.cpp has DRY for that, and "
        f"Ollama, which has not, a repeat penalty of {guard.repeat_penalty} in `params`. "
        if has_ollama
        else "DRY keeps the model from repeating itself. "
    )
    return f"{both}That is Espalier's choice, and no recommendation of the model's makers."


def _recommended(files: Sequence[GgufFile]) -> GgufFile:
    """The file for somebody who does not want to choose: the smallest with four bits per weight or more."""
    return next((file for file in files if file.bits_per_weight >= 4), files[-1])


def how_section(artifact: Artifact, pictures: Mapping[str, str]) -> str:
    """How it was pruned, and how anybody makes it again."""
    told = artifact.manifest
    lines = ["## How it was made", ""]
    if told.map is not None:
        lines.append(recipe_in_words(told.recipe, told.map.experts))
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
    lines += ["", f"Tools of the whole build: {tools}. `espalier-manifest.json` tells all of it; with Espalier, the "]
    lines[-1] += "files are verified by it, and made again from the same sources:"
    sources = "--reference …" + (" --imatrix …" if told.imatrix else "")
    typed = f"python -m studio verify .\npython -m studio replay espalier-manifest.json {sources}"
    lines += ["", fenced(typed, "sh")]
    if told.recipe is not None:
        recipe = Recipe.from_json(told.recipe).to_json()
        lines += ["", "<details><summary>The recipe</summary>", "", fenced(recipe, "json"), "", "</details>"]
    return "\n".join(lines)


def recipe_in_words(recipe: Mapping[str, object] | None, experts: int) -> str:
    """How the experts were chosen in layers of `experts`, in a sentence or two."""
    if recipe is None:
        return "The experts were dropped by a map whose recipe was not recorded."
    chosen = Recipe.from_json(recipe)
    says = []
    if name := preset_named(chosen, experts):
        preset = PRESETS[name]
        says.append(f"Experts were chosen by the recipe {name} ({preset.title.lower()}).")
        published = preset.recipe
        if not published.class_weights and published.floor_clamp is None:  # else it tells of the published weights
            says.append(preset.keeps)
    else:
        per_class = "" if chosen.normalise == "none" else f", normalised per class by {plain(chosen.normalise)}"
        says.append(
            f"Experts were ranked by {plain(chosen.criterion)}{per_class} and combined by {plain(chosen.aggregate)}; "
            "the recipe has all choices."
        )
    if chosen.class_weights:
        weights = ", ".join(f"{plain(name)} × {weight:g}" for name, weight in chosen.class_weights.items())
        says.append(f"Classes were weighed: {weights}.")
    if chosen.force_keep or chosen.force_drop:
        says.append("Some experts were kept or dropped by hand.")
    return " ".join(says)


def limits_section(artifact: Artifact, formats: Sequence[str], measured: Sequence[Comparison]) -> str:
    """What a person should not expect."""
    told = artifact.manifest
    lines = ["## Limits", ""]
    if told.map is not None:
        lines.append(
            "- The experts that were dropped are gone. Where they were needed the model may be wrong, and still sound "
            "sure: subjects and languages that nobody looked at may have lost most."
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
    if told.tiers and "gguf" in formats:
        lines.append("- Rounding to fewer bits per weight adds errors of its own.")
    lines.append("- Whatever biases and gaps its base has it may have too; nothing was trained after pruning.")
    return "\n".join(lines)


def licence_section(artifact: Artifact, formats: Sequence[str]) -> str:
    """The licence of the base, carried on: the strictest that is named, and all of them."""
    told = artifact.manifest.reference
    named, base, terms = told.licenses, plain(told.name), _terms(artifact, formats)
    if not named:
        files = [record.name.rpartition("/")[2] for record in artifact.manifest.files]
        says = f"{NOT_BY_NAME}." if any(map(is_legal, [*told.files, *files])) else f"{UNKNOWN}. {NOBODY_NAMES_ONE}"
        return f"## Licence\n\nThat of {base}: {says}{terms}"
    text = f"## Licence\n\nThat of {base}, whose terms apply to this model too: {plain(strictest(named))}"
    text += f", read from {plain(told.licenses_from)}." if told.licenses_from else "."
    if len(named) > 1:
        clear = "is the strictest" if is_clear(named) else "is not known to be milder than the others"
        text += f" It names {', '.join(plain(name) for name in named)}, of which the first mentioned {clear}: read all."
    return text + terms


def _terms(artifact: Artifact, formats: Sequence[str]) -> str:
    """Where the terms can be read."""
    told = artifact.manifest.reference
    here, says = legal_names((record.name for record in artifact.manifest.files), formats), ""
    if here:
        says += f" Its files {', '.join(map(plain, here))} lie here too."
    missing = [name for name in told.files if is_legal(name) and name not in here]
    if missing:
        says += f" Its files {', '.join(map(plain, missing))} are not among these, and have to go along."
    if told.license_link and told.license_link not in (*here, *missing):
        says += f" It says that its terms are at {plain(told.license_link)}."
    return says


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
