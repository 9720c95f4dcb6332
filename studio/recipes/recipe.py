"""`Recipe`: everything a person chooses on the way from contributions to a drop map, as plain fields.

A recipe is read in the order of its fields: a criterion gives every class a number per expert, outliers are dealt with,
the classes are made comparable, weighted and combined into one score per expert, and the lowest scores are dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.errors import FormatError, InputError, UnsupportedError
from studio.recipes.json_object import parse_object

VERSION: Final = 1

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
Normalise = Literal["none", "mean", "rank"]
Aggregate = Literal["sum", "mean", "max", "geomean", "lp4", "softmax_t4", "second", "top3mean"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Recipe(BaseModel):
    """A way from contributions to a drop map. Making one with a wrong value raises `InputError` naming the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = VERSION
    criterion: Criterion = "weighted_norm"
    alpha: Positive = 1.0
    """The criterion is multiplied with this before tokens are added."""
    add_tokens: bool = False
    """Whether the number of routed tokens is added: with `alpha` 2 the published score, 2·wnorm + tc."""
    protect_top_per_question: Annotated[int, Field(ge=1)] = 16
    """How many experts of each layer a question vouches for; read by the criterion `coverage` only."""
    outliers: Outliers = "median"
    """What becomes of an entry (question, layer, expert) that is not finite or beyond `outlier_threshold`.

    `median`: the median of the other experts of that question and layer; `zero`: 0; `drop`: −∞, so that the expert goes
    first; `keep`: as it is, which ranks NaN and huge values highest.
    """
    outlier_threshold: Positive | None = None
    """Largest credible value of the criterion; None: a million times the median of the layer's positive entries."""
    normalise: Normalise = "none"
    """Per class and layer: divided by the mean over experts, or replaced by the rank, 0 (lowest) to 1."""
    class_weights: dict[str, Weight] = Field(default_factory=dict)
    """Weight per class; a class that is not named has 1, one with 0 does not count at all."""
    aggregate: Aggregate = "sum"
    """How the weighted classes become one score.

    `second`: the second highest; `top3mean`: the mean of the three highest; `lp4`: (Σ w·s⁴)^¼; `softmax_t4`:
    ¼·log Σ exp(4·w·s); `mean` and `geomean` divide by the sum of the weights.
    """
    drop: Annotated[int, Field(ge=0)]
    """Experts dropped in every layer: those with the lowest scores; among equal scores the lower id goes first."""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(*_explained(error)) from None

    @model_validator(mode="after")
    def _tokens_add_to_sums_only(self) -> Self:
        if self.add_tokens and self.criterion in ("coverage", "reap", "ean_mean"):
            raise ValueError(f"tokens cannot be added to {self.criterion}, which is no sum over tokens")
        return self

    def but(self, **changes: Any) -> Recipe:
        """This recipe with some fields changed; checked like any other."""
        return Recipe(**{**self.model_dump(), **changes})

    def to_json(self) -> str:
        """All fields, keys sorted, one per line: equal recipes give equal bytes."""
        return json.dumps(self.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def content_hash(self) -> str:
        """sha256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, source: str | bytes | Mapping[str, Any], name: str = "recipe") -> Recipe:
        """Read what `to_json` wrote, or JSON that a person wrote. `name` is what messages call it.

        Raises `FormatError` naming an unknown field or a wrong value, `UnsupportedError` for a newer version.
        """
        content = source if isinstance(source, Mapping) else parse_object(source, name)
        version = content.get("version", VERSION)
        if type(version) is int and version > VERSION:
            raise UnsupportedError(
                f"{name} is a recipe of version {version}, and this Espalier reads version {VERSION}.",
                "Update Espalier.",
            )
        try:
            return cls(**content)
        except InputError as error:
            raise FormatError(name, "", error.what.removesuffix("."), error.remedy) from error


def _explained(error: ValidationError) -> tuple[str, str]:
    """(what, remedy) of the first thing that pydantic found."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"A recipe has no field {field!r}.", f"It has {', '.join(Recipe.model_fields)}."
    if first["type"] == "missing":
        return f"The recipe lacks {field!r}.", "Say how many experts to drop in every layer." if field == "drop" else ""
    if not field:
        return f"{first['msg'].removeprefix('Value error, ')}.", ""
    return f"The recipe's {field} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}.", ""
