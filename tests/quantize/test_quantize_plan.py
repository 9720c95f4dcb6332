"""Plans and forecasts say exactly what will be written, and refuse what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.checkpoints.gguf_header import GgufHeader, aligned
from studio.errors import InputError, UnsupportedError
from studio.quantize.forecast import predict_bytes
from studio.quantize.plan import check_buildable, make_plan
from studio.quantize.tiers import TIERS, tier_named
from tests.quantize.quantize_headers import mock_header, sparse_gguf
from tests.quantize.quantize_models import MODELS


def test_a_tier_is_found_in_any_case() -> None:
    assert tier_named("q4_k_m") is TIERS["Q4_K_M"]


def test_an_unknown_tier_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(InputError, match=r"'Q4_K_XL'.*Q4_K_M.*IQ1_S"):
        tier_named("Q4_K_XL")


def test_down_projections_of_704_fall_back_and_the_plan_says_so(gemma4: GgufHeader) -> None:
    plan = make_plan(gemma4, TIERS["Q4_K_M"])
    assert plan.types["blk.3.ffn_down_exps.weight"] is Type.Q5_0
    assert plan.fallbacks["blk.3.ffn_down_exps.weight"].startswith("Q4_K → Q5_0: rows of 704 values")
    assert plan.fallbacks["blk.0.ffn_down.weight"].startswith("Q6_K → Q8_0: rows of 2112 values")
    assert len(plan.fallbacks) == 60
    assert not make_plan(gemma4, TIERS["Q8_0"]).fallbacks


def test_bytes_of_a_plan_add_up(gemma4: GgufHeader) -> None:
    plan = make_plan(gemma4, TIERS["Q4_K_M"])
    assert plan.tensor_bytes == sum(plan.bytes.values())
    padded = sum(aligned(size, gemma4.alignment) for size in plan.bytes.values())
    assert plan.file_bytes == plan.header_bytes + padded
    assert list(plan.bytes) == list(plan.types) == list(plan.shapes)


def test_pruning_shrinks_tensors_with_experts_and_no_others(gemma4: GgufHeader) -> None:
    whole, pruned = make_plan(gemma4, TIERS["Q6_K"]), make_plan(gemma4, TIERS["Q6_K"], kept_experts=96)
    for name, shape in whole.shapes.items():
        if "_exps." in name or name.endswith("ffn_gate_inp.weight"):
            assert pruned.shapes[name] == (*shape[:-1], 96)
            assert pruned.bytes[name] * 128 == whole.bytes[name] * 96
        else:
            assert pruned.shapes[name] == shape and pruned.bytes[name] == whole.bytes[name]


def test_keeping_eight_experts_brings_in_llama_cpp_s_exceptions_for_mixtral(gemma4: GgufHeader) -> None:
    assert make_plan(gemma4, TIERS["Q4_K_M"], kept_experts=9).types["blk.3.attn_k.weight"] is Type.Q4_K
    assert make_plan(gemma4, TIERS["Q4_K_M"], kept_experts=8).types["blk.3.attn_k.weight"] is Type.Q8_0


@settings(max_examples=12)
@given(
    tier=st.sampled_from([tier for tier in TIERS.values() if tier.layers is None]),
    kept=st.lists(st.integers(8, 128), min_size=1, max_size=2),
)
def test_a_forecast_is_the_plan_s_size(gemma4: GgufHeader, tier: object, kept: list[int]) -> None:
    for count in kept:
        assert predict_bytes(gemma4, tier, count) == make_plan(gemma4, tier, kept_experts=count).file_bytes
    assert predict_bytes(gemma4, tier) == predict_bytes(gemma4, tier, 128) == make_plan(gemma4, tier).file_bytes


@pytest.mark.parametrize("kept", [0, 7, 129])
def test_an_impossible_number_of_experts_is_refused(gemma4: GgufHeader, kept: int) -> None:
    for make in (
        lambda: make_plan(gemma4, TIERS["Q8_0"], kept_experts=kept),
        lambda: predict_bytes(gemma4, TIERS["Q8_0"], kept),
    ):
        with pytest.raises(InputError, match=f"Keeping {kept} of 128 .* uses 8"):
            make()


def test_an_unknown_architecture_is_planned_whole_and_not_pruned(tmp_path: Path) -> None:
    header = mock_header(tmp_path / "mock.gguf", replace(MODELS["many experts and a dense part"], architecture="grok"))
    assert make_plan(header, TIERS["Q4_K_M"]).tensor_bytes
    with pytest.raises(UnsupportedError, match="grok"):
        make_plan(header, TIERS["Q4_K_M"], kept_experts=32)


@pytest.mark.parametrize("tier", ["IQ1_S", "IQ2_M", "IQ3_XS", "Q2_K_S"])
def test_a_tier_that_needs_an_importance_matrix_says_for_which_tensors(gemma4: GgufHeader, tier: str) -> None:
    plan = make_plan(gemma4, TIERS[tier])
    assert plan.without_importance
    with pytest.raises(UnsupportedError, match="importance matrix"):
        check_buildable(gemma4, plan)
    everything = {tensor.name for tensor in gemma4.tensors}
    check_buildable(gemma4, make_plan(gemma4, TIERS[tier], imatrix=everything))
    missing = make_plan(gemma4, TIERS[tier], imatrix=everything - {plan.without_importance[0]})
    assert missing.without_importance == plan.without_importance[:1]


def test_quantizing_twice_is_refused_and_keeping_a_type_is_not(tmp_path: Path) -> None:
    tensors = [("blk.0.ffn_up.weight", (256, 4), Type.Q4_K), ("blk.0.ffn_down.weight", (256, 4), Type.Q6_K)]
    header = sparse_gguf(tmp_path / "q.gguf", "llama", {"block_count": 1, "attention.head_count": 1}, tensors)
    check_buildable(header, make_plan(header, TIERS["Q4_K_M"]))
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_up\.weight is Q4_K, and Q8_0 wants Q8_0"):
        check_buildable(header, make_plan(header, TIERS["Q8_0"]))
