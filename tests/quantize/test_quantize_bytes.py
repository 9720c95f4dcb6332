"""Every file is, byte for byte, the one that llama.cpp's `llama_model_quantize` writes (recorded digests)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.errors import UnsupportedError
from studio.quantize.tiers import TIERS
from studio.quantize.writer import Options, quantize
from tests.quantize.quantize_headers import decoded, recorded

RECORD = recorded("digests.json")
BUILDABLE = list(RECORD["files"])
NEED_IMATRIX = [name for name, tier in TIERS.items() if name not in BUILDABLE and tier.layers is None]


@pytest.fixture(scope="module")
def sweep(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All tiers, made in one job."""
    folder = tmp_path_factory.mktemp("sweep")
    return dict(zip(BUILDABLE, quantize(source, BUILDABLE, folder, options=Options(threads=2)), strict=True))


def test_the_source_is_the_one_that_llama_cpp_quantized(source: Path) -> None:
    assert hashlib.sha256(source.read_bytes()).hexdigest() == RECORD["source"]


@pytest.mark.parametrize("tier", BUILDABLE)
def test_the_file_is_llama_cpp_s(tier: str, sweep: dict[str, Path]) -> None:
    data = sweep[tier].read_bytes()
    header = read_header(sweep[tier])
    digests = RECORD["tensors"][tier].split()
    expected = dict(zip(RECORD["names"], zip(decoded(RECORD["types"], tier), digests, strict=True), strict=True))
    found = {}
    for tensor in header.tensors:
        start = header.data_start + tensor.offset
        found[tensor.name] = tensor.type, hashlib.sha256(data[start : start + tensor.size]).hexdigest()[:8]
    assert found == expected
    assert list(found) == list(expected)  # the order of the tensors too
    assert header.values["general.file_type"] == TIERS[tier].file_type
    assert header.values["general.quantization_version"] == 2
    assert hashlib.sha256(data).hexdigest() == RECORD["files"][tier]


@pytest.mark.parametrize("tier", ["Q4_K_M", "BF16", "Q3_K_XL"])
def test_a_tier_made_alone_is_the_same_file(tier: str, source: Path, tmp_path: Path) -> None:
    (path,) = quantize(source, [tier], tmp_path, options=Options(threads=1))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == RECORD["files"][tier]


def test_the_other_tiers_are_refused_because_they_need_an_importance_matrix(source: Path, tmp_path: Path) -> None:
    assert len(NEED_IMATRIX) == 9
    for tier in NEED_IMATRIX:
        with pytest.raises(UnsupportedError, match="importance matrix"):
            quantize(source, [tier], tmp_path)
    assert not list(tmp_path.iterdir())
