"""Files that a browser sent, kept in the workspace, where jobs find them."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from studio.checkpoints.digests import digest_file
from studio.limits import require_upload
from studio.staging import staged


def adopted(folder: Path, file: Path) -> Path:
    """A copy of an uploaded `file` in `folder`; another one of its name stays, for a job may read it.

    Raises `InputError` for one that is too large.
    """
    require_upload(file)
    kept = folder / file.name
    if kept.exists() and not filecmp.cmp(kept, file, shallow=False):
        kept = kept.with_stem(f"{kept.stem}-{digest_file(file)[:8]}")
    if not kept.exists():
        with staged(kept, needed_bytes=file.stat().st_size) as partial:
            shutil.copyfile(file, partial)
    return kept
