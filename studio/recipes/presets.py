"""The published recipes, ready to use: what they measure, and when to choose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from studio.errors import InputError
from studio.families.base import MoeShape
from studio.recipes.recipe import Recipe

PUBLISHED_EXPERTS = 128
"""Experts per layer of Gemma 4 26B-A4B, for which the presets were published."""


@dataclass(frozen=True)
class Preset:
    """A published recipe; `recipe.drop` is what was dropped of 128 experts."""

    name: str
    title: str
    when: str
    """One sentence: what it is good for."""
    recipe: Recipe

    def drop_for(self, shape: MoeShape) -> int:
        """The same share of `shape`'s experts, as far as the router's top-k allows."""
        share = round(self.recipe.drop_of(PUBLISHED_EXPERTS) * shape.experts / PUBLISHED_EXPERTS)
        return max(0, min(share, shape.experts - shape.top_k))


# 98e-v3 and 98e-v4 were published with their 16 best experts protected. That is no field here, as it changes nothing: a
# map never drops its best.
_PRESETS = (
    Preset(
        name="98e-v3",
        title="Total contribution",
        when="Keeps what works most over all classes together; a class with many or long questions counts more.",
        # Σ over questions of 2·wnorm + tc.
        recipe=Recipe(criterion="weighted_norm", alpha=2.0, add_tokens=True, aggregate="sum", drop=30),
    ),
    Preset(
        name="98e-v4",
        title="Maximum over normalised classes",
        when="Keeps an expert that is strong in any one class, so that no class pays for the others.",
        # Per class 2·wnorm + tc, divided by the layer's mean; the highest class decides.
        recipe=Recipe(
            criterion="weighted_norm", alpha=2.0, add_tokens=True, normalise="mean", aggregate="max", drop=30
        ),
    ),
    Preset(
        name="109e-v3",
        title="Top 16 of every question",
        when="Keeps the experts that most questions lean on; follows the questions closely, and may fit them too well.",
        # In how many questions an expert is among the 16 highest wnorms of its layer.
        recipe=Recipe(criterion="coverage", protect_top_per_question=16, aggregate="sum", drop=19),
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _PRESETS})


def preset(name: str, drop: int | None = None, class_weights: Mapping[str, float] | None = None) -> Recipe:
    """The recipe of a preset with another drop count or class weights.

    Raises `InputError` for an unknown name, a negative drop count, or a weight that is negative or not finite.
    """
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}.", f"The presets are {', '.join(PRESETS)}.")
    recipe = PRESETS[name].recipe
    return recipe.but(drop=recipe.drop if drop is None else drop, class_weights=dict(class_weights or {}))
