"""What Espalier knows about architectures. Adding one is adding one small file and a line in `FAMILIES`."""

from __future__ import annotations

from studio.families.base import ExpertPlace, ExpertTensor, Family, MoeShape
from studio.families.gemma4 import GEMMA4
from studio.families.lookup import (
    FAMILIES,
    draft_layers_of_config,
    draft_layers_of_gguf,
    family_named,
    family_of_config,
    shape_of_config,
    shape_of_gguf,
)

__all__ = [
    "FAMILIES",
    "GEMMA4",
    "ExpertPlace",
    "ExpertTensor",
    "Family",
    "MoeShape",
    "draft_layers_of_config",
    "draft_layers_of_gguf",
    "family_named",
    "family_of_config",
    "shape_of_config",
    "shape_of_gguf",
]
