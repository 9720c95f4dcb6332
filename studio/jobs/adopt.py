"""What a person named on the command line, put into the workspace, where jobs find it and may read it.

Never for a path that comes from a page: a page must not choose what is read.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

from studio.checkpoints.digests import digest_file
from studio.checkpoints.reference import open_reference
from studio.contributions import file
from studio.contributions.model import Contributions
from studio.errors import InputError, OutputExistsError
from studio.jobs.needs import require_room
from studio.jobs.task import ASSETS, DEMO, reference_path
from studio.staging import staged
from studio.workspace import Workspace


def adopted_reference(workspace: Workspace, path: Path) -> str:
    """The name of a model that lies anywhere: a link to it is put into the workspace.

    Raises `InputError` when another model has that name.
    """
    path = path.expanduser().resolve()
    open_reference(path)
    if path == reference_path(workspace, DEMO).resolve():
        return DEMO
    link = workspace.references / (f"{path.name}-model" if path.name == DEMO else path.name)
    if link.is_symlink() and link.resolve() != path and not link.exists():
        link.unlink()
    if not link.exists():
        link.symlink_to(path)
    if link.resolve() != path:
        raise InputError(f"{link} is another model than {path}.", "Rename one of them.")
    return link.name


def adopted_analysis(workspace: Workspace, path: Path, contributions: Contributions) -> Path:
    """Where jobs find `contributions`, which were read from `path`: there, or in a file of their own.

    Raises `ResourceError` where there is no room for that.
    """
    found = path.resolve()
    known = found.is_relative_to(ASSETS) or found.parent == workspace.contributions
    if known and found.suffix == ".safetensors":
        return found
    target = workspace.contributions / f"{path.stem}-{contributions.content_hash[:8]}.safetensors"
    if not target.exists():
        require_room(workspace, sum(array.nbytes for array in contributions.sums.values()))
        file.save(contributions, target)
    return target


def adopted_file(workspace: Workspace, path: Path, folder: Path) -> Path:
    """A copy of the file `path` in `folder` of the workspace; another one of its name stays, for a job may read it.

    Raises `ResourceError` where there is no room for it.
    """
    kept = folder / path.name
    if kept.exists() and not filecmp.cmp(kept, path, shallow=False):
        kept = kept.with_stem(f"{kept.stem}-{digest_file(path)[:8]}")
    if not kept.exists():
        require_room(workspace, path.stat().st_size)
        with staged(kept, needed_bytes=path.stat().st_size) as partial:
            shutil.copyfile(path, partial)
    return kept


def adopted_text(folder: Path, text: str) -> Path:
    """A file in `folder` with `text`, which gives it its name; a job may be reading it already."""
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        with suppress(OutputExistsError), staged(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return path
