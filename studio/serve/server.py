"""One model in one child process: started, asked, watched, killed."""

from __future__ import annotations

import atexit
import json
import secrets
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.child import ending, log_tail
from studio.errors import ProcessError
from studio.machine import usable_cores
from studio.quantize.placement import Offload
from studio.serve.client import LOOPBACK, SILENCE_S, ChatStream, Message, Sampler, request_body

CONTEXT = 4096
"""Tokens of a conversation, prompt and answers, unless someone asks for more."""
SLOTS = 2
"""Conversations that one server answers at once; others queue."""
LOAD_TIMEOUT_S = 600.0

# Linux kills a child when the *thread* that started it ends, and the threads of a web server come and go.
# This one stays as long as the process.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-server-spawner")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible API; the key belongs into no log and no list of processes."""

    url: str
    api_key: str = field(repr=False)


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
        log.parent.mkdir(parents=True, exist_ok=True)
        process = _SPAWNER.submit(_spawn, log).result()
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
            raise ProcessError(f"{path} {reason}.", "Its log says more.", log_tail(log))
        return cls(path, process, json.loads(answer)["port"], api_key, log)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def stream(
        self,
        messages: Sequence[Message],
        sampler: Sampler,
        *,
        thinking: bool = False,
        also: Mapping[str, Any] | None = None,
        silence_s: float = SILENCE_S,
    ) -> ChatStream:
        """Ask; the answer comes as an iterator of `Delta`, whose `stop` ends it.

        A last message of the assistant is continued. `also` are fields of the request that no sampler has. Iterating
        raises `TooLongError` for a conversation that does not fit, `ProcessError` with the log's last lines when the
        server dies, or says nothing for `silence_s` seconds.
        """
        body = {**request_body(messages, sampler, thinking), **(also or {})}
        return ChatStream(self.port, self._api_key, body, self._lost, silence_s)

    @property
    def endpoint(self) -> Endpoint:
        """Where other programs of this machine can ask as they ask OpenAI."""
        return Endpoint(f"http://{LOOPBACK}:{self.port}/v1", self._api_key)

    def stop(self) -> None:
        """Kill the child; its memory is free when this returns."""
        self._process.kill()  # there is nothing in it to save
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _lost(self, how: str) -> ProcessError:
        """The error for an answer that broke off: `how` the connection ended, unless the process did."""
        with suppress(subprocess.TimeoutExpired):  # it may run, and not answer as it should
            how = ending(self._process.wait(timeout=1))
        return ProcessError(f"The server of {self.path.name} failed: {how}.", "Restart it.", log_tail(self.log))


def _spawn(log: Path) -> subprocess.Popen[str]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "studio.serve.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd=Path(__file__).parents[2],  # where `studio` is found
            start_new_session=True,  # Ctrl-C in the terminal is for the app, which then ends its children
        )


def _ended(process: subprocess.Popen[str]) -> int:
    """The exit status of a child that has closed its end of the pipe, and ends now or is made to."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


_LIVING: weakref.WeakSet[ModelServer] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_LIVING):
        server.stop()
