"""Results that appear under their name only when complete.

A file or folder is written beside its final name as `.NAME.partial-PID`, flushed to disk, then renamed. Whatever a
killed process left behind is removed when the same name is staged again. A folder that is replaced is `.NAME.replaced`
for the moment between two renames; if the process dies in that moment, it gets its name back.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studio.errors import EspalierError, OutputExistsError, ResourceError

_REPLACED = ".replaced"


def partial_path(final: Path) -> Path:
    """Where this process writes before the result is complete; on the same file system as `final`."""
    return final.with_name(f".{final.name}.partial-{os.getpid()}")


def _replaced_path(final: Path) -> Path:
    return final.with_name(f".{final.name}{_REPLACED}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_partials(folder: Path, name: str) -> None:
    """Remove what dead processes left of the result `name` in `folder`."""
    for leftover in folder.glob(f".{glob.escape(name)}.partial-*"):
        pid = leftover.name.rpartition("-")[2]
        if not pid.isdigit() or int(pid) == os.getpid() or not psutil.pid_exists(int(pid)):
            remove(leftover)


def restore_replaced(old: Path) -> None:
    """Give the folder `old`, which `staged` moved aside, its name back, unless what replaces it is there."""
    final = old.with_name(old.name.removeprefix(".").removesuffix(_REPLACED))
    if final.exists():
        remove(old)
    else:
        old.rename(final)


def require_disk(folder: Path, needed: int) -> None:
    """Raise `ResourceError` unless `folder`'s file system has `needed` free bytes."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ResourceError(
            f"{folder} has {free / 2**30:.2f} GiB free, and this needs {needed / 2**30:.2f} GiB.",
            "Free some space, or choose a folder on another disk.",
        )


@contextmanager
def staged(final: Path, *, overwrite: bool = False, needed_bytes: int = 0) -> Iterator[Path]:
    """Give a path to write a file or folder at; on success it becomes `final`, on any failure it vanishes.

    Raises `OutputExistsError` when `final` exists and `overwrite` is false, `ResourceError` when the disk has fewer
    than `needed_bytes` free or fills up in the middle.
    """
    if (old := _replaced_path(final)).exists():
        restore_replaced(old)
    if final.exists() and not overwrite:
        raise OutputExistsError(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep_partials(final.parent, final.name)
    require_disk(final.parent, needed_bytes)
    partial = partial_path(final)
    try:
        yield partial
        _flush(partial)
        if final.is_dir() and not final.is_symlink():
            _replace_folder(partial, final)
        else:
            partial.replace(final)
        _fsync(final.parent)
    except OSError as error:
        remove(partial)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"The disk of {final.parent} filled up while writing {final.name}; nothing was kept of it.",
                "Free some space and start again.",
            ) from error
        if error.errno == errno.EFBIG:
            raise ResourceError(
                f"{final.parent} takes no file as large as {final.name}; nothing was kept of it.",
                "Choose a folder on another disk.",
            ) from error
        raise
    except BaseException:
        remove(partial)
        raise


def _replace_folder(partial: Path, final: Path) -> None:
    """Rename cannot replace a folder that has something in it: move the old one aside first."""
    old = _replaced_path(final)
    final.rename(old)
    try:
        partial.rename(final)
    except OSError:
        old.rename(final)
        raise
    remove(old)


def _flush(path: Path) -> None:
    """fsync a file, or a folder with everything in it."""
    if not path.exists():
        raise EspalierError(f"Nothing was written to {path}.")
    for child in path.rglob("*") if path.is_dir() else ():
        _fsync(child)
    _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
