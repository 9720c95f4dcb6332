"""Child processes that hold a model: that they never outlive their parent, and in what words they ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOG_TAIL_LINES = 15


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, where there is such a kernel."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def own_stdout() -> IO[bytes]:
    """The pipe to the parent, for this process alone: what C code prints goes to stderr from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def ending(code: int) -> str:
    """The exit status `code` of a child in words, for the parent."""
    if code >= 0:
        return f"its process ended with status {code}"
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), as the system does when memory runs out"
    return f"its process crashed ({signal.Signals(-code).name})"


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last `lines` lines of the log file of a child."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
