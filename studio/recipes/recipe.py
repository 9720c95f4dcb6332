"""`Recipe`: everything a person chooses on the way from contributions to a drop map, as plain fields.

A recipe is read in the order of its fields: a criterion gives every class a number per expert, outliers are dealt with,
the classes are made comparable, weighted and combined into one score per expert, breadth is rewarded, some experts are
protected, and of the others the lowest scores are dropped; last come minima per class and what a person overrules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from studio.errors import FormatError, InputError, UnsupportedError
from studio.recipes.agreement import disagreement
from studio.recipes.json_object import as_object, parse_json, shown

VERSION: Final = 2
_VERSION_1_FIELDS: Final = (
    "version",
    "criterion",
    "alpha",
    "add_tokens",
    "protect_top_per_question",
    "outliers",
    "outlier_threshold",
    "normalise",
    "class_weights",
    "aggregate",
    "drop",
)

ALL_LAYERS: Final = "all"
"""The layer of `force_keep` and `force_drop` that means every layer."""
WILDCARDS: Final = "*?["
"""A key of class weights with one of these is a pattern."""
_LONGEST_PLACE: Final = 80
"""Letters of the place in a recipe that a message names."""
POSITION: Final = "#"
"""A key of class weights that begins with this counts the classes of the analysis: #1 is the first."""

_OTHER_FILES: Final = {
    "args": ("it is a generator's summary, and not a recipe", "`recipe import` makes one of it."),
    "recipe_hash": ("it is the story of a map, and not a recipe", "What its field 'recipe' holds is one."),
    "per_layer_drop": ("it is a drop map, and not a recipe", "A map of Espalier's has its recipe in the story beside."),
    "0": ("it is a drop map, and not a recipe", "A map of Espalier's has its recipe in the story beside."),
}
"""Key that gives another kind of file away, what it is, what to do."""

Criterion = Literal["weighted_norm", "norm", "contribution", "frequency", "gate", "reap", "ean", "ean_mean", "coverage"]
"""What is measured, per class and expert; f is an expert's output for a token, g its weight, N the routed tokens:

weighted_norm  Σ over questions of sqrt(Σ over tokens ‖g·f‖²): `wnorm` of published analyses
norm           the same without g: `rnorm`
contribution   Σ‖g·f‖
frequency      N
gate           Σg
reap           Σ‖g·f‖ / N (REAP, arXiv 2510.13999)
ean            Σ‖f‖, the expert's activation norm; ean_mean: Σ‖f‖ / N
coverage       questions in which the expert is among the `protect_top_per_question` highest weighted norms of its layer
"""

Outliers = Literal["keep", "median", "drop", "zero"]
Normalise = Literal["none", "mean", "rank", "zscore"]
Aggregate = Literal["sum", "mean", "max", "geomean", "lp4", "softmax_t4", "second", "top3mean"]
Arithmetic = Literal["espalier", "published"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(abs)]  # −0 would have other bytes than 0
LayerFloor = Annotated[float, Field(ge=-1e100, le=1e100), AfterValidator(lambda floor: floor + 0.0)]
MOST = 1 << 20
"""No count and no id of an expert is higher, by far."""
Count = Annotated[int, Field(ge=0, le=MOST)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST)]
Layer = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,5})$")]
LayerOrAll = Annotated[str, Field(pattern=r"^(all|0|[1-9][0-9]{0,5})$")]
Ids = Annotated[list[Count], AfterValidator(lambda ids: sorted(set(ids)))]
Clamp = Annotated[tuple[Count, Count], Strict(False)]
ClassMinimum = Annotated[tuple[str, AtLeastOne], Strict(False)]


class Recipe(BaseModel):
    """A way from contributions to a drop map. Making one with a wrong value raises `InputError` naming the field.

    `version` is the oldest that can say the same: what version 1 could say keeps its bytes and its hash for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="Espalier recipe")

    version: Literal[1, 2] = VERSION
    criterion: Criterion = "weighted_norm"
    alpha: Positive = 1.0
    """The criterion is multiplied with this before tokens are added."""
    add_tokens: bool = False
    """Whether the number of routed tokens is added: with `alpha` 2 the published score, 2·wnorm + tc."""
    protect_top_per_question: AtLeastOne = 16
    """How many experts of each layer a question vouches for; read by the criterion `coverage` only."""
    outliers: Outliers = "median"
    """What becomes of an entry (question, layer, expert) that is not finite or beyond `outlier_threshold`.

    `median`: the median of the other experts of that question and layer; `zero`: 0; `drop`: −∞, so that the expert goes
    first; `keep`: as it is, which ranks NaN and huge values highest.
    """
    outlier_threshold: Positive | None = None
    """Largest credible value of the criterion; None: a million times the median of the layer's positive entries."""
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    """The classes that take part, in this order; None: all of the analysis."""
    pool_classes: bool = False
    """Whether all classes count as one, each with its weight: `reap` and `ean_mean` are means over all tokens then."""
    normalise: Normalise = "none"
    """Per class and layer: divided by the mean over experts (`mean`), replaced by the rank, 0 (lowest) to 1, or by how
    many standard deviations a value lies above the mean (`zscore`; all 0 where experts do not differ)."""
    arithmetic: Arithmetic = "espalier"
    """`published`: to the letter as the published generator calculates, for maps that are to be made again.

    There, a class of weight 0 is still a class (to `second`, `top3mean`, `softmax_t4`, breadth, and protection); the
    mean of a layer with an expert at −∞ counts as 1e-12; and `lp4`, `second`, `top3mean` take −∞ and NaN as they come.
    (One thing is not the generator's: where more are protected than may be kept and priorities are equal, lower ids
    stay, and not those that come first in a Python set. In sets of 19 ids and more of up to 128 that is the same.)
    """
    class_weights: dict[str, Weight] = Field(default_factory=dict)
    """Weight per class; a class that is not named has 1, one with 0 does not count at all (but see `arithmetic`).

    A key is a class, a pattern (`targeted_*`; the longest that fits counts, and a class's own name before any), or, for
    all classes or none, a place in the order of the classes: `#1`, `#2` …
    """
    aggregate: Aggregate = "sum"
    """How the weighted classes become one score.

    `second`: the second highest; `top3mean`: the mean of the three highest; `lp4`: (Σ w·s⁴)^¼; `softmax_t4`:
    ¼·log Σ exp(4·w·s); `mean` and `geomean` divide by the sum of the weights.
    """
    breadth_bonus: Weight = 0.0
    """This much of the mean over classes of the normalised values, unweighted, is added to the score."""
    scope: Literal["layer", "model"] = "layer"
    """`model`: all layers drop the same ids; normalised values are averaged over layers before they are combined."""
    protect_top: Count = 0
    """The experts of each layer with the highest scores, which are not dropped; see `protect_aggregate`."""
    protect_aggregate: Aggregate | None = None
    """Combines the classes into the score that `protect_top` goes by; None: the score itself, with its bonus."""
    protect_class_weights: dict[str, Weight] = Field(default_factory=dict)
    """The weights for `protect_aggregate`, written like `class_weights`."""
    protect_top_per_class: Count = 0
    """The experts of each layer with the highest values in each class, which are not dropped."""
    floor_analysis: Literal["second", "same"] = "second"
    """Whose classes floors and `class_minimums` go by: a second analysis (the generic one), or the one at hand."""
    floor: Count = 0
    """How many experts of each layer are protected for their highest value in any class of the floor analysis."""
    layer_floors: dict[Layer, LayerFloor] = Field(default_factory=dict)
    """The same for single layers, in place of `floor`: whole numbers (or what `floor_clamp` makes into such)."""
    floor_layers_from: Literal["recipe", "file", "importance"] = "recipe"
    """`file`: `layer_floors` are in a file of their own, which has to be given. `importance`: from each layer's mean
    over its highest 98 of 128 values, put into `floor_clamp`: more where a layer matters more."""
    floor_clamp: Clamp | None = None
    """(lowest, highest): floors per layer are stretched linearly into this range."""
    class_minimums: list[ClassMinimum] = Field(default_factory=list)
    """(class, count): so many of the kept experts of each layer have their highest value in that class of the floor
    analysis. In this order, the best dropped ones come back for the weakest not protected by `protect_top` or floor."""
    force_keep: dict[LayerOrAll, Ids] = Field(default_factory=dict)
    """Experts per layer (or in `all`) that stay whatever the scores say."""
    force_drop: dict[LayerOrAll, Ids] = Field(default_factory=dict)
    """Experts per layer (or in `all`) that leave, protected or not."""
    drop: Count | None = None
    """Experts dropped in every layer: those with the lowest scores; among equal scores the lower id goes first."""
    keep: AtLeastOne | None = None
    """In place of `drop`: experts kept in every layer."""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(*_explained(error)) from None
        self.__dict__["version"] = self._oldest_version()

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if problem := disagreement(self):
            raise ValueError(problem)
        return self

    def _oldest_version(self) -> int:
        defaults = type(self).model_fields
        new = (name for name in defaults if name not in _VERSION_1_FIELDS)
        extended = any(getattr(self, name) != defaults[name].get_default(call_default_factory=True) for name in new)
        places = any(set(key) & set(WILDCARDS) or key.startswith(POSITION) for key in self.class_weights)
        return 2 if extended or places or self.normalise == "zscore" else 1

    def but(self, **changes: Any) -> Recipe:
        """This recipe with some fields changed; checked like any other. A new `drop` replaces `keep`, or `keep` it."""
        fields = self.model_dump(exclude={"version"})
        if changes.keys() & {"drop", "keep"}:
            fields |= {"drop": None, "keep": None}
        return Recipe(**{**fields, **changes})

    def drop_of(self, experts: int) -> int:
        """How many of `experts` leave every layer; `InputError` when more are to be kept than there are."""
        if self.drop is not None:
            return self.drop
        assert self.keep is not None, "a recipe has one of both"
        if self.keep > experts:
            raise InputError(
                f"The recipe keeps {self.keep} experts in every layer, and there are {experts}.", "Keep fewer."
            )
        return experts - self.keep

    @property
    def needs_second_analysis(self) -> bool:
        """Whether a map needs a second analysis beside the contributions."""
        floors = self.floor or self.layer_floors or self.floor_layers_from != "recipe"
        return self.floor_analysis == "second" and bool(floors or self.class_minimums)

    def to_json(self) -> str:
        """The fields of the recipe's version, keys sorted, one per line: equal recipes give equal bytes."""
        content = self.model_dump(mode="json", include=set(_VERSION_1_FIELDS) if self.version == 1 else None)
        return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def content_hash(self) -> str:
        """sha256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, source: str | bytes | Mapping[str, Any], name: str = "recipe") -> Recipe:
        """Read what `to_json` wrote, or JSON that a person wrote. `name` is what messages call it.

        Raises `FormatError` naming an unknown field or a wrong value, `UnsupportedError` for a newer version.
        """
        content = source if isinstance(source, Mapping) else parse_json(source, name)
        if isinstance(content, list):
            raise FormatError(
                name, "", "it is a list, and not a recipe", "`recipe import` makes one of a generator's arguments."
            )
        content = as_object(content, name)
        for key, (what, remedy) in _OTHER_FILES.items():
            if key in content:
                raise FormatError(name, "", what, remedy)
        version = content.get("version", VERSION)
        if type(version) is int and version > VERSION:
            raise UnsupportedError(
                f"{name} is a recipe of version {shown(version)}, and this Espalier reads version {VERSION}.",
                "Update Espalier.",
            )
        later = [field for field in content if field in cls.model_fields and field not in _VERSION_1_FIELDS]
        if version == 1 and type(version) is int and later:
            raise FormatError(
                name, "", f"a recipe of version 1 has no field {later[0]!r}", f"Write version {VERSION}, or none."
            )
        try:
            return cls(**content)
        except InputError as error:
            raise FormatError(name, "", error.what.removesuffix("."), error.remedy) from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of a recipe file, for editors and other tools."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}


def _explained(error: ValidationError) -> tuple[str, str]:
    """(what, remedy) of the first thing that pydantic found."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return f"A recipe has no field {shown(field)}.", f"It has {', '.join(Recipe.model_fields)}."
    if not field:
        what, _, remedy = first["msg"].removeprefix("Value error, ").partition("; ")
        return f"{what}.", remedy
    field = field if len(field) <= _LONGEST_PLACE else f"{field[:_LONGEST_PLACE]}…"
    if first["type"] == "string_pattern_mismatch":
        return (
            f"The recipe's {field} is {shown(first['input'])}, which is no layer.",
            "Write a layer's number; to keep or drop, also 'all'.",
        )
    return f"The recipe's {field} is {shown(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}.", ""
