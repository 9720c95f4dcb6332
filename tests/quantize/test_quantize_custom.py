"""Tiers by the importance of layers, and tiers of a person's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from studio.checkpoints.gguf_header import GgufHeader
from studio.contributions.model import Contributions, Question
from studio.errors import FormatError, InputError
from studio.families import MoeShape
from studio.quantize.custom import ROLES, tensor_types, tier_from_json, tier_of, tier_to_json, with_tensor_types
from studio.quantize.dynamic import rank, ranking_of_contributions, ranking_of_imatrix, settled
from studio.quantize.imatrix import Entry, Imatrix
from studio.quantize.plan import check_buildable, make_plan
from studio.quantize.roles import is_quantized
from studio.quantize.tiers import TIERS, tier_named, type_named
from tests.quantize.quantize_headers import mock_header
from tests.quantize.quantize_models import MODELS

DYNAMIC = [name for name, tier in TIERS.items() if tier.layers]
BACKWARDS = tuple(range(29, -1, -1))
"""A ranking of 30 layers in which the last one matters most."""


def bits(kind: Type) -> float:
    values, size = GGML_QUANT_SIZES[kind]
    return size / values


# --- by the importance of layers


def test_of_thirty_layers_one_gets_the_top_type_seven_the_middle_and_the_others_the_low_one(gemma4: GgufHeader) -> None:
    types = make_plan(gemma4, TIERS["CD-Q4_K_M"], ranking=BACKWARDS).types
    found = [types[f"blk.{layer}.ffn_gate_up_exps.weight"] for layer in BACKWARDS]
    assert found == [Type.Q5_K] + [Type.Q4_K] * 7 + [Type.Q3_K] * 22
    assert types["token_embd.weight"] is Type.Q8_0
    assert types["blk.0.attn_q.weight"] is Type.Q3_K
    assert types["blk.0.attn_k.weight"] is types["blk.0.attn_v.weight"] is Type.Q5_K
    assert types["blk.0.ffn_gate_inp.weight"] is Type.F32
    assert types["blk.0.ffn_down_exps.weight"] is Type.Q4_0  # Q3_K does not fit rows of 704


@pytest.mark.parametrize("tier", DYNAMIC)
def test_a_dynamic_tier_gives_no_less_to_a_layer_that_matters_more(tier: str, gemma4: GgufHeader) -> None:
    layers = TIERS[tier].layers
    assert layers is not None
    plan = make_plan(gemma4, TIERS[tier], ranking=BACKWARDS)
    for part in ("attn_q", "attn_k", "ffn_gate_up_exps", "ffn_down", "ffn_down_exps"):
        widths = [bits(plan.types[f"blk.{layer}.{part}.weight"]) for layer in BACKWARDS]
        assert widths == sorted(widths, reverse=True), part
    for name, kind in plan.types.items():
        if "attn_k.weight" in name or "attn_v.weight" in name:
            assert bits(kind) >= bits(layers.least_for_keys)
    check_buildable(gemma4, plan)


@pytest.mark.parametrize(
    ("layers", "groups"), [(1, (1, 0, 0)), (6, (1, 1, 4)), (30, (1, 7, 22)), (48, (2, 11, 35)), (61, (2, 14, 45))]
)
def test_shares_scale_with_depth(layers: int, groups: tuple[int, int, int]) -> None:
    tier = settled(TIERS["CD-Q6_K"], layers, range(layers), imatrix=False)
    kinds = [
        next(one.type for one in tier.overrides if one.covers(f"blk.{layer}.ffn_up.weight")) for layer in range(layers)
    ]
    assert tuple(kinds.count(kind) for kind in (Type.Q8_0, Type.Q6_K, Type.Q5_K)) == groups


def test_an_importance_matrix_brings_the_types_that_profit_from_it(gemma4: GgufHeader) -> None:
    names = {tensor.name for tensor in gemma4.tensors}
    for tier, low in (("CD-Q2_K", Type.IQ2_S), ("CD-Q3_K_L", Type.IQ3_S), ("CD-Q4_K_M", Type.Q3_K)):
        plan = make_plan(gemma4, TIERS[tier], imatrix=names, ranking=BACKWARDS)
        assert plan.types["blk.0.attn_q.weight"] is low
        check_buildable(gemma4, plan)
    without_one = make_plan(gemma4, TIERS["CD-Q2_K"], imatrix=names - {"blk.0.attn_q.weight"}, ranking=BACKWARDS)
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight as IQ2_S"):
        check_buildable(gemma4, without_one)


def test_layers_without_experts_come_first_where_they_lie_first() -> None:
    tier = settled(TIERS["CD-Q6_K"], 6, [4, 2, 3], imatrix=False)  # 0 and 1 are dense, 5 predicts tokens ahead
    order = [next(one.type for one in tier.overrides if one.covers(f"blk.{n}.x")) for n in (0, 1, 4, 2, 3, 5)]
    assert order == [Type.Q8_0, Type.Q6_K, *[Type.Q5_K] * 4]


def test_a_ranking_comes_from_contributions_or_an_importance_matrix(gemma4: GgufHeader) -> None:
    shape = MoeShape("gemma4", (0, 1, 2), 4, 2, 8, 8)
    squares = np.ones((2, 3, 4))
    squares[:, 1] = 9.0
    squares[0, 0, 0] = np.nan
    known = Contributions(
        shape=shape,
        model="m",
        questions=(Question("a", "code"), Question("b", "math")),
        sums={"weighted_norm_squared": squares},
        source="imported",
    )
    assert ranking_of_contributions(known) == (1, 2, 0)
    assert ranking_of_contributions(replace(known, sums={"weighted_norm": squares})) == (1, 2, 0)
    with pytest.raises(InputError, match="no sum 'weighted_norm_squared'"):
        ranking_of_contributions(replace(known, sums={"tokens": squares}))
    sums = np.ones((4, 8), dtype=np.float32)
    entries = {f"blk.{n}.ffn_down_exps.weight": Entry(sums * (n + 1), np.ones(4, np.int64)) for n in range(3)}
    entries["blk.0.ffn_down.weight"] = Entry(sums[:1] * 1e6, np.ones(1, np.int64))
    assert ranking_of_imatrix(Imatrix(entries, (), 1, 512)) == (2, 1, 0)
    assert ranking_of_imatrix(Imatrix({}, (), 1, 512)) == ()
    assert rank({3: 1.0, 1: 1.0, 2: 5.0}) == (2, 1, 3)
    with pytest.raises(InputError, match="which is not known"):
        make_plan(gemma4, TIERS["CD-Q4_K_M"])
    with pytest.raises(InputError, match="does not fit a model of 30 layers"):
        make_plan(gemma4, TIERS["CD-Q4_K_M"], ranking=(0, 30))


def test_the_other_names_of_tiers() -> None:
    assert tier_named("cd-q3_k_m") is TIERS["CD-Q3_K_L"]
    assert tier_named("q4_k") is TIERS["Q4_K_M"]


# --- a person's own


def own(**fields: object) -> str:
    return json.dumps({"name": "mine", "base": "Q4_K_M", **fields})


def test_overrides_go_by_layer_by_role_and_by_pattern(gemma4: GgufHeader) -> None:
    tier = tier_from_json(
        own(
            embeddings="Q8_0",
            overrides=[
                {"pattern": r"blk\.5\.attn_q", "type": "F16"},
                {"role": "experts down", "layers": "0-2,29", "type": "Q8_0"},
                {"role": "attention", "type": "Q6_K"},
                {"layers": [7], "type": "q5_1"},
            ],
        )
    )
    types, plain = make_plan(gemma4, tier).types, make_plan(gemma4, TIERS["Q4_K_M"]).types
    assert types["blk.5.attn_q.weight"] is Type.F16
    assert [types[f"blk.{n}.ffn_down_exps.weight"] for n in (0, 2, 29)] == [Type.Q8_0] * 3
    assert types["blk.4.attn_output.weight"] is Type.Q6_K
    assert types["blk.7.ffn_up.weight"] is Type.Q5_1 and types["blk.7.attn_k.weight"] is Type.Q6_K
    assert types["token_embd.weight"] is Type.Q8_0
    untouched = [n for n in plain if "blk.6.ffn" in n]
    assert [types[name] for name in untouched] == [plain[name] for name in untouched]


def test_every_role_has_tensors_and_they_share_none(gemma4: GgufHeader, tmp_path: Path) -> None:
    header = mock_header(tmp_path / "m.gguf", MODELS["many experts and a dense part"])
    names = [t.name for h in (gemma4, header) for t in h.tensors if is_quantized(t.name, h.architecture)]
    for role, pattern in ROLES.items():
        if role != "shared experts":
            tier = tier_from_json(own(overrides=[{"role": role, "type": "Q8_0"}]))
            covered = [name for name in names if tier.overrides[0].covers(name)]
            assert covered, role
            assert not [name for name in covered for other in ROLES if other != role and tier_covers(other, name)], (
                pattern
            )


def tier_covers(role: str, name: str) -> bool:
    return tier_from_json(own(overrides=[{"role": role, "type": "Q8_0"}])).overrides[0].covers(name)


def test_an_override_of_embeddings_or_output_goes_before_what_the_tier_says(tmp_path: Path) -> None:
    header = mock_header(tmp_path / "m.gguf", MODELS["dense"])
    tier = tier_from_json(own(base="Q4_K_L", overrides=[{"role": "output", "type": "Q5_K"}]))
    types = make_plan(header, tier).types
    assert types["output.weight"] is Type.Q5_K and types["token_embd.weight"] is Type.Q8_0


def test_a_dynamic_tier_can_be_the_base(gemma4: GgufHeader) -> None:
    tier = tier_from_json(own(base="CD-Q4_K_M", overrides=[{"layers": "0", "type": "Q8_0"}]))
    types = make_plan(gemma4, tier, ranking=BACKWARDS).types
    assert types["blk.0.attn_q.weight"] is Type.Q8_0 and types["blk.1.attn_q.weight"] is Type.Q3_K


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"name": "x"}', "'base' is missing"),
        (own(name="../x"), "name"),
        (own(base="Q9"), "no tier 'Q9'"),
        (own(output="Q9"), "output"),
        (own(colour=1), "no field 'colour'"),
        (own(overrides={}), "overrides"),
        (own(overrides=[{"type": "Q8_0"}]), r"overrides\[0\].*covers nothing"),
        (own(overrides=[{"role": "soul", "type": "Q8_0"}]), "no role 'soul'"),
        (own(overrides=[{"layers": "5-3", "type": "Q8_0"}]), "'5-3' is no layer"),
        (own(overrides=[{"layers": "0-99999999", "type": "Q8_0"}]), "no layer or range"),
        (own(overrides=[{"pattern": "(", "type": "Q8_0"}]), "no regular expression"),
        (own(overrides=[{"pattern": "x", "layers": "1", "type": "Q8_0"}]), "neither role nor layers"),
        (own(overrides=[{"role": "output", "layers": "1", "type": "Q8_0"}]), "lie in no layer"),
        (own(overrides=[{"role": "dense", "type": "Q8_1"}]), "no type 'Q8_1'"),
    ],
)
def test_what_is_wrong_is_named(text: str, place: str) -> None:
    with pytest.raises(FormatError, match=place):
        tier_from_json(text)


def test_exceptions_that_llama_cpp_would_ignore_are_refused() -> None:
    with pytest.raises(InputError, match="no exceptions from BF16"):
        tier_from_json(own(base="BF16", overrides=[{"role": "dense", "type": "Q8_0"}]))


def test_a_tier_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    text = own(base="Q4_K_L", output="Q6_K", overrides=[{"role": "dense", "layers": "3..4", "type": "Q8_0"}])
    tier = tier_from_json(text)
    (tmp_path / "mine.json").write_text(tier_to_json(tier, "Q4_K_L"))
    assert tier_of(str(tmp_path / "mine.json")) == tier
    with pytest.raises(InputError, match="cannot be read"):
        tier_of(str(tmp_path / "none.json"))


# --- llama.cpp's per-tensor file


@given(tier=st.sampled_from(sorted(TIERS)), model=st.sampled_from(sorted(MODELS)))
def test_an_exported_plan_gives_the_same_types_from_any_tier(
    tier: str, model: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    header = mock_header(tmp_path_factory.mktemp("mock") / "m.gguf", MODELS[model])
    plan = make_plan(header, TIERS[tier], ranking=range(MODELS[model].layers))
    text = tensor_types(plan, header.architecture)
    again = make_plan(header, with_tensor_types(TIERS["Q4_0"], text))
    assert again.types == plan.types


def test_a_per_tensor_file_is_read_as_llama_cpp_reads_it(gemma4: GgufHeader) -> None:
    tier = with_tensor_types(TIERS["Q4_K_M"], "ATTN_Q=q8_0  blk\\.(1|2)\\.ffn_down=Q6_K\nattn=iq4_nl\n")
    types = make_plan(gemma4, tier).types
    assert types["blk.0.attn_q.weight"] is Type.Q8_0
    assert types["blk.0.attn_k.weight"] is Type.IQ4_NL
    assert types["blk.1.ffn_down.weight"] is Type.Q8_0  # Q6_K does not fit rows of 2112
    for text, place in (("x", "entry 1"), ("a=q8_0 =q4_0", "entry 2"), ("a=q8", "no type 'q8'"), ("a[=q8_0", "'a\\['")):
        with pytest.raises(FormatError, match=place):
            with_tensor_types(TIERS["Q4_K_M"], text)


def test_a_type_has_a_name_in_any_case() -> None:
    assert type_named("iq4_NL") is Type.IQ4_NL
    with pytest.raises(InputError, match="no type 'I32'"):
        type_named("I32")
