"""What a job can be: a `Task` whose fields are its parameters."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from studio.errors import InputError, OutputExistsError
from studio.progress import Progress
from studio.workspace import Workspace

Parameters = Mapping[str, JsonValue]
Result = dict[str, JsonValue]

ASSETS = Path(__file__).resolve().parents[2] / "assets"
DEMO = "demo"
"""The name of the model that comes with Espalier."""

_SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class Task(BaseModel, ABC):
    """A kind of job. The fields of a subclass are the job's parameters; relative paths start at the workspace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def title(self) -> str:
        """What a person sees in the list of jobs."""

    @abstractmethod
    def check(self, workspace: Workspace) -> None:
        """Raise the `EspalierError` of everything that can be known to go wrong before any work is done."""

    def adds(self, workspace: Workspace) -> int:
        """Bytes that the work adds to the workspace, as far as they are foretold; 0 where they are next to nothing."""
        return 0

    @abstractmethod
    def run(self, workspace: Workspace, progress: Progress) -> Result:
        """Do the work. The result is JSON, with paths relative to the workspace."""


def parse(tasks: Mapping[str, type[Task]], kind: str, parameters: Parameters) -> Task:
    """The task that `parameters` describe; `InputError` names an unknown kind, or the field that is wrong."""
    if kind not in tasks:
        raise InputError(f"There is no kind of job called {kind!r}.", f"There are {', '.join(sorted(tasks))}.")
    try:
        return tasks[kind].model_validate(dict(parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"The job {kind!r} cannot start: {field}: {first['msg']}.") from error


def reference_path(workspace: Workspace, text: str) -> Path:
    """Where the reference model called `text` lies: `demo`, an entry of `references/` or of another folder of models
    that may be opened (`Workspace.model`), or a path inside the workspace."""
    if text == DEMO:
        return ASSETS / "demo-model"
    workspace.access.require_model(text)
    name = text.removeprefix(str(workspace.references)).removeprefix("references").strip("/")
    if (found := workspace.model(name)) is not None:
        return found
    path = workspace.inside(text)
    if not path.exists():
        raise InputError(
            f"There is no model {text!r} in {workspace.references}.",
            "Put it there, or a symbolic link to it, or say `demo`.",
        )
    return path


def reference_names(workspace: Workspace) -> list[str]:
    """What `reference_path` takes by name alone: the demo, and the models in folders that may be opened."""
    entries: set[str] = set()
    for folder in workspace.model_folders():
        with suppress(OSError):  # not there, or closed to us
            entries |= {entry.name for entry in folder.iterdir()}
    found = sorted(name for name in entries if not name.startswith(".") and name != DEMO)
    found = [name for name in found if workspace.model(name) is not None]
    return [*([DEMO] if reference_path(workspace, DEMO).exists() else []), *found]


def references_called(workspace: Workspace, name: str) -> list[str]:
    """Those of `reference_names` that may be what a manifest calls `name`, the likeliest first.

    That is, by the whole name or else its last part; of the model itself, or else of the folder that it is a link to.
    """
    tail = name.rpartition("/")[2]
    found = []
    for key in reference_names(workspace):
        path = ASSETS / "demo-model" if key == DEMO else workspace.model(key)
        names = [key, path.name, path.resolve().name] if path else []
        matches = [name in names[:2], tail in names[:2], tail in names]
        if any(matches):
            found.append((matches.index(True), key))
    return [key for _, key in sorted(found)]


def check_new(folder: Path, name: str, overwrite: bool, suffix: str = "") -> None:
    """Raise `InputError` unless `name` can be a file name, `OutputExistsError` when it is taken in `folder`."""
    if not _SLUG.fullmatch(name) or ".." in name:
        raise InputError(
            f"{name!r} cannot be a name.", "Use letters, digits, dots, dashes and underscores, at most 64."
        )
    if (folder / f"{name}{suffix}").exists() and not overwrite:
        raise OutputExistsError(folder / f"{name}{suffix}")


def input_path(workspace: Workspace, text: str) -> Path:
    """An existing file inside the workspace, or one of those that come with Espalier; else `InputError`."""
    packaged = Path(text).resolve()
    path = packaged if packaged.is_relative_to(ASSETS) else workspace.inside(text)
    if not path.is_file():
        raise InputError(f"There is no file {text} in the workspace {workspace.root}.")
    return path


def relative(workspace: Workspace, path: Path) -> str:
    """`path` as results name it: from the workspace; what is shared by all people lies outside of their parts."""
    return path.relative_to(workspace.root).as_posix() if path.is_relative_to(workspace.root) else str(path)
