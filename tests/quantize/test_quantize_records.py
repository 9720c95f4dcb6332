"""Every file is llama.cpp's also with an importance matrix, of a second model, and with types of a person's choice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.quantize.custom import tier_from_json
from studio.quantize.writer import Options, quantize
from tests.quantize.quantize_headers import decoded, recorded
from tests.quantize.quantize_importance import build_imatrix, build_legacy
from tests.quantize.quantize_qwen3 import build_qwen3

RECORDS = ("digests_imatrix", "digests_qwen3", "digests_qwen3_imatrix")
SPECIAL = recorded("digests_special.json")


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen3(tmp_path_factory.mktemp("qwen3") / "tiny.gguf")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", RECORDS)
def test_all_files_of_a_job_are_llama_cpp_s(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    record = recorded(f"{name}.json")
    source: Path = request.getfixturevalue("qwen3" if "qwen3" in name else "source")
    imatrix = build_imatrix(tmp_path / "imatrix.gguf", source) if "imatrix" in record else None
    assert sha256(source) == record["source"]
    assert imatrix is None or sha256(imatrix) == record["imatrix"]
    tiers = list(record["files"])
    made = dict(zip(tiers, quantize(source, tiers, tmp_path, options=Options(imatrix=imatrix)), strict=True))
    for tier, path in made.items():  # types first: they say more than a digest
        found = [(tensor.name, tensor.type) for tensor in read_header(path).tensors]
        assert found == list(zip(record["names"], decoded(record["types"], tier), strict=True)), tier
    assert {tier: sha256(path) for tier, path in made.items()} == record["files"]


@pytest.mark.parametrize("tier", SPECIAL["legacy"])
def test_a_legacy_importance_matrix_gives_llama_cpp_s_file(tier: str, source: Path, tmp_path: Path) -> None:
    legacy = build_legacy(tmp_path / "imatrix.dat", source)
    assert sha256(legacy) == SPECIAL["imatrix"]
    (path,) = quantize(source, [tier], tmp_path, options=Options(imatrix=legacy))
    assert sha256(path) == SPECIAL["legacy"][tier]


@pytest.mark.parametrize("name", SPECIAL["custom"])
def test_overrides_give_llama_cpp_s_file(name: str, source: Path, tmp_path: Path) -> None:
    record = SPECIAL["custom"][name]
    overrides = [{"pattern": pattern, "type": kind.upper()} for pattern, kind in record["patterns"].items()]
    tier = tier_from_json(json.dumps({"name": "custom", "base": record["tier"], "overrides": overrides}))
    (path,) = quantize(source, [tier], tmp_path)
    assert {tensor.name: tensor.type.name for tensor in read_header(path).tensors} == record["types"]
    assert sha256(path) == record["file"]
