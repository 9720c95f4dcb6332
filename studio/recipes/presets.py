"""The published recipes, ready to use: what they measure, and when to choose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from studio.errors import InputError
from studio.families.base import MoeShape
from studio.recipes.dropmap import most_droppable
from studio.recipes.idle import without_idle
from studio.recipes.recipe import Recipe

PUBLISHED_EXPERTS = 128
"""Experts per layer of Gemma 4 26B-A4B, for which the presets were published."""


@dataclass(frozen=True)
class Preset:
    """A published recipe; `recipe.drop` is what was dropped of 128 experts."""

    name: str
    title: str
    keeps: str
    """When to use it, in a sentence."""
    recipe: Recipe
    is_published: bool = True
    """Whether somebody published a model that was made by it, with `recipe.drop` experts dropped."""

    @property
    def when(self) -> str:
        """When to use it, with what was done by it in public."""
        count = self.recipe.drop_of(PUBLISHED_EXPERTS)
        told = f" Published with {count} of {PUBLISHED_EXPERTS} experts dropped in every layer."
        return self.keeps + (told if self.is_published else "")

    def drop_for(self, shape: MoeShape) -> int:
        """The same share of `shape`'s experts, as far as the router allows: its top-k, and equally many per group."""
        share = self.recipe.drop_of(PUBLISHED_EXPERTS) * shape.experts / PUBLISHED_EXPERTS
        return min(round(share / shape.groups) * shape.groups, most_droppable(shape))


# 98e-v3 and 98e-v4 were published with their 16 best experts protected. They have no `protect_top` here, as it changes
# nothing: a map never drops its best.
_PRESETS = (
    Preset(
        name="98e-v3",
        title="Total contribution",
        keeps=("Keeps what works most over all classes together; a class with many or long questions counts more."),
        # Σ over questions of 2·wnorm + tc.
        recipe=Recipe(criterion="weighted_norm", alpha=2.0, add_tokens=True, aggregate="sum", drop=30),
    ),
    Preset(
        name="98e-v4",
        title="Maximum over normalised classes",
        keeps=("Keeps an expert that is strong in any one class, so that no class pays for the others."),
        # Per class 2·wnorm + tc, divided by the layer's mean; the highest class decides.
        recipe=Recipe(
            criterion="weighted_norm", alpha=2.0, add_tokens=True, normalise="mean", aggregate="max", drop=30
        ),
    ),
    Preset(
        name="109e-v3",
        title="Top 16 of every question",
        keeps=(
            "Keeps the experts that most questions lean on; follows the questions closely, and may fit them too well."
        ),
        # In how many questions an expert is among the 16 highest wnorms of its layer.
        recipe=Recipe(criterion="coverage", protect_top_per_question=16, aggregate="sum", drop=19),
    ),
    Preset(
        name="98e-v5-coder",
        title="Coding first, with a floor for the rest",
        keeps=(
            "For a model that mostly writes code: code counts three times and targeted classes twice, and in every "
            "layer 15 to 25 of 128 experts that any class values most stay, more where the layer matters more."
        ),
        # Published with a second, generic analysis for the floors: say floor_analysis: second to give one.
        recipe=Recipe(
            criterion="weighted_norm",
            alpha=2.0,
            add_tokens=True,
            normalise="rank",
            class_weights={"*code": 3.0, "targeted_*": 2.0},
            aggregate="max",
            breadth_bonus=0.5,
            protect_top=16,
            floor_analysis="same",
            floor_layers_from="importance",
            floor_clamp=(15, 25),
            drop=30,
        ),
    ),
    Preset(
        name="REAP",
        title="Contribution per routed token",
        keeps=(
            "Keeps experts that matter whenever they are asked, however rarely that is; needs an analysis with Σ‖g·f‖, "
            "which the published JSON formats lack."
        ),
        # Σ‖g·f‖ / N over all tokens, as in arXiv 2510.13999; it was not published with a count of its own.
        recipe=Recipe(criterion="reap", pool_classes=True, drop=30),
        is_published=False,
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _PRESETS})


def scaled(recipe: Recipe, experts: int) -> Recipe:
    """`recipe` with as large a share of `experts` protected as of the 128 that presets were published for."""
    share = experts / PUBLISHED_EXPERTS
    clamp = recipe.floor_clamp
    return recipe.but(
        protect_top=round(recipe.protect_top * share),
        floor_clamp=None if clamp is None else (round(clamp[0] * share), round(clamp[1] * share)),
    )


def preset(name: str, drop: int | None = None, class_weights: Mapping[str, float] | None = None) -> Recipe:
    """The recipe of a preset with another drop count, or with class weights in place of its own.

    Raises `InputError` for an unknown name, a negative drop count, or a weight that is negative or not finite.
    """
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}.", f"The presets are {', '.join(PRESETS)}.")
    recipe = PRESETS[name].recipe
    changes: dict[str, object] = {} if drop is None else {"drop": drop}
    if class_weights is not None:
        changes["class_weights"] = dict(class_weights)
    return recipe.but(**changes)


def preset_named(recipe: Recipe, experts: int) -> str | None:
    """The preset that `recipe` is on layers of `experts`; None where it is none of them.

    Its drop count, its class weights and what it says by hand do not matter."""
    said = without_idle(recipe.but(force_keep={}, force_drop={}))
    for name in PRESETS:
        if without_idle(scaled(preset(name, recipe.drop, recipe.class_weights), experts)) == said:
            return name
    return None
