"""One model in one child process: started, asked, watched, killed."""

from __future__ import annotations

import atexit
import os
import secrets
import subprocess
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from studio.errors import ProcessError
from studio.serve import child
from studio.serve.client import ChatStream, Message, Sampler, request_body

CONTEXT = 4096
"""Tokens of a conversation, prompt and answers, unless someone asks for more."""
SLOTS = 2
"""Conversations that one server answers at once; others queue."""
LOAD_TIMEOUT_S = 600.0


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ModelServer:
    """llama.cpp's server with one GGUF, in a child process on the loopback, behind a random key.

    Make one with `ModelServer.start`. When the process dies, so does only the answer at hand, with a `ProcessError`.
    """

    def __init__(self, path: Path, process: subprocess.Popen[str], port: int, api_key: str, log: Path) -> None:
        self.path = path
        self.port = port
        self.log = log
        self._process = process
        self._api_key = api_key
        _LIVING.add(self)

    @classmethod
    def start(
        cls,
        path: Path,
        *,
        log: Path,
        context: int = CONTEXT,
        slots: int = SLOTS,
        threads: int | None = None,
        timeout_s: float = LOAD_TIMEOUT_S,
    ) -> ModelServer:
        """Load `path` for `slots` conversations of `context` tokens each; returns when it can answer.

        The child's output goes to `log`, which is written anew. Raises `ProcessError` with the log's last lines when
        the model cannot be loaded, or is not within `timeout_s` seconds.
        """
        api_key = secrets.token_urlsafe(32)
        settings = {
            "model": str(path.resolve()),
            "context": context,
            "slots": slots,
            "threads": threads or max(1, usable_cores() - 1),
            "api_key": api_key,  # through the pipe, where no list of processes shows it
        }
        process, answer = child.start("studio.serve.worker", settings, name=str(path), log=log, timeout_s=timeout_s)
        return cls(path, process, answer["port"], api_key, log)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def stream(self, messages: Sequence[Message], sampler: Sampler, *, thinking: bool = False) -> ChatStream:
        """Ask; the answer comes as an iterator of `Delta`, whose `stop` ends it.

        Iterating raises `InputError` for a conversation that does not fit, `ProcessError` with the log's last lines
        when the server dies.
        """
        return ChatStream(self.port, self._api_key, request_body(messages, sampler, thinking), self._lost)

    def stop(self) -> None:
        """Kill the child; its memory is free when this returns."""
        child.kill(self._process)

    def _lost(self, how: str) -> ProcessError:
        """The error for an answer that broke off: `how` the connection ended, unless the process did."""
        with suppress(subprocess.TimeoutExpired):  # it may run, and not answer as it should
            how = child.ending(self._process.wait(timeout=1))
        return ProcessError(f"The server of {self.path.name} failed: {how}.", "Restart it.", child.log_tail(self.log))


_LIVING: weakref.WeakSet[ModelServer] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_LIVING):
        server.stop()
