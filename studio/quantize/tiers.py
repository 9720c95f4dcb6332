"""The named quantizations that people ask for, largest first.

A tier is one of llama.cpp's file types: a base type for most weights, and a rule (rule.py) that gives some tensors more
or less. The `_L` tiers are such a file type with Q8_0 for the embeddings and the output, the `CD` tiers give each layer
the type that its importance deserves (dynamic.py), and a person's own tier (custom.py) overrides what it likes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from gguf.constants import GGMLQuantizationType as Type
from gguf.constants import LlamaFileType

from studio.errors import InputError
from studio.quantize.roles import PER_LAYER_EMBEDDINGS, Role


@dataclass(frozen=True)
class Override:
    """Tensors in whose name `pattern` is found get `type`, as by a line `pattern=type` of llama.cpp's file."""

    pattern: str
    type: Type

    def covers(self, name: str) -> bool:
        """Whether it is about the tensor called `name`."""
        return _compiled(self.pattern).search(name) is not None


@dataclass(frozen=True)
class LayerTypes:
    """The types of a tier that is made layer by layer, from the most important layers to the others."""

    top: Type
    middle: Type
    low: Type
    low_with_imatrix: Type
    """Instead of `low` where an importance matrix is there to make it well."""
    least_for_keys: Type
    """What attention keys and values have at least."""


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
    overrides: tuple[Override, ...] = ()
    """Exceptions from the rule; the first that covers a tensor decides."""
    layers: LayerTypes | None = None
    """Types by the importance of layers, for what `overrides` say nothing about."""

    @property
    def file_type(self) -> int:
        """`general.file_type` of the GGUF."""
        return int(LlamaFileType[f"MOSTLY_{self.mix}"])

    def forced(self, role: Role, name: str) -> Type | None:
        """The type of the tensor called `name`, of `role`, if the tier leaves the rule no choice."""
        override = next((one.type for one in self.overrides if one.covers(name)), None)
        if role is Role.EMBEDDINGS and not (override and name == PER_LAYER_EMBEDDINGS):
            return self.embeddings or override
        return (self.output if role is Role.OUTPUT else None) or override


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

_DYNAMIC = {
    "CD-Q6_K": ("Q6_K", LayerTypes(Type.Q8_0, Type.Q6_K, Type.Q5_K, Type.Q5_K, Type.Q8_0)),
    "CD-Q5_K_M": ("Q5_K_M", LayerTypes(Type.Q6_K, Type.Q5_K, Type.Q4_K, Type.Q4_K, Type.Q6_K)),
    "CD-Q4_K_M": ("Q4_K_M", LayerTypes(Type.Q5_K, Type.Q4_K, Type.Q3_K, Type.Q3_K, Type.Q5_K)),
    "CD-IQ4_K_M": ("IQ4_XS", LayerTypes(Type.IQ4_NL, Type.IQ4_XS, Type.Q3_K, Type.Q3_K, Type.Q5_K)),
    "CD-Q3_K_L": ("Q3_K_L", LayerTypes(Type.Q4_K, Type.Q3_K, Type.Q3_K, Type.IQ3_S, Type.Q5_K)),
    "CD-Q2_K": ("Q2_K", LayerTypes(Type.Q3_K, Type.Q2_K, Type.Q2_K, Type.IQ2_S, Type.Q4_K)),
}
"""Tier → its file type, and what its layers get."""

_ALIASES = {"CD-Q3_K_M": "CD-Q3_K_L", **{f"Q{bits}_K": f"Q{bits}_K_M" for bits in (3, 4, 5)}}
"""Other names under which tiers are published, or known to llama.cpp."""


def _all() -> dict[str, Tier]:
    tiers: dict[str, Tier] = {}
    for mix, base in _BASES.items():
        if large := _LARGE.get(mix):
            tiers[large] = Tier(large, mix, base, embeddings=Type.Q8_0, output=Type.Q8_0)
        tiers[mix] = Tier(mix, mix, base)
    for name, (mix, layers) in _DYNAMIC.items():
        tiers[name] = Tier(name, mix, _BASES[mix], embeddings=Type.Q8_0, output=Type.Q8_0, layers=layers)
    return tiers


TIERS: Mapping[str, Tier] = MappingProxyType(_all())


def tier_named(name: str) -> Tier:
    """The tier called `name` (in any case); `InputError` listing the known names when there is none."""
    tier = TIERS.get(_ALIASES.get(name.upper(), name.upper()))
    if tier is None:
        raise InputError(f"There is no tier {name!r}.", f"The tiers are {', '.join(TIERS)}.")
    return tier


def type_named(name: str) -> Type:
    """The ggml type called `name` (in any case); `InputError` listing what can be asked for when there is none."""
    kind = Type.__members__.get(name.upper())
    if kind not in _OFFERED:
        raise InputError(f"There is no type {name!r}.", f"The types are {', '.join(one.name for one in _OFFERED)}.")
    return kind


@lru_cache(maxsize=1 << 12)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_OFFERED = (Type.F32, *dict.fromkeys(_BASES.values()))
