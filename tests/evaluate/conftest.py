"""Small models and tasks for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.workspace import Workspace
from tests.serve.serve_models import tiny_gguf_once

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="session")
def tiny_gguf() -> Path:
    """A random Gemma 4 MoE: long answers without sense."""
    return tiny_gguf_once()


@pytest.fixture(scope="session")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained demo model."""
    return convert_to_gguf(ASSETS / "demo-model", tmp_path_factory.mktemp("demo") / "demo.gguf")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")
