"""A child process that holds a model: what its parent does, and what the child does so that it never stays behind.

The parent writes one JSON line of settings to the child's stdin and keeps that pipe open; the child answers with one
JSON line on its stdout when the model is loaded. All that libraries say goes to stderr, which the parent points at a
log file. On Linux the kernel kills the child when the thread that started it ends. Everywhere, a thread of the child
waits for the end of stdin, which comes when the parent is gone, however it went.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from studio.errors import ProcessError

LOG_TAIL_LINES = 15
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Linux kills a child when the *thread* that started it ends, and the threads of a web server come and go.
# This one stays as long as the process.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-server-spawner")


def start(
    module: str, settings: Mapping[str, Any], *, name: str, log: Path, timeout_s: float
) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Run `module` with `settings`; the process and its answer, when it can work.

    Its output goes to `log`, which is written anew. Raises `ProcessError` with the log's last lines when it ends
    before, or takes longer than `timeout_s` seconds; `name` is what messages call the model.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process = _SPAWNER.submit(_spawn, module, log).result()
    late = time.monotonic() + timeout_s
    alarm = threading.Timer(timeout_s, process.kill)
    alarm.daemon = True
    alarm.start()
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:
        answer = ""  # it died before it read its settings
    except BaseException:
        process.kill()
        raise
    finally:
        alarm.cancel()
    if not answer:
        reason = f"could not be loaded: {ending(_ended(process))}"
        if time.monotonic() >= late:
            reason = f"was not loaded within {timeout_s:g} s"
        raise ProcessError(f"{name} {reason}.", "Its log says more.", log_tail(log))
    return process, json.loads(answer)


def kill(process: subprocess.Popen[str]) -> None:
    """End a child; its memory is free when this returns."""
    process.kill()  # there is nothing in it to save
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last `lines` lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def ending(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"its process ended with status {code}"
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), as the system does when memory runs out"
    return f"its process crashed ({signal.Signals(-code).name})"


def _spawn(module: str, log: Path) -> subprocess.Popen[str]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=Path(__file__).parents[1],  # where `studio` is found
            start_new_session=True,  # Ctrl-C in the terminal is for the app, which then ends its children
        )


def _ended(process: subprocess.Popen[str]) -> int:
    """The exit status of a child that has closed its end of the pipe, and ends now or is made to."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def end(process: subprocess.Popen[Any], patience_s: float) -> None:
    """End a program that is no server of ours, if it still runs: asked to, and killed after `patience_s` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Held:
    """What can be told of a child that holds a model, and done to it, however it is asked."""

    _process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Kill the child; its memory is free when this returns."""
        kill(self._process)


def begin() -> tuple[dict[str, Any], TextIO]:
    """In the child: its settings, and where its answers go."""
    die_with_parent()
    answers = TextIOWrapper(own_stdout())
    return json.loads(sys.stdin.readline()), answers


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, where there is such a kernel."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def own_stdout() -> BinaryIO:
    """The pipe to the parent, for this process alone: what C code prints goes to stderr from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
