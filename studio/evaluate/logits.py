"""Logits of a GGUF, computed by a child process: a crash in C, or too little memory, ends nothing but the child."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.child import ending, log_tail
from studio.errors import ProcessError
from studio.evaluate.llama import bound
from studio.quantize.placement import Offload

Rows = npt.NDArray[np.float32]
BLOCK_BYTES = 16 << 20
"""Logits that are handed out at a time: comparing them takes some twenty times as much, in float64."""


class LogitsProcess:
    """llama.cpp with one GGUF in a child process, for sequences of up to `context` tokens; use it in a `with`.

    Requests are answered in their order; what is asked for with `ask` is computed while another process is read from.
    Every method raises `ProcessError` with the last lines of `log` when the child is gone.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        log: Path,
        offload: Offload | None = None,
        wide: bool = False,
    ) -> None:
        """`wide` is as for `LlamaModel`. Raises `UnsupportedError` where llama.cpp is of an unknown build."""
        bound()  # refused here, and not by a child that ends
        self.path = path
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studio.evaluate.logits_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=Path(__file__).parents[2],  # where `studio` is found
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its children
            )
        settings = {"path": str(path.resolve()), "context": context, "threads": threads, "wide": wide}
        self._send({**settings, "offload": asdict(offload or Offload())})
        self._about: dict[str, Any] | None = None

    def __enter__(self) -> LogitsProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; its memory is free when this returns."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # what was not sent has nobody to go to
                    pipe.close()

    @property
    def about(self) -> dict[str, Any]:
        """`vocabulary` (its size), `add_bos`, `bos`, `bos_token`, `eos_token`; waits until the model is loaded."""
        if self._about is None:
            self._about = self._answer()
        return self._about

    def tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """`text` in tokens: with what the model puts around a text, and with names of control tokens read as such."""
        return self._asked({"text": text, "add_special": add_special, "parse_special": parse_special})

    def continued(self, tokens: Sequence[int], count: int) -> list[int]:
        """The `count` likeliest tokens one after the other, fewer where the model ends."""
        return self._asked({"continue": list(tokens), "count": count})

    def ask(self, tokens: Sequence[int], first: int) -> None:
        """Have the logits after each of `tokens` from number `first` on computed; `rows` gives them."""
        _ = self.about
        self._send({"tokens": list(tokens), "first": first})

    def rows(self, count: int) -> Iterator[Rows]:
        """The `count` rows that were asked for, in blocks `[R, V]`."""
        vocabulary = self.about["vocabulary"]
        for rows in block_sizes(count, vocabulary):
            block = np.empty((rows, vocabulary), dtype=np.float32)
            assert self._process.stdout
            if self._process.stdout.readinto(block.data.cast("B")) < block.nbytes:  # type: ignore[attr-defined]
                raise self._lost()
            yield block

    def _asked(self, request: dict[str, Any]) -> list[int]:
        _ = self.about
        self._send(request)
        tokens: list[int] = self._answer()["tokens"]
        return tokens

    def _send(self, said: dict[str, Any]) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise self._lost()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _lost(self) -> ProcessError:
        try:
            code = self._process.wait(timeout=5)  # it has closed its end of the pipe, and ends now or is made to
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return ProcessError(
            f"The logits of {self.path.name} could not be computed: {ending(code)}.",
            "Its last words say more.",
            log_tail(self._log),
        )


def block_sizes(count: int, vocabulary: int) -> list[int]:
    """How `count` rows are cut into blocks of at most `BLOCK_BYTES`."""
    most = max(1, BLOCK_BYTES // (4 * vocabulary))
    return [min(most, count - start) for start in range(0, count, most)]
