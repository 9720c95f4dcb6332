"""Chat in one column and in two at once through our pool, against bare HTTP requests to as many servers.

The model is tiny and random: it gives more tokens per second than any that people talk to, so that whatever we add to a
token weighs most here. Answers are long and of one length; the two ways take turns, and the medians are compared.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from studio.machine import threads_for
from studio.serve.client import Delta, Sampler
from studio.serve.columns import Columns
from studio.serve.pool import ServerPool
from studio.serve.served import GgufModel, Request
from tests.serve.serve_models import tiny_gguf_once

BUDGET = 0.95
ROUNDS = 7
TOKENS = 1500
QUESTION = [{"role": "user", "content": "Tell me about pear trees."}]


def benchmarks() -> dict[str, Callable[[], dict[str, Any]]]:
    return {"chat_vs_bare": chat_vs_bare, "chat_two_columns_vs_bare": chat_two_columns_vs_bare}


def chat_vs_bare() -> dict[str, Any]:
    """Tokens per second of one column: ours over bare."""
    return _compared(1)


def chat_two_columns_vs_bare() -> dict[str, Any]:
    """Tokens per second of two columns that answer at the same time, together: ours over bare."""
    return _compared(2)


def _compared(columns: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = [tiny_gguf_once()]
        if columns == 2:
            files.append(Path(shutil.copy(files[0], Path(folder) / "reference.gguf")))
        pool = ServerPool(Path(folder) / "logs")
        asked = Columns(pool, {path.stem: GgufModel(path) for path in files})
        try:
            _ours(asked)  # loads all
            rates = [(_ours(asked), _bare(asked)) for _ in range(ROUNDS)]
        finally:
            pool.close()
    ours, bare = (statistics.median(column) for column in zip(*rates, strict=True))
    return {
        "value": round(ours / bare, 3),
        "budget": BUDGET,
        "met": ours / bare >= BUDGET,
        "sizes": {
            "columns": columns,
            "tokens": TOKENS,
            "rounds": ROUNDS,
            "ours_tokens_per_s": round(ours),
            "bare_tokens_per_s": round(bare),
        },
    }


def _ours(columns: Columns) -> float:
    """Tokens per second through `Columns`."""
    started = time.monotonic()
    last: dict[str, Delta] = {}
    request = Request(QUESTION, Sampler(max_tokens=TOKENS, temperature=0))
    for column, event in columns.stream(dict.fromkeys(columns.models, request)):
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Delta) and event.done:
            last[column] = event
    tokens = sum(delta.timing.tokens for delta in last.values() if delta.timing)
    return tokens / (time.monotonic() - started)


def _bare(columns: Columns) -> float:
    """Tokens per second of plain streamed requests, one thread per server, which only wait for the end."""
    counts: list[int] = []

    def ask(server: Any) -> None:
        body = {"messages": QUESTION, "stream": True, "max_tokens": TOKENS, "temperature": 0, "cache_prompt": False}
        headers = {"Authorization": f"Bearer {server._api_key}"}
        url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
        end = b""
        with httpx.Client(timeout=600) as client, client.stream("POST", url, json=body, headers=headers) as response:
            for piece in response.iter_raw():
                end = (end + piece)[-4096:]
        events = [line for line in end.split(b"\n\n") if line.startswith(b"data: {")]
        counts.append(json.loads(events[-1][len(b"data: ") :])["timings"]["predicted_n"])

    with ExitStack() as leases:
        each = threads_for(len(columns.models))
        servers = [leases.enter_context(columns.pool.lease(model, each)) for model in columns.models.values()]
        threads = [threading.Thread(target=ask, args=(server,)) for server in servers]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.monotonic() - started)
