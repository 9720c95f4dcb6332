"""The demo model as files: in f32, and in Q4_K_M."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.quantize.custom import tier_of
from studio.quantize.writer import quantize

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
