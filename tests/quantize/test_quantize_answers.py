"""Every tier of the trained demo model loads in llama.cpp and answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.quantize.imatrix import Entry, Imatrix
from studio.quantize.imatrix_file import write_imatrix
from studio.quantize.roles import is_quantized
from studio.quantize.tiers import TIERS
from studio.quantize.writer import Options, quantize
from studio.serve.client import Sampler
from studio.serve.server import ModelServer

ASSETS = Path(__file__).parents[2] / "assets"
WELL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "CD-Q6_K", "MXFP4_MOE")
"""Tiers that hurt the demo model so little that it still knows what it was taught."""


def even_imatrix(header: GgufHeader, path: Path) -> Path:
    """An importance matrix to which every column is worth the same: enough to make every tier."""
    entries = {}
    for tensor in header.tensors:
        if len(tensor.shape) >= 2 and is_quantized(tensor.name, header.architecture):
            matrices = tensor.shape[2] if len(tensor.shape) > 2 else 1
            sums = np.ones((matrices, tensor.shape[0]), dtype=np.float32)
            entries[tensor.name] = Entry(sums, np.ones(matrices, dtype=np.int64))
    write_imatrix(Imatrix(entries, ("even",), 1, 512), path)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tier → file."""
    folder = tmp_path_factory.mktemp("demo")
    source = convert_to_gguf(ASSETS / "demo-model", folder / "demo.gguf")
    options = Options(imatrix=even_imatrix(read_header(source), folder / "imatrix.gguf"), ranking=(0, 2, 4, 1, 3, 5))
    return dict(zip(TIERS, quantize(source, list(TIERS), folder, options=options), strict=True))


def answer(path: Path, log: Path, question: str) -> str:
    server = ModelServer.start(path, log=log, threads=2, context=256, slots=1)
    try:
        messages = [{"role": "user", "content": question}]
        return "".join(delta.text for delta in server.stream(messages, Sampler(temperature=0, max_tokens=12)))
    finally:
        server.stop()


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_loads_and_answers(tier: str, demo: dict[str, Path], tmp_path: Path) -> None:
    said = answer(demo[tier], tmp_path / "log", "7 + 8 = ?")
    if tier in WELL:
        assert "15" in said


def test_a_split_model_loads_by_its_first_part(demo: dict[str, Path], tmp_path: Path) -> None:
    parts = quantize(demo["Q8_0"], ["Q8_0"], tmp_path, name="parted", options=Options(split_bytes=5_000_000))
    assert len(parts) > 2
    assert "15" in answer(parts[0], tmp_path / "log", "7 + 8 = ?")
