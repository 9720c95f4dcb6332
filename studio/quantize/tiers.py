"""The named quantizations that people ask for, largest first.

A tier is one of llama.cpp's file types: a base type for most weights, and a rule (rule.py) that gives some tensors more
or less. The `_L` tiers are such a file type with Q8_0 for the embeddings and the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gguf.constants import GGMLQuantizationType as Type
from gguf.constants import LlamaFileType

from studio.errors import InputError
from studio.quantize.roles import Role


@dataclass(frozen=True)
class Tier:
    """A named GGUF quantization."""

    name: str
    mix: str
    """The llama.cpp file type whose rule chooses the types, as rule.py calls it."""
    base: Type
    """The type of a tensor about which the rule says nothing."""
    embeddings: Type | None = None
    """The type of the token embeddings, whatever the rule says."""
    output: Type | None = None
    """The type of the output projection, whatever the rule says."""

    @property
    def file_type(self) -> int:
        """`general.file_type` of the GGUF."""
        return int(LlamaFileType[f"MOSTLY_{self.mix}"])

    def forced(self, role: Role) -> Type | None:
        """The type that tensors of `role` have whatever the rule says."""
        if role is Role.EMBEDDINGS:
            return self.embeddings
        return self.output if role is Role.OUTPUT else None


_BASES = {
    "F16": Type.F16,
    "BF16": Type.BF16,
    "Q8_0": Type.Q8_0,
    "Q6_K": Type.Q6_K,
    "Q5_K_M": Type.Q5_K,
    "Q5_K_S": Type.Q5_K,
    "Q5_1": Type.Q5_1,
    "Q5_0": Type.Q5_0,
    "Q4_K_M": Type.Q4_K,
    "Q4_K_S": Type.Q4_K,
    "Q4_1": Type.Q4_1,
    "Q4_0": Type.Q4_0,
    "IQ4_NL": Type.IQ4_NL,
    "IQ4_XS": Type.IQ4_XS,
    "MXFP4_MOE": Type.MXFP4,
    "Q3_K_L": Type.Q3_K,
    "Q3_K_M": Type.Q3_K,
    "Q3_K_S": Type.Q3_K,
    "IQ3_M": Type.IQ3_S,
    "IQ3_S": Type.IQ3_S,
    "IQ3_XS": Type.IQ3_S,
    "IQ3_XXS": Type.IQ3_XXS,
    "Q2_K": Type.Q2_K,
    "Q2_K_S": Type.Q2_K,
    "IQ2_M": Type.IQ2_S,
    "IQ2_S": Type.IQ2_XS,
    "IQ2_XS": Type.IQ2_XS,
    "IQ2_XXS": Type.IQ2_XXS,
    "TQ2_0": Type.TQ2_0,
    "TQ1_0": Type.TQ1_0,
    "IQ1_M": Type.IQ1_M,
    "IQ1_S": Type.IQ1_S,
}

_LARGE = {"Q6_K": "Q6_K_L", "Q5_K_M": "Q5_K_L", "Q4_K_M": "Q4_K_L", "Q3_K_L": "Q3_K_XL", "Q2_K": "Q2_K_L"}
"""File type → its tier with Q8_0 embeddings and output; the names under which such files are published."""


def _all() -> dict[str, Tier]:
    tiers: dict[str, Tier] = {}
    for mix, base in _BASES.items():
        if large := _LARGE.get(mix):
            tiers[large] = Tier(large, mix, base, embeddings=Type.Q8_0, output=Type.Q8_0)
        tiers[mix] = Tier(mix, mix, base)
    return tiers


TIERS: Mapping[str, Tier] = MappingProxyType(_all())


def tier_named(name: str) -> Tier:
    """The tier called `name` (in any case); `InputError` listing the known names when there is none."""
    tier = TIERS.get(name.upper())
    if tier is None:
        raise InputError(f"There is no tier {name!r}.", f"The tiers are {', '.join(TIERS)}.")
    return tier
