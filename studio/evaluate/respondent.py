"""A model that answers question after question, started again a few times when its server dies or falls silent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import Cancelled, ProcessError
from studio.evaluate.configuration import Configuration
from studio.machine import usable_cores
from studio.serve.client import SILENCE_S, ChatStream, Message
from studio.serve.pool import ServerPool
from studio.serve.server import ModelServer

RESTARTS = 3
"""How often a server that dies is started again; one that goes on dying has a reason that no restart removes."""


@dataclass(frozen=True)
class Reply:
    """One whole answer."""

    text: str
    thought: str
    finish: str
    """`stop` is the model's own end; `length` is that it was cut off."""
    tokens: int

    @property
    def complete(self) -> bool:
        return self.finish == "stop" and bool(self.text.strip())


class Respondent:
    """The model at `path`, under one configuration; may be asked from as many threads as the pool has slots."""

    def __init__(
        self,
        pool: ServerPool,
        path: Path,
        configuration: Configuration,
        *,
        silence_s: float = SILENCE_S,
        restarts: int = RESTARTS,
    ) -> None:
        self.path = path
        self.configuration = configuration
        self._pool = pool
        self._silence_s = silence_s
        self._restarts = restarts
        self._threads = max(1, usable_cores() - 1)
        self._guard = threading.Lock()
        self._open: set[ChatStream] = set()
        self._dead: list[ModelServer] = []
        self._stopped = False

    @property
    def deaths(self) -> int:
        """How many servers died so far."""
        return len(self._dead)

    def load(self) -> None:
        """Load the model now. Raises as `ServerPool.lease` does."""
        with self._pool.lease(self.path, self._threads):
            pass

    def reply(self, messages: Sequence[Message], *, thinking: bool, max_tokens: int) -> Reply:
        """Ask once. Raises `TooLongError` where the prompt does not fit, `ProcessError` when it died too often."""
        while True:
            if self._stopped:
                raise Cancelled()
            with self._pool.lease(self.path, self._threads) as server:
                try:
                    return self._listen(server, messages, thinking, max_tokens)
                except ProcessError as error:
                    self._bury(server, error)

    def stop(self) -> None:
        """End all answers; whoever waits for one gets `Cancelled`."""
        with self._guard:
            self._stopped = True
            streams = list(self._open)
        for stream in streams:
            stream.stop()

    def _listen(self, server: ModelServer, messages: Sequence[Message], thinking: bool, max_tokens: int) -> Reply:
        configuration = self.configuration
        stream = server.stream(
            messages,
            configuration.sampler.model_copy(update={"max_tokens": max_tokens}),
            thinking=thinking,
            # A prompt read from the cache and one computed differ in the last bits.
            also={"dry_multiplier": configuration.dry_multiplier, "cache_prompt": False},
            silence_s=self._silence_s,
        )
        with self._guard:
            self._open.add(stream)
        text = thought = finish = ""
        tokens = 0
        try:
            if self._stopped:
                raise Cancelled()
            for delta in stream:
                text, thought = text + delta.text, thought + delta.reasoning
                finish = delta.finish or finish
                tokens = delta.timing.tokens if delta.timing else tokens
        finally:
            with self._guard:
                self._open.discard(stream)
        if finish == "stopped":
            raise Cancelled()
        return Reply(text, thought, finish, tokens)

    def _bury(self, server: ModelServer, error: ProcessError) -> None:
        """End a server that failed, so that the next lease starts another; the answers beside this one failed too."""
        with self._guard:
            if self._stopped:
                raise Cancelled()
            if server not in self._dead:
                server.stop()  # it may be alive and silent
                self._dead.append(server)
            if len(self._dead) > self._restarts:
                times = f" That was attempt {len(self._dead)}." if len(self._dead) > 1 else ""
                raise ProcessError(
                    error.what + times,
                    "The answers so far are kept: measure again to go on with the others.",
                    error.log_tail,
                ) from error
