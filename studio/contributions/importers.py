"""Contribution analyses made elsewhere: published JSON formats, arrays per layer, and Espalier's own file.

Per category: `categories.<class>.<layer>` lists one object per expert. `wnorm` and `rnorm` are norms of whole stacks of
expert outputs, added up over prompts; their squares are stored as `weighted_norm_squared` and `norm_squared` of one
"question" per class, so that `Contributions.question_norm` gives them back exactly. `tc` is the number of routed
tokens. `wsum` (a mean per prompt), `cc` and `neuron_act` are none of the six sums and are left out.

Per question: `questions.<question>.<layer>` lists objects with `id`, `wnorm`, `rnorm` and `tc`; here the squares are
the sums themselves. An expert or a layer that is absent never fired. The format has no classes: all questions share
`QUESTIONS_CLASS`.

Arrays per layer (`.npz`, safetensors or JSON, such as REAP's observations): see `per_layer`.

NaN and infinite values are kept and show in `Contributions.nonfinite`; what becomes of them is the recipe's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.contributions import file
from studio.contributions.analysis_json import FORMAT_REMEDY, MOST_CELLS, JsonAnalysis, ListedLayer, read
from studio.contributions.model import UNKNOWN_FAMILY, Array, Contributions, Question
from studio.contributions.per_layer import HELP, Name, sums_of
from studio.contributions.per_layer_files import is_zip, read_json, read_npz, read_safetensors, refuse_pickle
from studio.errors import FormatError
from studio.families.base import MoeShape
from studio.progress import Progress, silent

QUESTIONS_CLASS = "questions"
_SUM_OF_FIELD = {"tc": "tokens", "rnorm": "norm_squared", "wnorm": "weighted_norm_squared"}
_CATEGORY_REMEDY = "Every class needs every expert of every layer once; export the analysis again."

# Gemma 4 26B-A4B, for analyses that name neither model nor top-k.
_GEMMA4_GRID = (30, 128)
_GEMMA4_TOP_K = 8


def import_analysis(path: Path, progress: Progress = silent, *, top_k: int | None = None) -> Contributions:
    """Read an analysis in any format that the head of this file names.

    The foreign formats do not say how many experts a token uses. `top_k` says it; without it, Gemma 4's published grid
    gets 8, and any other 1, the weakest claim: what a map may drop is checked again against the model it is used on.
    Sizes that the file does not give are 0, and the family of a model that it does not name is `UNKNOWN_FAMILY`.

    Raises `FormatError` with the place (`categories.code.layer 7, expert 12`) for missing, repeated or impossible
    experts, wrong counts, negative values and broken JSON; `InputError` when there is no such file.
    """
    path = Path(path)
    if path.is_file():
        if _looks_like_safetensors(path):
            if file.is_ours(path):
                return file.load(path)
            return _of_arrays(path, read_safetensors(path), "tensors per layer", {}, top_k)
        refuse_pickle(path)
        if is_zip(path):
            return _of_arrays(path, read_npz(path), "arrays per layer", {}, top_k)
    analysis = read(path, progress)
    if analysis is None:
        arrays, metadata = read_json(path)
        if not arrays:
            raise FormatError(
                path, "", 'this JSON holds neither "categories" nor "questions" nor arrays per layer', HELP
            )
        return _of_arrays(path, arrays, "JSON by layers", metadata, top_k)
    analysis = _as_listed(analysis)
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
    top_k = top_k or analysis.count("top_k")
    shape = replace(
        _shape(str(analysis.metadata.get("model") or ""), layer_ids, experts, top_k),
        hidden_size=analysis.count("hidden_size") or 0,
        expert_size=analysis.count("intermediate_size") or 0,
    )
    return Contributions(
        shape=shape,
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


def _as_listed(analysis: JsonAnalysis) -> JsonAnalysis:
    """`analysis` with its classes in the order of `metadata.categories`, which weights by position go by."""
    listed = analysis.metadata.get("categories")
    order = [klass for klass in listed if klass in analysis.groups] if isinstance(listed, list | dict) else []
    return replace(analysis, groups={klass: analysis.groups[klass] for klass in [*order, *analysis.groups]})


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


def _of_arrays(
    path: Path, arrays: Mapping[Name, Array], what: str, metadata: Mapping[str, Any], top_k: int | None
) -> Contributions:
    """What arrays per layer say: one question per class, of an unknown number of prompts."""
    found = sums_of(arrays, path)
    model, stated = str(metadata.get("model") or ""), metadata.get("top_k")
    experts = next(iter(found.sums.values())).shape[2]
    return Contributions(
        shape=_shape(
            model, found.layer_ids, experts, top_k or (stated if type(stated) is int and stated > 0 else found.top_k)
        ),
        model=model,
        questions=tuple(Question(id=klass, klass=klass) for klass in found.classes),
        sums=found.sums,
        source=f"imported from {path.name}, {what}",
    )


def _shape(model: str, layer_ids: tuple[int, ...], experts: int, top_k: int | None) -> MoeShape:
    name = model.lower().replace("-", "").replace("_", "")
    published_grid = (len(layer_ids), experts) == _GEMMA4_GRID
    is_gemma4 = "gemma4" in name or (published_grid and not name)
    assumed = _GEMMA4_TOP_K if is_gemma4 and published_grid else 1
    return MoeShape(
        family="gemma4" if is_gemma4 else UNKNOWN_FAMILY,
        layer_ids=layer_ids,
        experts=experts,
        top_k=top_k or assumed,
        hidden_size=0,
        expert_size=0,
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
