"""The small model of quantize_source.py, and the header of the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import GgufHeader
from tests.quantize.quantize_headers import gemma4_26b
from tests.quantize.quantize_source import build_source


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_source(tmp_path_factory.mktemp("quantize") / "tiny.gguf")


@pytest.fixture(scope="session")
def gemma4(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    """Gemma 4 26B-A4B in F16: 658 tensors, no weights."""
    return gemma4_26b(tmp_path_factory.mktemp("quantize") / "gemma4.gguf")
