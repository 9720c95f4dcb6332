"""Where things lie on disk: one folder, `ESPALIER_HOME`, with one room per noun."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from studio.errors import InputError

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


@dataclass(frozen=True)
class Workspace:
    """The workspace at `root` (an absolute, resolved path)."""

    root: Path

    @classmethod
    def open(cls, root: Path | str | None = None) -> Workspace:
        """The workspace at `root`, else at `$ESPALIER_HOME`, else at `~/.espalier`; its folders are made."""
        chosen = Path(root or os.environ.get("ESPALIER_HOME") or Path.home() / ".espalier").expanduser().resolve()
        for room in ROOMS:
            (chosen / room).mkdir(parents=True, exist_ok=True)
        return cls(chosen)

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
        return self.root / "cache"

    def inside(self, path: Path | str) -> Path:
        """`path`, resolved (relative ones from the workspace), when it lies in the workspace; else `InputError`.

        For every path that comes from the page. Symbolic links are followed before the check.
        """
        resolved = (self.root / Path(path)).resolve()
        if not resolved.is_relative_to(self.root):
            raise InputError(f"{path} lies outside the workspace {self.root}.", "Choose a path inside it.")
        return resolved
