"""Recipes that people keep under a name in the workspace, as files that any other verb reads too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from studio.errors import InputError
from studio.recipes.json_object import shown
from studio.recipes.recipe import Recipe
from studio.staging import staged

SUFFIX = ".recipe.json"
LONGEST_NAME = 60
"""Letters."""
_MOST_BYTES = 200
"""Of a name: with the suffix, and with what `staged` writes beside, it is still a file name (of 255 at most)."""
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')


@dataclass(frozen=True)
class Shelf:
    """The named recipes in `folder`."""

    folder: Path

    def names(self) -> list[str]:
        """In alphabetical order."""
        names = (path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))
        return sorted(filter(_is_name, names), key=lambda name: (name.casefold(), name))

    def save(self, name: str, recipe: Recipe) -> str:
        """Keep `recipe` under `name`: the name as it is listed.

        Raises `InputError` for what cannot be a name, and for one that another recipe has.
        """
        name = " ".join(name.split())
        path = self._path(name)
        if path.exists() and self.read(name) != recipe:
            raise InputError(f"There is another recipe {name!r}.", "Choose another name, or delete that one first.")
        with staged(path, overwrite=True) as partial:
            partial.write_text(recipe.to_json(), encoding="utf-8")
        return name

    def read(self, name: str) -> Recipe:
        """Raises `InputError` where there is none of that name, and what `Recipe.from_json` raises."""
        path = self._path(name)
        if not path.is_file():
            raise InputError(f"There is no recipe {name!r} any more.", "Somebody has deleted it.")
        return Recipe.from_json(path.read_bytes(), f"The recipe {name!r}")

    def delete(self, name: str) -> None:
        """One that is gone already is no mistake."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not name.strip():
            raise InputError("The recipe has no name yet.", "Type one.")
        if not _is_name(name):
            raise InputError(
                f"{shown(name)} cannot be the name of a recipe.",
                f"Use at most {LONGEST_NAME} letters (emoji count as several), no dot in front, and none of "
                '/ \\ : * ? " < > |.',
            )
        return self.folder / f"{name}{SUFFIX}"


def _is_name(name: str) -> bool:
    """Whether a recipe can have it; no other file of the folder is one."""
    if not name.strip() or name.startswith(".") or _FORBIDDEN.search(name):
        return False
    return len(name) <= LONGEST_NAME and len(name.encode()) <= _MOST_BYTES
