"""The types that every tier chooses are llama.cpp's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from studio.checkpoints.gguf_header import GgufHeader
from studio.errors import UnsupportedError
from studio.quantize.plan import make_plan
from studio.quantize.roles import file_order
from studio.quantize.rule import fitting
from studio.quantize.tiers import TIERS, tier_named
from tests.quantize.quantize_headers import decoded, mock_header, recorded, sparse_gguf
from tests.quantize.quantize_models import MODELS

MIXES = [name for name, tier in TIERS.items() if tier.mix == name]
LARGE = [name for name, tier in TIERS.items() if tier.mix != name and tier.layers is None]


@pytest.mark.parametrize("tier", MIXES)
@pytest.mark.parametrize("imatrix", ["with_imatrix", "without_imatrix"])
def test_gemma_4_26b_gets_the_types_that_llama_cpp_gives_it(gemma4: GgufHeader, tier: str, imatrix: str) -> None:
    names = [tensor.name for tensor in gemma4.tensors]
    record = recorded("gemma4_types.json")[imatrix]
    plan = make_plan(gemma4, TIERS[tier], imatrix=set(names) if imatrix == "with_imatrix" else None)
    assert [plan.types[name] for name in names] == decoded(record, tier)
    assert plan.tensor_bytes / 2**20 == pytest.approx(record["size_mib"][tier], abs=0.006)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("imatrix", [True, False], ids=["with_imatrix", "without_imatrix"])
def test_other_architectures_get_the_types_that_llama_cpp_gives_them(model: str, imatrix: bool, tmp_path: Path) -> None:
    record = recorded("types.json")[model]
    differing = recorded("types_imatrix.json")[model] if imatrix else {"tiers": {}}
    header = mock_header(tmp_path / "mock.gguf", MODELS[model])
    names = [name for name, _ in MODELS[model].tensors]
    for tier in MIXES:
        plan = make_plan(header, TIERS[tier], imatrix=set(names) if imatrix else None)
        types = decoded(differing if tier in differing["tiers"] else record, tier)
        assert dict(plan.types) == dict(zip(names, types, strict=True)), tier


@pytest.mark.parametrize("tier", LARGE)
def test_a_large_tier_differs_from_its_file_type_in_embeddings_and_output_alone(tier: str, tmp_path: Path) -> None:
    header = mock_header(tmp_path / "mock.gguf", MODELS["dense"])
    large, plain = make_plan(header, TIERS[tier]), make_plan(header, TIERS[TIERS[tier].mix])
    differing = {name for name in plain.types if large.types[name] is not plain.types[name]}
    assert differing == {"token_embd.weight", "output.weight"}
    assert {large.types[name] for name in differing} == {Type.Q8_0}


def test_tensors_lie_in_llama_cpp_s_order() -> None:
    names = ["blk.10.a", "blk.2.b", "output.weight", "blk.2.a", "a_norm.weight", "blk.2.a_norm"]
    assert sorted(names, key=file_order) == [
        *("a_norm.weight", "output.weight"),
        *("blk.2.a", "blk.2.a_norm", "blk.2.b", "blk.10.a"),
    ]


@given(st.sampled_from([tier.base for tier in TIERS.values()]), st.integers(1, 5000))
def test_a_type_that_fits_is_kept_and_another_fits_always(kind: Type, columns: int) -> None:
    used = fitting(kind, columns)
    assert columns % GGML_QUANT_SIZES[used][0] == 0
    assert (used is kind) == (columns % GGML_QUANT_SIZES[kind][0] == 0)


def test_an_expert_tensor_outside_the_layers_is_named(tmp_path: Path) -> None:
    keys = {"block_count": 2, "expert_count": 4}
    header = sparse_gguf(tmp_path / "x.gguf", "llama", keys, [("blk.2.ffn_down_exps.weight", (256, 2, 4), Type.F16)])
    with pytest.raises(UnsupportedError, match=r"blk\.2\.ffn_down_exps\.weight"):
        make_plan(header, tier_named("Q4_K_M"))
