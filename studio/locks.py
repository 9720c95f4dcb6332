"""Locks that tell whether a process lives, and what its number means.

The kernel lets a lock go when the process that holds it dies, however it dies, and shows it to every container that
has the same volume. A process number means nothing in another container: there it is nobody's, or somebody else's.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def lock(descriptor: int) -> bool:
    """Lock what is open as `descriptor` until it is closed; False where somebody else has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold the lock of the file `path`, which is made; a process that gets the descriptor holds it beyond the block.

    None where the file system knows no locks: then there is no such file. Raises `BlockingIOError` where another
    process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor if _locked(descriptor, path) else None
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    """Whether the file system knows locks, and `path` has this one now."""
    try:
        if lock(descriptor):
            return True
    except OSError:
        path.unlink()
        return False
    raise BlockingIOError(f"{path} is locked")


def is_held(path: Path) -> bool | None:
    """Whether a living process holds the lock of the file `path`; None where that cannot be known: there is no such
    file, or the file system knows no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two who look at once are not in each other's way
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def keep(descriptor: int) -> None:
    """Hold the lock that was handed to this process as `descriptor` until it ends; its children do not."""
    os.set_inheritable(descriptor, False)
    os.register_at_fork(after_in_child=lambda: _let_go(descriptor))


def _let_go(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)


def _here() -> str:
    """What is the same for all processes that know each other by number, and no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        place = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux, or a sandbox
        place = socket.gethostname()
    return hashlib.sha256(place.encode()).hexdigest()[:8]


HERE = _here()
"""Where the numbers of processes mean what they mean to this one: this container, on this machine, since its start."""


def process_name(pid: int | None = None, place: str = HERE) -> str:
    """How the names of files tell a process, this one unless another is given: `PLACE.PID`."""
    return f"{place}.{pid or os.getpid()}"


def lives(name: str) -> bool | None:
    """Whether the process called `name` lives, a `process_name` or a number; None where it is in another container."""
    import psutil  # `doctor` works without it, to say that it is missing

    place, _, pid = name.rpartition(".")
    if place not in ("", HERE):
        return None
    return pid.isdigit() and psutil.pid_exists(int(pid))
