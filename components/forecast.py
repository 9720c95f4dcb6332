"""What outputs of the open model will be: their bytes, and what their tiers cannot give as they are."""

from __future__ import annotations

from collections.abc import Mapping

from components.library import Library, Opened
from studio.quantize.forecast import Sizes, forecast_of, predict_bytes
from studio.quantize.tiers import tier_named

SAFETENSORS = "safetensors"
AS_IS = "gguf"
"""What can be made beside tiers: a safetensors checkpoint, or a GGUF in the types that the reference has."""


def foretold_bytes(library: Library, opened: Opened, output: str) -> int:
    """Bytes of an output made of the open reference with the map that is shown.

    Of `SAFETENSORS` and `AS_IS` about, of a tier exactly but for the vocabulary and what the manifest takes.
    """
    reference, drop = opened.reference, opened.drop
    assert reference is not None and drop is not None, "sizes are asked for when both are open"
    if output in (SAFETENSORS, AS_IS):
        return reference.bytes * reference.parameters_with(drop.kept_count) // reference.parameters
    return bytes_with(library, opened, output, drop.dropped_count)


def bytes_with(library: Library, opened: Opened, tier: str, dropped: int) -> int:
    """Bytes of the open reference in `tier` without `dropped` experts of every layer."""
    reference = opened.reference
    assert reference is not None, "sizes are asked for when a model is open"
    guided = library.guidance(opened)
    return predict_bytes(
        library.outline(reference),
        tier_named(tier),
        reference.shape.experts - dropped,
        imatrix=guided.imatrix,
        ranking=guided.ranking,
    )


def fallbacks(library: Library, opened: Opened, tier: str) -> Mapping[str, int]:
    """What tensors get instead of the type that a tier wants ("Q4_K → Q5_0") → how many tensors."""
    return _sizes(library, opened, tier).fallbacks


def lacking(library: Library, opened: Opened, tier: str) -> tuple[str, ...]:
    """Tensors that a tier can make with an importance matrix only, where none covers them."""
    return _sizes(library, opened, tier).without_importance


def _sizes(library: Library, opened: Opened, tier: str) -> Sizes:
    assert opened.reference is not None and opened.drop is not None, "sizes are asked for when both are open"
    guided, forecast = library.guidance(opened), forecast_of(library.outline(opened.reference))
    kept = opened.drop.kept_count
    return forecast.sizes(tier_named(tier), kept, imatrix=guided.imatrix, ranking=guided.ranking)
