"""Small models and tasks for the tests of this room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.quantize.custom import tier_of
from studio.quantize.writer import quantize
from studio.workspace import Workspace
from tests.serve.serve_models import tiny_gguf_once

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(reference, candidate)."""
    folder = tmp_path_factory.mktemp("demo-files")
    reference = convert_to_gguf(ASSETS / "demo-model", folder / "demo.gguf", outtype="f32")
    (candidate,) = quantize(reference, [tier_of("Q4_K_M")], folder)
    return reference, candidate


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text that tests/oracle_recorder/record_perplexity.py makes."""
    lines = (ASSETS / "demo-heldout.jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("demo-text") / "text.txt"
    path.write_text("\n".join(f"{one['prompt']} {one['answer']}" for one in map(json.loads, lines)), encoding="utf-8")
    return path


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
