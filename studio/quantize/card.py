"""How much of this machine's graphics card there is for models."""

from __future__ import annotations

from studio.limits import CARD_MEMORY
from studio.quantize.fit import free_gpu_bytes
from studio.quantize.ggml import computes_on_gpu

CARD_VARIABLE = CARD_MEMORY.variable
"""Environment variable: bytes of the graphics card that models may use; 0 leaves it alone."""


def free_card_bytes() -> int | None:
    """Memory of the graphics card for models: what `CARD_VARIABLE` allows, else what is free now.

    None where there is no card that llama.cpp computes on here, or none that tells: then llama.cpp decides itself.
    """
    allowed = CARD_MEMORY.value
    return allowed if allowed is not None or not computes_on_gpu() else free_gpu_bytes()
