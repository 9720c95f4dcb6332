"""Where things lie on disk: one folder, `ESPALIER_HOME`, with one room per noun.

On a page with logins each person has a part of it, `people/DIGEST`, which is a workspace again: with artifacts, recipes
and jobs of its own. `ESPALIER_HOME=…/people/DIGEST python -m studio` works in it, and its `person.json` says whose it
is. Only what is made of a model alone, the cache, is shared, and the job slots are.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from studio.access import FULL, Access
from studio.errors import InputError, RefusedError
from studio.staging import FOLDER_MARK

ROOMS = (
    "references",
    "prompts",
    "tasks",
    "contributions",
    "recipes",
    "maps",
    "imatrix",
    "artifacts",
    "measures",
    "votes",
    "jobs",
    "sessions",
    "searches",
    "cache",
)
PEOPLE = "people"
PERSON = "person.json"
"""In the part of a person: whose it is."""
MODELS_VARIABLE = "ESPALIER_MODELS"
"""Folders of models that may be opened, beside those of the workspace; they are separated as in `$PATH`."""


@dataclass(frozen=True)
class Workspace:
    """The workspace at `root` (an absolute, resolved path)."""

    root: Path
    whole: Path | None = None
    """The workspace that this is one person's part of."""
    access: Access = FULL
    """What may be done by whoever works in it."""

    @classmethod
    def open(cls, root: Path | str | None = None) -> Workspace:
        """The workspace at `root`, else at `$ESPALIER_HOME`, else at `~/.espalier`; its folders are made."""
        chosen = Path(root or os.environ.get("ESPALIER_HOME") or Path.home() / ".espalier").expanduser().resolve()
        for room in ROOMS:
            (chosen / room).mkdir(parents=True, exist_ok=True)
        is_part = (chosen / PERSON).is_file() and chosen.parent.name == PEOPLE
        return cls(chosen, chosen.parents[1] if is_part else None)

    def of(self, person: str, access: Access = FULL) -> Workspace:
        """The part of `person`, whatever letters the name has; it is made where there is none."""
        house = self.whole or self.root
        part = house / PEOPLE / hashlib.sha256(person.encode()).hexdigest()[:16]
        part.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (part / PERSON).exists():
            (part / PERSON).write_text(json.dumps({"name": person}) + "\n", encoding="utf-8")
        return replace(Workspace.open(part), access=access)

    def parts(self) -> dict[str, Workspace]:
        """The parts of all people: name of its folder → part; "" is the workspace itself, which is nobody's part."""
        house = self.whole or self.root
        folders = [file.parent for file in (house / PEOPLE).glob(f"*/{PERSON}")]
        return {"": Workspace(house), **{folder.name: Workspace(folder, house) for folder in folders}}

    def discreet(self, text: str) -> str:
        """`text` without the folder of this workspace, where whoever reads it has no business on this machine."""
        return text if self.access.is_full else text.replace(f"{self.root}{os.sep}", "")

    @property
    def person(self) -> str:
        """Whose part this is; empty where it is nobody's, or does not say so."""
        try:
            return str(json.loads((self.root / PERSON).read_text(encoding="utf-8"))["name"]) if self.whole else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    @property
    def part(self) -> str:
        """The name of this part among `parts`."""
        return self.root.name if self.whole else ""

    @property
    def references(self) -> Path:
        return self.root / "references"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts"

    @property
    def tasks(self) -> Path:
        """Files of questions with known answers."""
        return self.root / "tasks"

    @property
    def contributions(self) -> Path:
        return self.root / "contributions"

    @property
    def recipes(self) -> Path:
        return self.root / "recipes"

    @property
    def maps(self) -> Path:
        return self.root / "maps"

    @property
    def imatrix(self) -> Path:
        return self.root / "imatrix"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def measures(self) -> Path:
        """Results about models that are no artifact; those of an artifact lie with it."""
        return self.root / "measures"

    @property
    def votes(self) -> Path:
        """What people preferred in blind comparisons."""
        return self.root / "votes"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def sessions(self) -> Path:
        return self.root / "sessions"

    @property
    def searches(self) -> Path:
        return self.root / "searches"

    @property
    def cache(self) -> Path:
        """What can be made again of models, by their hashes: shared, as a conversion may have many gigabytes."""
        return (self.whole or self.root) / "cache"

    def model_folders(self) -> list[Path]:
        """Where models lie that may be opened by name, the first one of a name counts."""
        if not self.access.models:
            return []
        listed = os.environ.get(MODELS_VARIABLE, "")
        allowed = [Path(folder).expanduser() for folder in listed.split(os.pathsep) if folder]
        whole = [self.whole / "references"] if self.whole else []
        return [self.references, *whole, *(folder for folder in allowed if folder.is_dir())]

    def model(self, name: str) -> Path | None:
        """The model called `name` in one of the `model_folders`.

        In the rooms of a workspace it may be a link to anywhere: no page can make one, so whoever put it there has
        decided that this model may be read. In another folder it has to lie there.
        """
        if not name or name in (".", "..") or "/" in name or os.sep in name:
            return None
        own = [part / "references" for part in (self.root, self.whole) if part]
        for folder in self.model_folders():
            path = folder / name
            if path.exists() and (folder in own or path.resolve().is_relative_to(folder.resolve())):
                return path
        return None

    def finished(self, path: Path | str) -> Path:
        """The file of a finished artifact at `path`, as it is written; `RefusedError` for everything else.

        What can be downloaded goes through here. Links are refused, and whatever is not spelt out plainly.
        """
        plain = Path(path)
        parts = plain.relative_to(self.artifacts).parts if plain.is_relative_to(self.artifacts) else ()
        straight = str(plain) == str(path) and len(parts) > 1 and not any(part.startswith(".") for part in parts)
        complete = straight and (self.artifacts / parts[0] / FOLDER_MARK).is_file()
        if complete and plain.is_file() and plain.resolve() == plain:
            return plain
        raise RefusedError(f"{plain.name} is not a file of a finished artifact.", "Download what a finished job lists.")

    def inside(self, path: Path | str) -> Path:
        """`path`, resolved (relative ones from the workspace), when it lies in the workspace; else `InputError`.

        For every path that comes from the page. Symbolic links are followed before the check.
        """
        resolved = (self.root / Path(path)).resolve()
        if not resolved.is_relative_to(self.root):
            raise InputError(f"{path} lies outside the workspace {self.root}.", "Choose a path inside it.")
        return resolved
