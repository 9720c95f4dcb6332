"""Files that a browser sent, kept in the workspace, where jobs find them."""

from __future__ import annotations

from pathlib import Path

from studio.jobs.adopt import adopted_file
from studio.limits import require_upload


def adopted(folder: Path, file: Path) -> Path:
    """A copy of an uploaded `file` in `folder`; another one of its name stays, for a job may read it.

    Raises `InputError` for one that is too large.
    """
    require_upload(file)
    return adopted_file(folder, file)
