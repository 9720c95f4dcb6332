"""A recipe and the hashes of what it was used on, as one line of text: whoever has the analyses has the map."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from studio.errors import FormatError
from studio.recipes.json_object import parse_object
from studio.recipes.recipe import Recipe

PREFIX = "espalier:recipe:"
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = "The link to a recipe"
_REMEDY = "Copy the whole link."
LONGEST_MODEL = 200
"""Letters of the name of a model."""


@dataclass(frozen=True)
class Permalink:
    """`contributions` and `floor_contributions` are `Contributions.content_hash`; the second None where not needed.

    `model` is what people call the model; it helps them and decides nothing. Links from before it have none.
    """

    recipe: Recipe
    contributions: str
    floor_contributions: str | None = None
    model: str = ""

    def to_text(self) -> str:
        """The fields that differ from their defaults, in the letters that a web address may have."""
        changed = self.recipe.model_dump(mode="json", exclude_defaults=True)
        content: dict[str, Any] = {"contributions": self.contributions, "recipe": changed}
        if self.floor_contributions is not None:
            content["floor_contributions"] = self.floor_contributions
        if self.model:
            content["model"] = self.model[:LONGEST_MODEL]
        compact = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return PREFIX + base64.urlsafe_b64encode(compact.encode()).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Permalink:
        """Read what `to_text` wrote; `FormatError` for anything else."""
        coded = text.strip().removeprefix(PREFIX)
        try:
            decoded = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise FormatError(_NAME, "", f"it cannot be read ({error})", _REMEDY) from None
        try:
            content = parse_object(decoded, _NAME)
        except FormatError as error:
            raise FormatError(_NAME, "", "it is cut off, or altered on the way", _REMEDY) from error
        first, second = content.get("contributions"), content.get("floor_contributions")
        for name, value in (("contributions", first), ("floor_contributions", second or first)):
            if not isinstance(value, str) or not _HASH.fullmatch(value):
                raise FormatError(_NAME, name, "it is not the hash of an analysis")
        recipe, model = content.get("recipe"), content.get("model", "")
        if not isinstance(model, str) or len(model) > LONGEST_MODEL:
            raise FormatError(_NAME, "model", "it is not the name of a model")
        if not isinstance(recipe, dict) or set(content) - {"recipe", "contributions", "floor_contributions", "model"}:
            raise FormatError(_NAME, "", "it holds something else than a recipe, hashes of analyses and a model")
        return cls(Recipe.from_json(recipe, _NAME), str(first), second or None, model)
