"""What can be made of the open model: the choice, sizes, fallbacks, a job's parameters, the equivalent commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from html import escape
from typing import Any

from components import forecast
from components.forecast import AS_IS, SAFETENSORS
from components.library import Library, Opened
from components.markup import table
from components.state import OWN
from studio.errors import InputError, UnsupportedError
from studio.quantize.tiers import TIERS
from studio.recipes.presets import PRESETS
from studio.units import size_text

OFFERED = ("BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
"""The usual tiers, largest first."""
MORE = tuple(name for name in TIERS if name not in OFFERED)
"""All others, in the order of `TIERS`: largest first, and those by layer at the end."""
FIRST = "Q4_K_M"

_GOOD_FOR = {
    AS_IS: "fast: nothing is quantized again",
    SAFETENSORS: "transformers, vLLM, further training",
    "BF16": "16 bits, as models are published",
    "F16": "16 bits, for devices without BF16",
    "Q8_0": "nearly nothing lost",
    "Q6_K": "very close to the original",
    "Q5_K_M": "a good balance with memory to spare",
    "Q4_K_M": "the usual choice",
}


def output_choices(opened: Opened) -> list[tuple[str, str]]:
    """What can be made of the open reference."""
    whole = ("GGUF, types as they are", AS_IS) if _is_gguf(opened) else ("Safetensors", SAFETENSORS)
    return [whole, *((tier, tier) for tier in OFFERED)]


def first_outputs(opened: Opened) -> list[str]:
    """What is ticked before a person chooses: a quantized file stays as it is, as quantizing twice loses more."""
    return [AS_IS if _is_gguf(opened) else FIRST]


def _is_gguf(opened: Opened) -> bool:
    return opened.reference is not None and opened.reference.kind == "gguf"


def suggested_name(opened: Opened) -> str:
    """A name that says what was made: model and kept experts."""
    return f"{opened.name}-{opened.drop.kept_count}e" if opened.drop else ""


def following_name(opened: Opened, name: str) -> str:
    """The suggestion while a person has not written a name of their own."""
    follows = not name or re.fullmatch(rf"{re.escape(opened.name)}-\d+e", name)
    return suggested_name(opened) if follows else name


def foretold_sizes(library: Library, opened: Opened) -> list[tuple[str, int]]:
    """(output, predicted bytes) of everything that can be made of the open reference."""
    if opened.reference is None or opened.drop is None:
        return []
    return [(label, forecast.foretold_bytes(library, opened, output)) for label, output in output_choices(opened)]


def sizes_html(library: Library, opened: Opened, chosen: Sequence[str]) -> str:
    """Predicted size of every output at the chosen drop count, and where a chosen tier has to use larger types."""
    if opened.reference is None or opened.drop is None:
        return ""
    rows = []
    others = [(tier, tier) for tier in _chosen_tiers(chosen) if tier in MORE]
    for label, output in [*output_choices(opened), *others]:
        name = f"<strong>{escape(label)}</strong>" if output in chosen else escape(label)
        try:
            size = forecast.foretold_bytes(library, opened, output)
        except (InputError, UnsupportedError) as error:  # a tier that needs more than is open
            rows.append((name, "not known", "", escape(error.what)))
            continue
        share = f"{100 * size / opened.reference.bytes:.0f} %"
        rows.append((name, size_text(size), share, _GOOD_FOR.get(output) or _needs(library, opened, output)))
    sizes = table(("Output", "Predicted size", "of reference", "Good for"), rows, numeric=(1, 2))
    return sizes + "".join(_fallback_html(library, opened, tier) for tier in chosen if tier in TIERS)


def _needs(library: Library, opened: Opened, tier: str) -> str:
    """What a tier lacks."""
    return "needs an importance matrix" if forecast.lacking(library, opened, tier) else ""


def ticked(outputs: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    """What is chosen in both groups of boxes."""
    return [*(outputs or []), *(more or [])]


def _fallback_html(library: Library, opened: Opened, tier: str) -> str:
    """One line per kind of fallback of a tier."""
    if TIERS[tier].layers and library.guidance(opened).ranking is None:
        return ""
    changes = [f"{escape(change)} in {count}" for change, count in forecast.fallbacks(library, opened, tier).items()]
    if not changes:
        return ""
    why = "tensors, because their rows are not whole blocks of the smaller type"
    return f"<p class='quiet'><strong>{tier}</strong> uses larger types where it must: {', '.join(changes)} {why}.</p>"


def parameters(library: Library, opened: Opened, name: str, chosen: Sequence[str]) -> dict[str, Any]:
    """What the job `build` is told. Raises `InputError` when there is no map yet, or the outputs exclude each other."""
    if AS_IS in chosen and len(chosen) > 1:
        raise InputError(
            "A GGUF with its types as they are is one build, and tiers are another.", "Choose one of them."
        )
    map_path, recipe_path = library.keep_choice(opened.state)
    root = library.workspace.root
    tiers = _chosen_tiers(chosen)
    told: dict[str, Any] = {
        "reference": opened.state.reference,
        "map": str(map_path.relative_to(root)),
        "name": name.strip(),
        "outputs": [*([SAFETENSORS] if SAFETENSORS in chosen else []), *(["gguf"] if tiers or AS_IS in chosen else [])],
        "tiers": tiers,
    }
    by_layer = any(TIERS[tier].layers for tier in tiers)
    if recipe_path is not None:
        told["recipe"] = recipe_path.read_text(encoding="utf-8")
    if opened.analysis_path and (recipe_path is not None or by_layer):
        told["contributions"] = opened.analysis_path
    if opened.second_path and recipe_path is not None and opened.state.recipe.needs_second_analysis:
        told["floor_contributions"] = opened.second_path
    if opened.state.imatrix is not None and tiers:
        told["imatrix"] = str((library.workspace.imatrix / opened.state.imatrix).relative_to(root))
    return told


def _chosen_tiers(chosen: Sequence[str]) -> list[str]:
    """The tiers that are ticked, the usual ones first."""
    return [tier for tier in (*OFFERED, *MORE) if tier in chosen]


def command_html(library: Library, opened: Opened, name: str, chosen: Sequence[str]) -> str:
    """The same work as commands."""
    return f"<code class='command'>{escape(command_text(library, opened, name, chosen))}</code>"


def command_text(library: Library, opened: Opened, name: str, chosen: Sequence[str]) -> str:
    """Commands that do what the button does; files of the page's own are named as they can be saved from it."""
    if opened.reference is None or opened.drop is None:
        return ""
    reference = str(opened.reference.path)
    state, lines = opened.state, []
    if state.imported is None and opened.analysis_path:
        # What is said by hand is in the recipe's file only.
        published = state.preset != OWN and not (state.recipe.force_keep or state.recipe.force_drop)
        ranked = f"--preset {state.preset} --drop {state.recipe.drop}" if published else "--recipe recipe.json"
        brings_weights = published and bool(PRESETS[state.preset].recipe.class_weights)
        ones = dict.fromkeys(opened.classes, 1.0) if brings_weights else {}
        weights = [
            f"--class-weight {shlex.quote(f'{klass}={weight:g}')}"
            for klass, weight in {**ones, **state.recipe.class_weights}.items()
        ]
        said = " ".join([ranked, *(weights if published else [])])
        if opened.second_path and state.recipe.needs_second_analysis:
            said += f" --floor-contributions {shlex.quote(opened.second_path)}"
        lines.append(f"python -m studio map {shlex.quote(opened.analysis_path)} {said} --out map.json")
    made = ["--safetensors"] if SAFETENSORS in chosen else []
    tiers = _chosen_tiers(chosen)
    made += [f"--tier {tier}" for tier in tiers]
    if opened.state.imatrix and tiers:
        made.append(f"--imatrix {shlex.quote(str(library.workspace.imatrix / opened.state.imatrix))}")
    by_layer = any(TIERS[tier].layers for tier in tiers)
    if opened.analysis_path and (state.imported is None or by_layer):
        made.append(f"--contributions {shlex.quote(opened.analysis_path)}")
        if opened.second_path and state.imported is None and state.recipe.needs_second_analysis:
            made.append(f"--floor-contributions {shlex.quote(opened.second_path)}")
    called = shlex.quote(name.strip())
    lines.append(
        f"python -m studio build {shlex.quote(reference)} --map map.json {' '.join([*made, f'--name {called}'])}"
    )
    return "\n".join(lines)
