"""sha256 of files that may be fifty gigabytes long, computed once for as long as they do not change."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from studio.staging import partial_path

_CHUNK = 8 << 20
_known: dict[str, str] = {}


def digest_file(path: Path, cache: Path | None = None, read: Callable[[int], None] = lambda count: None) -> str:
    """sha256 of the contents of `path`, in hexadecimal; `read` hears how many bytes came since it was last called.

    Remembered for the path, size, modification time and inode: in this process, and in the folder `cache` when given.
    """
    key = _key(path)
    remembered = cache / key if cache else None
    if key not in _known and remembered and (digest := _remembered(remembered)):
        _known[key] = digest
    if key in _known:
        read(path.stat().st_size)
    else:
        _known[key] = read_digest(path, read)
    if remembered and not _remembered(remembered):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        beside = partial_path(remembered)
        beside.write_text(_known[key])
        beside.replace(remembered)
    return _known[key]


def is_known(path: Path, cache: Path) -> bool:
    """Whether `digest_file` can answer without reading `path`."""
    key = _key(path)
    return key in _known or _remembered(cache / key) is not None


def _key(path: Path) -> str:
    found = path.stat()
    identity = f"{path.resolve()}\n{found.st_size}\n{found.st_mtime_ns}\n{found.st_ino}"
    return hashlib.sha256(os.fsencode(identity)).hexdigest()


def _remembered(file: Path) -> str | None:
    """The digest in a file of the cache, None where there is none or a crash left it half written."""
    if not file.is_file():
        return None
    text = file.read_text(encoding="ascii", errors="replace")
    return text if re.fullmatch("[0-9a-f]{64}", text) else None


def read_digest(path: Path, read: Callable[[int], None] = lambda count: None) -> str:
    """The same, always read from the disk, whatever is remembered."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            read(count)
    return digest.hexdigest()
