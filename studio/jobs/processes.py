"""The processes behind the jobs: starting, recognising and ending them, and clearing up after them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from studio.locks import HERE
from studio.staging import sweep_process

PROJECT = Path(__file__).resolve().parents[2]
LOCK_VARIABLE = "ESPALIER_JOB_LOCK"

# The boot time that the kernel reports is rounded to seconds and moves when the clock is corrected.
_BIRTH_TOLERANCE_S = 2.0
_POLL_S = 0.02
_DEATH_S = 0.2  # what the kernel needs to take a killed process apart


def birth_of(pid: int) -> float:
    """When process `pid` started, in seconds after boot; raises `psutil.NoSuchProcess`.

    Not the time of day, which changes under a running process when the clock is set.
    """
    return psutil.Process(pid).create_time() - psutil.boot_time()


@dataclass(frozen=True)
class WorkerProcess:
    """A process that this project started, recognised so that no other is ever taken for it and ended.

    Numbers are given out again, so the birth has to fit too; and `mark`, the job's id, has to be on its command line:
    after a reboot or in a new container even number and birth may be those of somebody else. One that was started in
    another container, at another `place`, is out of reach: whether it lives, the lock of its job tells.
    """

    pid: int
    birth: float
    mark: str
    place: str = HERE

    @property
    def is_here(self) -> bool:
        """Whether its number means it in this container."""
        return self.place == HERE

    def is_alive(self) -> bool:
        """Whether it still runs here; a zombie does not."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            if abs(birth_of(self.pid) - self.birth) >= _BIRTH_TOLERANCE_S or process.status() == psutil.STATUS_ZOMBIE:
                return False
            command = process.cmdline()
            return self.mark in command or not command  # a process that the kernel is taking apart has none any more
        except psutil.Error:
            return False

    def end(self, patience_s: float, *, number: signal.Signals = signal.SIGINT) -> None:
        """Ask it to end with the signal `number` (see `studio.jobs.interrupt.JOB`); after `patience_s`, or when it is
        gone, kill what is left of it and its children."""
        if self.is_alive():
            descendants = self._descendants()
            with contextlib.suppress(ProcessLookupError):  # it may end by itself just now
                os.kill(self.pid, number)
            self.wait(patience_s)
            if self.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            for process in descendants:  # also those that left the group; psutil checks that it is the same process
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(descendants, timeout=_DEATH_S)
            self.wait(_DEATH_S)
        self.kill_orphans()

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; whether it is."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def kill_orphans(self) -> None:
        """When it is dead, kill what is left of its process group.

        As long as a group has members the kernel gives its number to no new process, so where a living process has the
        number the group was empty, and nothing is killed.
        """
        if self.is_here and not _is_taken(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def sweep(self, root: Path, *, resumables: bool) -> None:
        """Remove every partial result below `root` that it was staging (see `studio.staging`), once it was ended.

        `resumables` says whether that includes what a retry could go on with. It may still be on its way out, held up
        by a disk; but where another process here has its number, nothing is touched.
        """
        if not self.is_here or not _is_taken(self.pid) or self.is_alive():
            sweep_process(root, self.pid, self.place, resumables=resumables)

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def spawn(
    command: Sequence[str],
    mark: str,
    log: Path,
    environment: Mapping[str, str],
    *,
    lock: int | None = None,
    secret: str = "",
) -> WorkerProcess:
    """Start `command`, which has `mark` among its arguments, in a session of its own, with its output going to `log`.

    The new session keeps it alive when the app or its terminal goes, and makes it the leader of a process group. The
    descriptor `lock` is handed to it, and `$ESPALIER_JOB_LOCK` tells it which one that is. The line `secret` comes on
    its standard input, where no other process can read it.
    """
    assert mark in command
    told = {} if lock is None else {LOCK_VARIABLE: str(lock)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE if secret else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
            env={**os.environ, **environment, **told},
            pass_fds=() if lock is None else (lock,),
            start_new_session=True,
        )
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(f"{secret}\n".encode())
    birth = birth_of(process.pid)  # it cannot vanish before somebody waits for it
    # Somebody has to wait for a child, or it stays in the process table when it ends.
    threading.Thread(target=process.wait, daemon=True, name=f"reap {process.pid}").start()
    return WorkerProcess(process.pid, birth, mark)


def kill_descendants() -> None:
    """End whatever this process has started, and what that has."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _is_taken(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
