"""Recipes that people keep under a name in the workspace, as files that any other verb reads too.

Beside a recipe whose floors go by a second analysis lies a small file that says by which one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from studio.errors import FormatError, InputError, UnsupportedError
from studio.recipes.json_object import parse_object, shown
from studio.recipes.recipe import Recipe
from studio.staging import staged

SUFFIX = ".recipe.json"
FLOORS_SUFFIX = ".floors.json"
"""Of the file beside: `version`, and `floor_contributions`, the content hash of the second analysis."""
FLOORS_VERSION = 1
LONGEST_NAME = 60
"""Letters."""
_MOST_BYTES = 200
"""Of a name: with the suffix, and with what `staged` writes beside, it is still a file name (of 255 at most)."""
_HASH = re.compile(r"[0-9a-f]{64}")
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')


@dataclass(frozen=True)
class Shelf:
    """The named recipes in `folder`."""

    folder: Path

    def names(self) -> list[str]:
        """In alphabetical order."""
        names = (path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))
        return sorted(filter(_is_name, names), key=lambda name: (name.casefold(), name))

    def save(self, name: str, recipe: Recipe, second: str | None = None) -> str:
        """Keep `recipe` under `name`: the name as it is listed. `second` is the content hash of the second analysis
        that its floors go by, where they do and it is known.

        Raises `InputError` for what cannot be a name, and for one that another recipe has.
        """
        name = " ".join(name.split())
        path = self._path(name)
        second = second if recipe.needs_second_analysis else None
        if not path.exists():
            self._floors_path(name).unlink(missing_ok=True)  # left by a recipe that somebody removed by hand
        elif self.read(name) != recipe or (second and self.second(name) not in (None, second)):
            raise InputError(f"There is another recipe {name!r}.", "Choose another name, or delete that one first.")
        if second is not None:  # first, so that a recipe that can be opened knows its floors
            told = {"version": FLOORS_VERSION, "floor_contributions": second}
            with staged(self._floors_path(name), overwrite=True) as partial:
                partial.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        with staged(path, overwrite=True) as partial:
            partial.write_text(recipe.to_json(), encoding="utf-8")
        return name

    def read(self, name: str) -> Recipe:
        """Raises `InputError` where there is none of that name, and what `Recipe.from_json` raises."""
        path = self._path(name)
        if not path.is_file():
            raise InputError(f"There is no recipe {name!r} any more.", "Somebody has deleted it.")
        return Recipe.from_json(path.read_bytes(), f"The recipe {name!r}")

    def second(self, name: str) -> str | None:
        """The content hash of the second analysis that the recipe was kept with; None where it needs none, or was kept
        before Espalier noted it. Raises `FormatError`, and `UnsupportedError` for what a later version wrote."""
        path = self._floors_path(name)
        if not path.is_file():
            return None
        called = f"The file {path.name}"
        content = parse_object(path.read_bytes(), called)
        version = content.get("version")
        if type(version) is int and version > FLOORS_VERSION:
            raise UnsupportedError(
                f"{called} is of version {shown(version)}, and this Espalier reads version {FLOORS_VERSION}.",
                "Update Espalier.",
            )
        if unknown := [field for field in content if field not in ("version", "floor_contributions")]:
            raise FormatError(called, "", f"it has no field {shown(unknown[0])}")
        if version != FLOORS_VERSION:
            raise FormatError(called, "version", f"it is {shown(version)}, and not {FLOORS_VERSION}")
        key = content.get("floor_contributions")
        if not isinstance(key, str) or not _HASH.fullmatch(key):
            raise FormatError(called, "floor_contributions", "it is not the hash of an analysis")
        return key

    def delete(self, name: str) -> None:
        """One that is gone already is no mistake."""
        self._path(name).unlink(missing_ok=True)
        self._floors_path(name).unlink(missing_ok=True)

    def _floors_path(self, name: str) -> Path:
        path = self._path(name)
        return path.with_name(path.name.removesuffix(SUFFIX) + FLOORS_SUFFIX)

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
