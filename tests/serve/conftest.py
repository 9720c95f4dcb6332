"""Models and servers for the tests of this room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.serve.pool import ServerPool
from studio.serve.server import ModelServer
from tests.serve.serve_models import ROOMY, tiny_gguf_once


@pytest.fixture(scope="session")
def tiny_gguf() -> Path:
    """A random Gemma 4 MoE: long answers without sense."""
    return tiny_gguf_once()


@pytest.fixture(scope="session")
def other_gguf(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in another file, so that both sides of a pair can be compared."""
    return Path(shutil.copy(tiny_gguf, tmp_path_factory.mktemp("other") / "other.gguf"))


@pytest.fixture
def server(tiny_gguf: Path, tmp_path: Path) -> Iterator[ModelServer]:
    """A server of the tiny model, with one thread: the machine may be busy with something else."""
    running = ModelServer.start(tiny_gguf, log=tmp_path / "server.log", context=ROOMY, threads=1)
    yield running
    running.stop()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ServerPool]:
    """A pool of its own for each test."""
    pool = ServerPool(tmp_path / "logs", context=ROOMY)
    yield pool
    pool.close()
