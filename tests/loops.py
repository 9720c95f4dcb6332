"""Coroutines in tests: the browser of other tests leaves its own loop running in the main thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import anyio

T = TypeVar("T")


def run_apart(function: Callable[[], Awaitable[T]]) -> T:
    """What `function` comes to, in a thread without a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, function).result()
