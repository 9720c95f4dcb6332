"""Analyses that are arrays over the experts of a layer, as REAP's observer records them.

A file holds numbers under names, and a name says up to three things, in any order, divided by `/` (or nested, in JSON):

    what it is   one of `METRICS`: REAP's names (https://github.com/CerebrasResearch/reap), or those of our own sums
    the layer    `3`, `layer_3`, `layers.3`, `model.layers.3.mlp`, …; then the array is [E]. Without it the array is
                 [L, E], of the layers in the array `layer_ids`, or else of the layers from 0
    the class    any other word; one for all numbers or none, which makes the class "all"

So `3/reap`, `model.layers.3.mlp.reap`, `layer_3_reap`, `reap/3`, `code/3/reap` and `code/reap` are all understood.
Means over the routed tokens become sums by way of `expert_frequency`. `total_tokens` tells how many experts a token
uses. Names that end in anything else are left out, among them REAP's `reap_l2` and `weighted_ean_sum_l2`, about whose
meaning programs disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.contributions.model import Array
from studio.errors import FormatError

Name = tuple[str, ...]
"""A name, divided at its slashes or levels."""

ALL_CLASSES = "all"
METRICS: Mapping[str, str] = {
    "expert_frequency": "tokens",
    "ean_sum": "norm",
    "weighted_ean_sum": "weighted_norm",
    "weighted_expert_frequency_sum": "gate",
    "tokens": "tokens",
    "gate": "gate",
    "norm": "norm",
    "norm_squared": "norm_squared",
    "weighted_norm": "weighted_norm",
    "weighted_norm_squared": "weighted_norm_squared",
    "ean_mean": "norm",
    "reap": "weighted_norm",
}
"""Name → the sum that it is, or makes."""
MEANS = ("ean_mean", "reap")
"""Those that have to be multiplied by the number of routed tokens; a sum that is given is preferred."""
LAYER_IDS, TOTAL_TOKENS = "layer_ids", "total_tokens"

_WRAPPERS = {"layers", "classes", "metrics", "state"}
_LAYER = re.compile(r"(?:(?:[A-Za-z_]\w*\.)*(?:(?:layers?|blk|blocks?)[._]?|h\.))?(\d{1,6})(?:\.[A-Za-z_]\w*)*")
_WORDS = {*METRICS, LAYER_IDS, TOTAL_TOKENS}
_ONE_WORD = re.compile(rf"((?:layers?_?)\d+)_({'|'.join(METRICS)}|{TOTAL_TOKENS})")
HELP = "`python -m studio import --help` says how an analysis has to look."
_CREDIBLE_TOP_K = 0.02
"""How far a number of experts per token may be from a whole one; padding may have been counted with the tokens."""


@dataclass(frozen=True)
class PerLayer:
    """A file's numbers as sums."""

    classes: tuple[str, ...]
    layer_ids: tuple[int, ...]
    sums: Mapping[str, Array]
    """`SUMS` → [C, L, E]."""
    top_k: int | None
    """Experts that a token uses; None where the file does not tell."""


@dataclass(frozen=True)
class _Place:
    """What a name says; `klass` and `layer` are None where it does not say them."""

    klass: str | None
    layer: int | None
    metric: str

    def __str__(self) -> str:
        parts = [self.klass or "", "" if self.layer is None else f"layer {self.layer}", self.metric]
        return ", ".join(filter(None, parts))


def is_known(name: Name) -> bool:
    """Whether numbers of this name are worth reading."""
    return any(part in _WORDS for part in _divided(name))


def sums_of(arrays: Mapping[Name, Array], path: Path) -> PerLayer:
    """What `arrays` of the file at `path` say.

    Raises `FormatError`, with the place, for a file without any of `METRICS`, names that say something twice, shapes
    that do not fit each other, numbers below zero, means without the tokens that they are of, and classes or layers
    that lack what others have.
    """
    placed = _placed(arrays, path)
    layer_ids = _layer_ids(placed, path)
    classes = tuple(dict.fromkeys(place.klass for place in placed if place.metric in METRICS))
    if None in classes and len(classes) > 1:
        raise FormatError(
            path, "", f"some of its numbers are of the class {classes[1] or classes[0]!r}, others of none"
        )
    found = {
        metric: np.stack([_grid(placed, klass, metric, layer_ids, path) for klass in classes])
        for metric in METRICS
        if any(place.metric == metric for place in placed)
    }
    sizes = {metric: values.shape[2] for metric, values in found.items()}
    if len(set(sizes.values())) > 1:
        raise FormatError(path, "", f"its arrays have different numbers of experts: {_listed(sizes)}", HELP)
    return PerLayer(
        classes=tuple(klass or ALL_CLASSES for klass in classes),
        layer_ids=layer_ids,
        sums=_sums(found, path),
        top_k=_top_k(placed, found.get("expert_frequency")),
    )


def _placed(arrays: Mapping[Name, Array], path: Path) -> dict[_Place, Array]:
    placed: dict[_Place, Array] = {}
    for name, values in arrays.items():
        if not is_known(name):
            continue
        place = _place(name, path)
        if place in placed:
            raise FormatError(path, "/".join(name), f"there is a second array of {place}", HELP)
        if place.metric in METRICS and (values < 0).any():
            raise FormatError(path, "/".join(name), f"it holds {np.nanmin(values):g}, and cannot be negative")
        placed[place] = values
    if not any(place.metric in METRICS for place in placed):
        raise FormatError(path, "", f"this is not a contribution analysis: it has none of {', '.join(METRICS)}", HELP)
    return placed


def _divided(name: Name) -> Name:
    """`name` with what it is apart from the layer: `layers.3.reap` → `layers.3`, `reap`."""
    last = name[-1]
    if match := _ONE_WORD.fullmatch(last):
        return (*name[:-1], match[1], match[2])
    before, _, after = last.rpartition(".")
    return (*name[:-1], before, after) if before and after in _WORDS else name


def _place(name: Name, path: Path) -> _Place:
    parts = [part for part in _divided(name) if part not in _WRAPPERS]
    metrics = [part for part in parts if part in _WORDS]
    layers = [match for part in parts if part not in _WORDS and (match := _LAYER.fullmatch(part))]
    others = [part for part in parts if part not in _WORDS and not _LAYER.fullmatch(part)]
    if len(metrics) != 1 or len(layers) > 1 or len(others) > 1:
        raise FormatError(path, "/".join(name), "this name does not say what it is, of which layer and class", HELP)
    return _Place(others[0] if others else None, int(layers[0][1]) if layers else None, metrics[0])


def _layer_ids(placed: Mapping[_Place, Array], path: Path) -> tuple[int, ...]:
    """The layers: those that names say, else `layer_ids`, else as many as there are rows."""
    named = {place.layer for place in placed if place.metric in METRICS and place.layer is not None}
    if named:
        return tuple(sorted(named))
    rows = {place: np.shape(values)[:1] for place, values in placed.items() if place.metric in METRICS}
    first, count = next(iter(rows.items()))
    given = placed.get(_Place(None, None, LAYER_IDS))
    if given is None:
        return tuple(range(count[0] if count else 0))
    ids = tuple(int(layer) for layer in given.ravel() if np.isfinite(layer))
    if len(ids) != given.size or sorted(set(ids)) != list(ids) or ids[:1] < (0,) or (len(ids),) != count:
        raise FormatError(path, LAYER_IDS, f"they are not the ascending numbers of the layers of {first}", HELP)
    return ids


def _grid(
    placed: Mapping[_Place, Array], klass: str | None, metric: str, layer_ids: Sequence[int], path: Path
) -> Array:
    """[L, E] of one class."""
    whole = placed.get(_Place(klass, None, metric))
    if whole is not None:
        if whole.ndim != 2 or len(whole) != len(layer_ids) or not whole.size:
            wanted = f"[{len(layer_ids)}, experts]"
            raise FormatError(path, str(_Place(klass, None, metric)), f"it is {list(whole.shape)}, not {wanted}", HELP)
        return whole
    rows: list[Array] = []
    for layer in layer_ids:
        place = _Place(klass, layer, metric)
        row = placed.get(place)
        if row is None:
            raise FormatError(path, str(place), "it is missing, and others are there", HELP)
        if row.ndim != 1 or not row.size or (rows and row.shape != rows[0].shape):
            wanted = f"[{len(rows[0])}]" if rows else "[experts]"
            raise FormatError(path, str(place), f"it is {list(row.shape)}, not {wanted}", HELP)
        rows.append(row)
    return np.stack(rows)


def _sums(found: Mapping[str, Array], path: Path) -> dict[str, Array]:
    sums: dict[str, Array] = {}
    for metric, values in found.items():  # in the order of METRICS: sums before the means that would replace them
        name = METRICS[metric]
        if metric not in MEANS:
            sums.setdefault(name, values)
        elif name not in sums:
            if "tokens" not in sums:
                raise FormatError(
                    path, metric, "it is a mean, and of how many tokens is not said", f"Add tokens. {HELP}"
                )
            sums[name] = np.where(sums["tokens"] > 0, values * sums["tokens"], 0.0)
    return sums


def _top_k(placed: Mapping[_Place, Array], frequency: Array | None) -> int | None:
    """How many experts a token uses: what was routed, by what came in."""
    totals = [float(np.sum(values)) for place, values in placed.items() if place.metric == TOTAL_TOKENS]
    if frequency is None or not totals or not sum(totals) > 0 or len(totals) != frequency.shape[0] * frequency.shape[1]:
        return None
    per_token = float(frequency.sum()) / sum(totals)
    whole = round(per_token) if np.isfinite(per_token) else 0
    return whole if whole >= 1 and abs(per_token - whole) < _CREDIBLE_TOP_K * whole else None


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{metric} {size}" for metric, size in sizes.items())
