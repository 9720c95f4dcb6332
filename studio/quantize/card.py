"""How much of this machine's graphics card there is for models."""

from __future__ import annotations

import os

from studio.errors import InputError
from studio.quantize.fit import free_gpu_bytes
from studio.quantize.ggml import computes_on_gpu

CARD_VARIABLE = "ESPALIER_CARD_MEMORY"
"""Environment variable: bytes of the graphics card that models may use; 0 leaves it alone."""


def free_card_bytes() -> int | None:
    """Memory of the graphics card for models: what `CARD_VARIABLE` allows, else what is free now.

    None where there is no card that llama.cpp computes on here, or none that tells: then llama.cpp decides itself.
    """
    allowed = bytes_allowed(CARD_VARIABLE)
    return allowed if allowed is not None or not computes_on_gpu() else free_gpu_bytes()


def bytes_allowed(variable: str) -> int | None:
    """The bytes that an environment variable says, None where it is not set; `InputError` where it is no number."""
    said = os.environ.get(variable)
    if said and not said.isdigit():
        raise InputError(f"{variable} is {said!r}, and has to be a number of bytes.")
    return int(said) if said else None
