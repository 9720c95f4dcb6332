"""Files that a browser sends: whether there is room for them, and keeping them where jobs find them."""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import Headers

from studio.jobs.adopt import adopted_file
from studio.jobs.needs import require_room
from studio.limits import QUOTA, UPLOAD, require_upload
from studio.workspace import Workspace


def adopted(workspace: Workspace, file: Path, folder: Path) -> Path:
    """A copy of an uploaded `file` in `folder`; another one of its name stays, for a job may read it.

    Raises `InputError` for one that is too large, `ResourceError` where there is no room for it.
    """
    require_upload(file)
    return adopted_file(workspace, file, folder)


def require_room_to_send(workspace: Workspace, headers: Headers) -> None:
    """Raise `ResourceError` before a request is read that sends more than the workspace's quota has room for.

    One that does not say how long it is may be as long as the longest upload.
    """
    if QUOTA.value is None:
        return  # the disk is looked at when a file is kept
    said = headers.get("content-length", "")
    require_room(workspace, int(said) if said.isdigit() else UPLOAD.value or 0)
