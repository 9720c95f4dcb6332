"""Contribution analyses made elsewhere: the two published JSON formats, and Espalier's own file.

Per category: `categories.<class>.<layer>` lists one object per expert. `wnorm` and `rnorm` are norms of whole stacks of
expert outputs, added up over prompts; their squares are stored as `weighted_norm_squared` and `norm_squared` of one
"question" per class, so that `Contributions.question_norm` gives them back exactly. `tc` is the number of routed
tokens. `wsum` (a mean per prompt), `cc` and `neuron_act` are none of the six sums and are left out.

Per question: `questions.<question>.<layer>` lists objects with `id`, `wnorm`, `rnorm` and `tc`; here the squares are
the sums themselves. An expert or a layer that is absent never fired. The format has no classes: all questions share
`QUESTIONS_CLASS`.

NaN and infinite values are kept and show in `Contributions.nonfinite`; what becomes of them is the recipe's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from studio.contributions import file
from studio.contributions.analysis_json import FORMAT_REMEDY, MOST_CELLS, JsonAnalysis, ListedLayer, read
from studio.contributions.model import UNKNOWN_FAMILY, Array, Contributions, Question
from studio.families.base import MoeShape
from studio.progress import Progress, silent

QUESTIONS_CLASS = "questions"
_SUM_OF_FIELD = {"tc": "tokens", "rnorm": "norm_squared", "wnorm": "weighted_norm_squared"}
_CATEGORY_REMEDY = "Every class needs every expert of every layer once; export the analysis again."

# Gemma 4 26B-A4B, for analyses that name neither model nor top-k.
_GEMMA4_GRID = (30, 128)
_GEMMA4_TOP_K = 8


def import_analysis(path: Path, progress: Progress = silent, *, top_k: int | None = None) -> Contributions:
    """Read an analysis: either published JSON format, or a file that `studio.contributions.file.save` wrote.

    The JSON formats do not say how many experts a token uses. `top_k` says it; without it, Gemma 4's published grid
    gets 8, and any other 1, the weakest claim: what a map may drop is checked again against the model it is used on.
    Sizes that the file does not give are 0, and the family of a model that it does not name is `UNKNOWN_FAMILY`.

    Raises `FormatError` with the place (`categories.code.layer 7, expert 12`) for missing, repeated or impossible
    experts, wrong counts, negative values and broken JSON; `InputError` when there is no such file.
    """
    path = Path(path)
    if path.is_file() and _looks_like_safetensors(path):
        return file.load(path)
    analysis = read(path, progress)
    layer_ids, experts = _layer_ids(analysis), _experts(analysis)
    if len(layer_ids) * experts > MOST_CELLS:
        raise analysis.error("", f"{len(layer_ids)} layers of {experts} experts are more than any model has")
    cells = len(analysis.groups) * len(layer_ids) * experts
    if cells > max(MOST_CELLS, path.stat().st_size):  # a file says something about most of them, in tens of bytes each
        grid = f"{len(analysis.groups)} groups × {len(layer_ids)} layers × {experts} experts"
        raise analysis.error("", f"it claims {grid}, and has hardly anything to say about them")
    if analysis.kind == "categories":
        _require_complete(analysis, layer_ids, experts)
        questions = tuple(_class_question(analysis, klass) for klass in analysis.groups)
    else:
        questions = tuple(Question(id=question, klass=QUESTIONS_CLASS) for question in analysis.groups)
    mode = analysis.metadata.get("wnorm_mode")
    return Contributions(
        shape=_shape(analysis, layer_ids, experts, top_k),
        model=str(analysis.metadata.get("model") or ""),
        questions=questions,
        sums=_sums(analysis, layer_ids, experts),
        source=f"imported from {path.name}, JSON by {analysis.kind}" + (f", wnorm_mode {mode}" if mode else ""),
    )


def _looks_like_safetensors(path: Path) -> bool:
    """JSON begins with a brace (after white space); a safetensors header has one at byte 8."""
    with path.open("rb") as opened:
        start = opened.read(9)
    return start[8:9] == b"{" and not start.lstrip().startswith(b"{")


def _layer_ids(analysis: JsonAnalysis) -> tuple[int, ...]:
    """The layers of all groups together, checked against `metadata.num_layers`."""
    found = sorted({layer for layers in analysis.groups.values() for layer in layers})
    count = analysis.count("num_layers")
    if not found:
        raise analysis.error(analysis.kind, "there is not one layer in it", FORMAT_REMEDY)
    if count is None:
        return tuple(found)
    if analysis.kind == "questions":  # a layer in which nothing fired may be absent, so the count rules
        if found[-1] >= count:
            raise analysis.error(f"questions, layer {found[-1]}", f"metadata.num_layers is {count}")
        return tuple(range(count))
    if len(found) != count:
        problem = f"it is {count}, but the classes have {len(found)} layers"
        raise analysis.error("metadata.num_layers", problem, _CATEGORY_REMEDY)
    return tuple(found)


def _experts(analysis: JsonAnalysis) -> int:
    """Experts per layer: `metadata.num_experts`, else one more than the largest id."""
    largest, place = -1, analysis.kind
    for group, layers in analysis.groups.items():
        for layer, listed in layers.items():
            last = int(listed.experts.max(initial=-1))
            if last > largest:
                largest, place = last, f"{analysis.kind}.{group}.layer {layer}, expert {last}"
    count = analysis.count("num_experts")
    if largest < 0:
        raise analysis.error(place, "no expert is listed anywhere", FORMAT_REMEDY)
    if count is not None and largest >= count:
        raise analysis.error(place, f"metadata.num_experts is {count}, so the largest id is {count - 1}")
    return largest + 1 if count is None else count


def _require_complete(analysis: JsonAnalysis, layer_ids: tuple[int, ...], experts: int) -> None:
    """Every class that the metadata lists, in it every layer, and in that every expert."""
    listed = analysis.metadata.get("categories")
    for klass in listed if isinstance(listed, list | dict) else ():
        if klass not in analysis.groups:
            raise analysis.error("metadata.categories", f"the class {klass!r} is missing", _CATEGORY_REMEDY)
    for klass, layers in analysis.groups.items():
        for layer in layer_ids:
            place = f"categories.{klass}.layer {layer}"
            if layer not in layers:
                raise analysis.error(place, "this layer is missing", _CATEGORY_REMEDY)
            missing = np.setdiff1d(np.arange(experts), layers[layer].experts)
            if missing.size:
                more = f", and {missing.size - 1} more of this layer" if missing.size > 1 else ""
                problem = f"this expert is missing{more}"
                raise analysis.error(f"{place}, expert {missing[0]}", problem, _CATEGORY_REMEDY)


def _class_question(analysis: JsonAnalysis, klass: str) -> Question:
    """Prompts are counted as the metadata says, else as the most prompts in which any expert fired."""
    counts = analysis.metadata.get("categories")
    stated = counts.get(klass) if isinstance(counts, dict) else None
    if not isinstance(stated, int):
        stated = max(layer.prompts for layer in analysis.groups[klass].values())
    return Question(id=klass, klass=klass, prompts=max(stated, 1))


def _shape(analysis: JsonAnalysis, layer_ids: tuple[int, ...], experts: int, top_k: int | None) -> MoeShape:
    model = str(analysis.metadata.get("model") or "").lower().replace("-", "").replace("_", "")
    published_grid = (len(layer_ids), experts) == _GEMMA4_GRID
    is_gemma4 = "gemma4" in model or (published_grid and not model)
    assumed = _GEMMA4_TOP_K if is_gemma4 and published_grid else 1
    return MoeShape(
        family="gemma4" if is_gemma4 else UNKNOWN_FAMILY,
        layer_ids=layer_ids,
        experts=experts,
        top_k=top_k or analysis.count("top_k") or assumed,
        hidden_size=analysis.count("hidden_size") or 0,
        expert_size=analysis.count("intermediate_size") or 0,
    )


def _sums(analysis: JsonAnalysis, layer_ids: tuple[int, ...], experts: int) -> Mapping[str, Array]:
    sums = {name: np.zeros((len(analysis.groups), len(layer_ids), experts)) for name in _SUM_OF_FIELD.values()}
    row = {layer: index for index, layer in enumerate(layer_ids)}
    for group, layers in enumerate(analysis.groups.values()):
        for layer, listed in layers.items():
            for field, name in _SUM_OF_FIELD.items():
                sums[name][group, row[layer], listed.experts] = _as_sum(field, listed)
    return sums


def _as_sum(field: str, listed: ListedLayer) -> Array:
    if field == "tc":
        return listed.values[field]
    with np.errstate(over="ignore"):  # a norm beyond 1e154 becomes infinite, and so is flagged
        return np.square(listed.values[field])
