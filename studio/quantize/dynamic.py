"""Tiers that give each layer the type that its importance deserves ("ContribDynamic").

Layers are ranked by what their experts contribute, or by the energy that an importance matrix saw in them. Of 30 layers
the first gets the top type, the next seven the middle one, the others the low one; other depths have the same shares.
The result is nothing but overrides, so llama.cpp can be told the same (custom.py writes its file).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.quantize.imatrix import Imatrix
from studio.quantize.tiers import Override, Tier

OF_LAYERS, TOP, MIDDLE = 30, 1, 7
"""Of 30 layers one is in the top group and seven in the middle one."""

KEYS_AND_VALUES = r"attn_(?:k|v|qkv|kv_\w+|k_b|v_b)\.weight"


def settled(tier: Tier, layers: int, ranking: Sequence[int] | None, *, imatrix: bool) -> Tier:
    """`tier` with its types by layer turned into overrides, for a model of `layers` layers.

    `ranking` names layers, the most important first. Layers that are not in it (they have no experts) come first where
    they lie before all others, and last otherwise. Raises `InputError` where the tier asks for a ranking and there is
    none, or it names layers that the model does not have.
    """
    types = tier.layers
    if types is None:
        return tier
    if not ranking:
        raise InputError(
            f"{tier.name} gives each layer a type by its importance, which is not known.",
            "Give contributions or an importance matrix.",
        )
    ordered = _completed(ranking, layers)
    low = types.low_with_imatrix if imatrix else types.low
    by_layer = dict(zip(ordered, _spread(layers, types.top, types.middle, low), strict=True))
    overrides = [*tier.overrides]
    for kind in dict.fromkeys(by_layer.values()):
        block = _block_pattern([layer for layer in sorted(by_layer) if by_layer[layer] is kind])
        overrides += [
            Override(block + KEYS_AND_VALUES, max(kind, types.least_for_keys, key=_bits)),
            Override(block, kind),
        ]
    return replace(tier, overrides=tuple(overrides), layers=None)


def ranking_of_contributions(contributions: Contributions) -> tuple[int, ...]:
    """Layers by their total contribution, the largest first: the norm √Σ‖g·f‖² of each expert in each question, summed.

    An analysis without those goes by Σ‖g·f‖. Experts whose norms overflowed in an imported analysis count for nothing.
    Raises `InputError` for one without either: all layers see the same tokens.
    """
    known = contributions.sums
    instead = "weighted_norm" in known and "weighted_norm_squared" not in known
    norms = known["weighted_norm"] if instead else contributions.question_norm()
    totals = np.where(np.isfinite(norms), norms, 0).sum(axis=(0, 2))
    return rank(dict(zip(contributions.shape.layer_ids, totals.tolist(), strict=True)))


def ranking_of_imatrix(imatrix: Imatrix) -> tuple[int, ...]:
    """Layers by the energy Σx² that flowed into their down projections, the largest first.

    Those of the experts, where there are some; empty when the matrix says nothing about them.
    """
    return rank(_energies(imatrix, "ffn_down_exps") or _energies(imatrix, "ffn_down"))


def rank(importance: Mapping[int, float]) -> tuple[int, ...]:
    """Layers, the most important first; equals by number."""
    return tuple(sorted(importance, key=lambda layer: (-importance[layer], layer)))


def _energies(imatrix: Imatrix, part: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for name, entry in imatrix.entries.items():
        if match := re.fullmatch(rf"blk\.(\d+)\.{part}\.weight", name):
            found[int(match[1])] = float(entry.sums.sum(dtype="float64"))
    return found


def _completed(ranking: Sequence[int], layers: int) -> list[int]:
    strangers = [layer for layer in ranking if not 0 <= layer < layers]
    if strangers or len(set(ranking)) < len(ranking):
        raise InputError(
            f"The ranking of layers ({', '.join(map(str, ranking[:5]))} …) does not fit a model of {layers} layers.",
            "Give contributions or an importance matrix of this model.",
        )
    first, known = min(ranking), set(ranking)
    return [*range(first), *ranking, *(layer for layer in range(first, layers) if layer not in known)]


def _spread(layers: int, top: Type, middle: Type, low: Type) -> list[Type]:
    """The type of the most important layer, of the second, and so on."""
    tops = max(1, round(layers * TOP / OF_LAYERS))
    middles = round(layers * MIDDLE / OF_LAYERS)
    return ([top] * tops + [middle] * middles + [low] * layers)[:layers]


def _block_pattern(layers: Sequence[int]) -> str:
    return rf"^blk\.(?:{'|'.join(map(str, layers))})\."


def _bits(kind: Type) -> float:
    values, size = GGML_QUANT_SIZES[kind]
    return size / values
