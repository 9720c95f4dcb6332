"""One model in one child process: started, asked, watched, killed."""

from __future__ import annotations

import atexit
import secrets
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import child
from studio.errors import ProcessError
from studio.machine import usable_cores
from studio.quantize.placement import Offload
from studio.serve.client import LOOPBACK, SILENCE_S, ChatStream, Message, Sampler, request_body

CONTEXT = 4096
"""Tokens of a conversation, prompt and answers, unless someone asks for more."""
SLOTS = 2
"""Conversations that one server answers at once; others queue."""
LOAD_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible API; the key belongs into no log and no list of processes."""

    url: str
    api_key: str = field(repr=False)


class ModelServer(child.Held):
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
        offload: Offload | None = None,
        timeout_s: float = LOAD_TIMEOUT_S,
    ) -> ModelServer:
        """Load `path` for `slots` conversations of `context` tokens each; returns when it can answer.

        `offload` says what of it goes to the graphics card; by default llama.cpp decides. The child's output goes to
        `log`, which is written anew. Raises `ProcessError` with the log's last lines when the model cannot be loaded,
        or is not within `timeout_s` seconds.
        """
        api_key = secrets.token_urlsafe(32)
        settings = {
            "model": str(path.resolve()),
            "context": context,
            "slots": slots,
            "threads": threads or max(1, usable_cores() - 1),
            "offload": None if offload is None else [offload.gpu_layers, offload.overrides],
            "api_key": api_key,  # through the pipe, where no list of processes shows it
        }
        process, answer = child.start("studio.serve.worker", settings, name=str(path), log=log, timeout_s=timeout_s)
        return cls(path, process, answer["port"], api_key, log)

    def stream(
        self,
        messages: Sequence[Message],
        sampler: Sampler,
        *,
        thinking: bool = False,
        probabilities: bool = False,
        also: Mapping[str, Any] | None = None,
        silence_s: float = SILENCE_S,
    ) -> ChatStream:
        """Ask; the answer comes as an iterator of `Delta`, whose `stop` ends it.

        A last message of the assistant is continued. With `probabilities` each token comes with the likeliest others,
        which takes about a millisecond per token for a vocabulary of 262,144 (4 to 16 % of 60 to 100 tokens/s on two
        cores). `also` are fields of the request that no sampler has. Iterating raises `TooLongError` for a conversation
        that does not fit, `ProcessError` with the log's last lines when the server dies, or says nothing for
        `silence_s` seconds.
        """
        body = {**request_body(messages, sampler, thinking, probabilities), **(also or {})}
        return ChatStream(self.port, self._api_key, body, self._lost, silence_s)

    @property
    def endpoint(self) -> Endpoint:
        """Where other programs of this machine can ask as they ask OpenAI."""
        return Endpoint(f"http://{LOOPBACK}:{self.port}/v1", self._api_key)

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
