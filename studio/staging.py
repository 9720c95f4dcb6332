"""Results that appear under their name only when complete.

A file or folder is written beside its final name as `.NAME.partial-TOKEN-PROCESS`, flushed to disk, then renamed.
Whatever a killed process left behind is removed when the same name is staged again. A folder that is replaced is
`.NAME.replaced-PROCESS` for the moment between two renames; if the process dies in that moment, it gets its name back.
Long work that can go on where it was killed is done in a folder `.NAME.partial-resume-KEY`. PROCESS is `PLACE.PID`, as
a number alone means another process in every container; older versions wrote the number alone.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import count
from pathlib import Path

from studio.errors import EspalierError, InputError, OutputExistsError, Paused, ResourceError
from studio.locks import HERE, lives, lock, process_name
from studio.units import size_text

FOLDER_MARK = "espalier-manifest.json"
"""The file that every folder has which Espalier makes, and no folder lacks that it replaces."""

_RUN, _CALLS = secrets.token_hex(3), count()  # a container that starts again has the same process numbers
_REPLACED = "replaced-"
_RESUMABLE = "partial-resume-"
_OWNER = ".pid"  # no result is called so
ELSEWHERE_S = 86_400.0
"""How long something unfinished by a process in another container is left alone after it was written to last."""
_LEFT: ContextVar[Callable[[], int | None]] = ContextVar("left", default=lambda: None)
_WITNESS: ContextVar[Callable[[Path, Path], None]] = ContextVar("witness", default=lambda partial, final: None)


def partial_path(final: Path) -> Path:
    """Where to write before the result is complete: another path each time, on the same file system as `final`."""
    return final.with_name(f".{final.name}.partial-{_RUN}.{next(_CALLS)}-{process_name()}")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; somebody else may be removing it too."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def below(folder: Path) -> Iterator[Path]:
    """Everything below `folder` (nothing where it is none); what vanishes meanwhile is left out.

    `Path.rglob` gives up where somebody removes a folder that it is about to look into. Links are not followed.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(place, name)


def sweep_partials(folder: Path, name: str, keep: Path | None = None) -> None:
    """Remove what dead processes left of the result `name` in `folder`, but for `keep`."""
    for leftover in folder.glob(f".{glob.escape(name)}.partial-*"):
        if leftover != keep and not _in_use(leftover):
            remove(leftover)


def _in_use(partial: Path) -> bool:
    """Whether a living process, other than this one, writes at `partial`."""
    if f".{_RESUMABLE}" not in partial.name:
        return f".partial-{_RUN}." in partial.name or _is_alive(partial)
    try:
        descriptor = os.open(partial, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(path: Path) -> bool:
    """Whether the process in the name of `path` is another one than this, and lives.

    One in another container may live as long as something that it wrote is young: nobody here can ask for it.
    """
    name = path.name.rpartition("-")[2]
    if name in (process_name(), str(os.getpid())):
        return False
    alive = lives(name)
    return time.time() - _changed(path) < ELSEWHERE_S if alive is None else alive


def _changed(path: Path) -> float:
    """When anything in the file or folder `path` was written or renamed last."""
    times = [0.0]
    for one in (path, *below(path)):
        with suppress(FileNotFoundError):
            times.append(one.lstat().st_ctime)  # a rename counts, too
    return max(times)


def is_leftover(partial: Path) -> bool:
    """Whether nobody works any more at `partial`, the path of something unfinished."""
    return not _in_use(partial)


def sweep_process(root: Path, pid: int, place: str = HERE, *, resumables: bool) -> None:
    """Remove what the dead process `pid` of `place` was staging anywhere below `root`; where it could go on, only if
    told to."""
    names = [process_name(pid, place), *([str(pid)] if place == HERE else [])]
    partials, replaced = [], []
    for path in below(root):
        if path.name == _OWNER and f".{_RESUMABLE}" in path.parent.name:
            if resumables and _said_in(path) in names:
                partials.append(path.parent)
        elif path.name.startswith(".") and path.name.endswith(tuple(f"-{name}" for name in names)):
            if any(path.name.endswith(f".{_REPLACED}{name}") for name in names):
                replaced.append(path)
            elif ".partial" in path.name:
                partials.append(path)
    for partial in partials:
        remove(partial)
    for old in replaced:
        with suppress(FileNotFoundError):  # another app is sweeping too
            _restore(old)


def _said_in(path: Path) -> str:
    """The text of a small file, empty where it has just gone."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _restore(old: Path) -> None:
    """Give the folder `old`, which `staged` moved aside, its name back, unless what replaces it is there."""
    final = old.with_name(old.name.removeprefix(".").rpartition(f".{_REPLACED}")[0])
    if final.exists():
        remove(old)
    else:
        old.rename(final)


@contextmanager
def allowed(left: Callable[[], int | None]) -> Iterator[None]:
    """Have what this thread writes in the block be bounded by `left` as well: bytes, None for no bound."""
    before = _LEFT.set(left)
    try:
        yield
    finally:
        _LEFT.reset(before)


def left_bytes() -> int | None:
    """What may be written beside what is there, whatever the disk has; None where nothing bounds it."""
    return _LEFT.get()()


def require_disk(folder: Path, needed: int) -> None:
    """Raise `ResourceError` unless `folder`'s file system has `needed` free bytes, and so many may be written."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free, left = shutil.disk_usage(existing).free, left_bytes() if needed > 0 else None
    if left is not None and left < needed:
        raise ResourceError(
            f"{folder} may take {size_text(max(0, left))} more, and this needs {size_text(needed)}.",
            "`python -m studio clean` shows what can go.",
        )
    if free < needed:
        raise ResourceError(
            f"{folder} has {size_text(free)} free, and this needs {size_text(needed)}.",
            "Free some space, or choose a folder on another disk.",
        )


def used_bytes(path: Path) -> int:
    """What the file or folder `path` takes of the disk, 0 where there is none."""
    used = 0
    for one in (path, *below(path)):
        with suppress(FileNotFoundError):
            used += one.lstat().st_blocks * 512
    return used


@contextmanager
def staged(final: Path, *, overwrite: bool = False, needed_bytes: int = 0, resume: str | None = None) -> Iterator[Path]:
    """Give a path to write a file or folder at; on success it becomes `final`, on any failure it vanishes.

    With `resume`, the path is a folder that is there already, and goes on as `resumable` says.

    Raises `OutputExistsError` when `final` exists and `overwrite` is false, `InputError` when it is a folder that
    Espalier did not make, `ResourceError` when the disk has fewer than `needed_bytes` free or fills up in the middle.
    """
    for old in final.parent.glob(f".{glob.escape(final.name)}.{_REPLACED}*"):
        if not _is_alive(old):
            _restore(old)
    if final.exists() and not overwrite:
        raise OutputExistsError(final)
    if final.is_dir():
        _require_ours(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    place = _vanishing(final) if resume is None else resumable(final.parent, final.name, resume)
    with place as found, explained_disk_errors(final):
        partial = found
        if resume is not None:
            partial = found / final.name
            partial.mkdir(exist_ok=True)
        require_disk(final.parent, needed_bytes - used_bytes(found))
        yield partial
        publish(partial, final)


def publish(partial: Path, final: Path) -> None:
    """Flush the file or folder `partial` to disk and give it the name `final`, which may be taken.

    Raises `InputError` when that is a folder that Espalier did not make, or the new one is a file.
    """
    _flush(partial)
    _WITNESS.get()(partial, final)
    if final.is_dir() and not final.is_symlink():
        if not partial.is_dir():
            raise InputError(f"{final} is a folder, and a file is to have that name.", "Choose another name.")
        _require_ours(final)
        _replace_folder(partial, final)
    else:
        partial.replace(final)
    _fsync(final.parent)


@contextmanager
def witnessed(hear: Callable[[Path, Path], None]) -> Iterator[None]:
    """Have `hear` told of everything that this thread publishes in the block, just before it gets its name."""
    before = _WITNESS.set(hear)
    try:
        yield
    finally:
        _WITNESS.reset(before)


def identity(path: Path) -> str:
    """What a file or folder keeps when it gets another name, and a later one in its place does not have."""
    found = path.stat()
    return f"{found.st_ino}-{found.st_mtime_ns}"


@contextmanager
def resumable(folder: Path, name: str, key: str, *, outlives: tuple[type[BaseException], ...] = ()) -> Iterator[Path]:
    """Give a folder in `folder` to work in that outlives only the death of this process, `Paused`, and what `outlives`
    names.

    It vanishes when the block ends otherwise, in success or failure; after a kill the next one who asks for the same
    `name` and `key` finds it as it was, and whoever asks for another key of that name has it removed. `key` has to
    stand for all that determines the result. Raises `ResourceError` while another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f".{name}.{_RESUMABLE}{key}"
    sweep_partials(folder, name, keep=place)
    place.mkdir(exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        if not lock(descriptor):
            raise ResourceError(f"Another process is writing {folder / name}.", "Wait until it has ended.")
        kept = False
        try:
            (place / _OWNER).write_text(process_name())
            yield place
        except Paused:
            kept = True
            raise
        except outlives:
            kept = True
            raise
        finally:
            if not kept:
                remove(place)
    finally:
        os.close(descriptor)


@contextmanager
def explained_disk_errors(final: Path) -> Iterator[None]:
    """Turn what the system says of a full disk into a `ResourceError` about `final`."""
    try:
        yield
    except OSError as error:
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


@contextmanager
def _vanishing(final: Path) -> Iterator[Path]:
    sweep_partials(final.parent, final.name)
    partial = partial_path(final)
    try:
        yield partial
    finally:
        remove(partial)


def _require_ours(folder: Path) -> None:
    if any(folder.iterdir()) and not (folder / FOLDER_MARK).is_file():
        raise InputError(
            f"{folder} is a folder that Espalier did not make, and is not replaced.", "Choose another name."
        )


def _replace_folder(partial: Path, final: Path) -> None:
    """Rename cannot replace a folder that has something in it: move the old one aside first."""
    old = final.with_name(f".{final.name}.{_REPLACED}{process_name()}")
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
