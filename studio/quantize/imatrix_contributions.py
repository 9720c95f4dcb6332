"""An importance matrix as a contribution analysis: routed tokens, and an estimate of the output norms.

For every expert the matrix holds how many tokens reached it, and for each of its neurons the energy Σ hⱼ² over those
tokens: hⱼ is what the down projection W multiplies. The expert's output is f = W h, so

    Σ ‖f‖²  =  Σᵢⱼ (WᵀW)ᵢⱼ Σ hᵢ hⱼ  ≈  Σⱼ ‖W[:, j]‖² Σ hⱼ²

where the second step takes the neurons for uncorrelated (Σ hᵢ hⱼ = 0 for i ≠ j), because the matrix has no more than
the diagonal. A bias of the projection is left out.

The router's weights are in no importance matrix. So the weighted norm takes every routed token of a layer for weighted
alike, with the mean 1/k of k weights that sum to one, times the expert's own scale where the model has one (Gemma 4).
An expert that is chosen often but with little weight is thereby overrated. On the demo model, with the same questions,
the estimate ranks the experts of a layer as measuring does to 0.78 to 0.96 (Spearman), routed tokens to 0.04 to 0.46.

All questions of the text are one: classes have to be measured apart, each with its own matrix, and merged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studio.checkpoints.expert_weights import ExpertWeights
from studio.checkpoints.gguf_header import MAGIC
from studio.checkpoints.reference import Reference
from studio.contributions.importers import import_analysis
from studio.contributions.model import UNKNOWN_FAMILY, Array, Contributions, Question
from studio.contributions.per_layer import ALL_CLASSES
from studio.errors import InputError, MismatchError
from studio.families import MoeShape
from studio.progress import Progress, silent
from studio.quantize.imatrix import Imatrix
from studio.quantize.imatrix_file import read_imatrix

LEGACY_SUFFIX = ".dat"
ESTIMATE = "an estimate from an importance matrix"


def import_any(
    path: Path,
    progress: Progress = silent,
    *,
    model: Reference | None = None,
    klass: str = ALL_CLASSES,
    top_k: int | None = None,
) -> Contributions:
    """Read an analysis in any format that Espalier knows, importance matrices among them.

    With `model` the norms of an importance matrix are estimated; without it there are its routed tokens. Raises what
    `import_analysis`, `read_imatrix` and `contributions_of` raise.
    """
    path = Path(path)
    if not is_imatrix(path):
        return import_analysis(path, progress, top_k=top_k or (model.shape.top_k if model else None))
    return contributions_of(read_imatrix(path), path, model=model, klass=klass, progress=progress)


def is_imatrix(path: Path) -> bool:
    """Whether the file at `path` is to be read as an importance matrix: any GGUF, or a legacy .dat."""
    if not path.is_file():
        return False
    with path.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC or path.suffix.lower() == LEGACY_SUFFIX


def contributions_of(
    imatrix: Imatrix,
    path: Path,
    *,
    model: Reference | None = None,
    klass: str = ALL_CLASSES,
    progress: Progress = silent,
) -> Contributions:
    """The routed tokens of `imatrix`, which was read from `path`; with `model` also estimates of its norms.

    Raises `InputError` when it does not say how many tokens reached each expert, which no legacy file says;
    `MismatchError` when it is of another model than `model`; what `ExpertWeights` raises.
    """
    tokens = _tokens(imatrix, path)
    layer_ids = tuple(tokens)
    experts = len(next(iter(tokens.values())))
    sums = {"tokens": np.stack(list(tokens.values()))[np.newaxis]}
    text = ", ".join(imatrix.datasets) or "an unnamed text"
    source = f"imported from {path.name}, routed tokens of an importance matrix of {text}"
    estimated: tuple[str, ...] = ()
    if model is not None:
        _require_same(model, layer_ids, experts, path)
        norm, weighted = _norms(imatrix, ExpertWeights(model), path, progress)
        sums |= {"norm_squared": norm[np.newaxis], "weighted_norm_squared": weighted[np.newaxis]}
        estimated = ("norm_squared", "weighted_norm_squared")
        source = (
            f"{ESTIMATE}, {path.name} of {text}, and the down projections of {model.name}: neurons are taken for "
            "uncorrelated, and all routed tokens of a layer for weighted alike"
        )
    unknown = MoeShape(UNKNOWN_FAMILY, layer_ids, experts, _top_k(imatrix, sums["tokens"]), 0, 0)
    return Contributions(
        shape=model.shape if model else unknown,
        model=model.name if model else "",
        questions=(Question(id=klass, klass=klass),),
        sums=sums,
        source=source,
        estimated=estimated,
    )


def _tokens(imatrix: Imatrix, path: Path) -> dict[int, Array]:
    """Layer → routed tokens of each expert, `[E]`."""
    if imatrix.legacy:
        raise InputError(
            f"{path} is a legacy importance matrix, which counts chunks of text and not the tokens of each expert, so "
            "it does not tell how much any expert was used.",
            "Compute one in the GGUF format: llama-imatrix --output-format gguf.",
        )
    tokens = {layer: one.tokens.astype(np.float64) for layer, one in imatrix.coverage.items()}
    if not tokens:
        raise InputError(
            f"{path} does not say how many tokens reached each expert.",
            "It is of a model without experts, or was converted from the legacy format.",
        )
    if len({len(one) for one in tokens.values()}) > 1:
        raise InputError(f"{path} has layers with different numbers of experts.", "It cannot be shown as one grid.")
    return tokens


def _require_same(model: Reference, layer_ids: tuple[int, ...], experts: int, path: Path) -> None:
    ours = model.shape
    if (layer_ids, experts) != (ours.layer_ids, ours.experts):
        raise MismatchError(
            f"{path} is an importance matrix of {len(layer_ids)} layers × {experts} experts, and {model.name} has "
            f"{ours.layers} × {ours.experts}.",
            "Name the model that it was computed with.",
        )


def _norms(imatrix: Imatrix, weights: ExpertWeights, path: Path, progress: Progress) -> tuple[Array, Array]:
    """Estimates of Σ‖f‖² and Σ‖g·f‖², each `[L, E]`."""
    shape = weights.shape
    norm = np.zeros((shape.layers, shape.experts))
    scales = np.stack([weights.scale(layer).astype(np.float64) for layer in shape.layer_ids])
    for row, layer in enumerate(shape.layer_ids):
        energy = _energy(imatrix, layer, shape, path)
        for expert in range(shape.experts):
            progress(row * shape.experts + expert, norm.size, "experts", f"Reading the experts of layer {layer}")
            columns = np.square(weights.down(layer, expert), dtype=np.float64).sum(axis=0)
            norm[row, expert] = energy[expert] @ columns
    progress(norm.size, norm.size, "experts", "")
    return norm, norm * np.square(scales / shape.top_k)


def _energy(imatrix: Imatrix, layer: int, shape: MoeShape, path: Path) -> Array:
    """Σ hⱼ² of each neuron of each expert of one layer, `[E, expert size]`."""
    name = f"blk.{layer}.ffn_down_exps.weight"
    entry = imatrix.entries.get(name)
    if entry is None or entry.sums.shape != (shape.experts, shape.expert_size):
        found = "nothing" if entry is None else f"{' × '.join(map(str, entry.sums.shape))} numbers"
        raise MismatchError(
            f"{path} has {found} about {name}, and the model has {shape.experts} × {shape.expert_size} there.",
            "Name the model that it was computed with.",
        )
    return entry.sums.astype(np.float64)


def _top_k(imatrix: Imatrix, tokens: Array) -> int:
    """Experts that a token uses: what experts saw, by what other weights saw; 1 where nothing tells."""
    seen = max((int(entry.counts[0]) for entry in imatrix.entries.values() if len(entry.counts) == 1), default=0)
    return max(1, round(float(tokens.sum(axis=2).max()) / seen)) if seen else 1
