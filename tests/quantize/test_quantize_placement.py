"""Where models run is known from their headers: imagined cards, real headers. No card was there to try it on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from studio.checkpoints.gguf_header import GgufHeader
from studio.quantize.fit import (
    CUDA_CONTEXT,
    GIB,
    PROCESS_BYTES,
    Layer,
    Need,
    card_bytes,
    even_need,
    kv_by_layer,
    need_of,
)
from studio.quantize.placement import Offload, expert_pattern, offloads, placed, placement, placements, taken
from tests.quantize.quantize_headers import sparse_gguf

MOE = even_need(weights=12 * GIB, experts=10 * GIB, kv=GIB, compute=GIB, layers=10)
DENSE = even_need(weights=10 * GIB, experts=0, kv=GIB, compute=GIB, layers=10)
ROOMY = 256 * GIB

needs = st.builds(
    Need,
    layers=st.lists(
        st.builds(Layer, weights=st.integers(0, 9), experts=st.integers(0, 99), kv=st.integers(0, 9)), max_size=6
    ).map(tuple),
    output=st.integers(0, 9),
    embeddings=st.integers(0, 9),
    tied=st.integers(0, 9),
    compute=st.integers(0, 9),
)


def test_a_model_is_on_the_card_when_all_of_it_fits() -> None:
    found = placement(MOE, MOE.on_card, ROOMY)
    assert (found.kind, found.offload, found.card) == ("card", Offload(), 14 * GIB + CUDA_CONTEXT)
    assert "entirely" in found.reason


def test_experts_leave_the_card_layer_by_layer_and_no_more_than_necessary() -> None:
    for count in range(1, 11):
        room = MOE.on_card - count * GIB
        found = placement(MOE, room, ROOMY)
        assert (found.kind, found.offload, found.card) == ("experts in RAM", Offload(None, count), room)
        assert found.ram == PROCESS_BYTES + count * GIB
    assert "experts of all layers" in found.reason


def test_then_whole_layers_leave_it_and_at_last_everything() -> None:
    without_experts = MOE.on_card - 10 * GIB
    found = placement(MOE, without_experts - 1, ROOMY)
    assert (found.kind, found.offload) == ("layers in RAM", Offload(10, 10))
    assert "9 of 10 layers are on the card" in found.reason
    assert placement(MOE, 1 << 20, ROOMY).offload == Offload(0)
    assert placement(MOE, 0, ROOMY).kind == "RAM" and placement(MOE, 0, MOE.in_ram).kind == "RAM"


def test_a_dense_model_has_no_experts_to_leave_in_memory() -> None:
    found = placement(DENSE, 8 * GIB, ROOMY)
    assert (found.kind, found.offload.cpu_moe_layers) == ("layers in RAM", 0)


def test_a_model_that_has_no_room_does_not_run_and_the_sentence_says_what_lacks() -> None:
    assert placement(MOE, 0, MOE.in_ram - 1).kind == "no"
    short = placement(MOE, MOE.on_card - GIB, GIB)
    assert short.kind == "no" and short.reason == "It needs 1.1 GiB of main memory, and 1.0 GiB is free."


def test_a_person_may_decide_and_is_told_where_it_does_not_fit() -> None:
    assert placed(MOE, Offload(4, 10), 8 * GIB, ROOMY).kind == "layers in RAM"
    assert placed(MOE, Offload(), 8 * GIB, ROOMY).reason == "It needs 14.5 GiB of the card, and 8.0 GiB is free."
    assert Offload(None, 2).overrides == f"{expert_pattern(0)}=CPU,{expert_pattern(1)}=CPU"


@given(needs)
def test_each_choice_leaves_less_on_the_card_and_loses_nothing(need: Need) -> None:
    sizes = [taken(need, one) for one in offloads(need)]
    assert all(before[0] >= after[0] and before[1] <= after[1] for before, after in pairwise(sizes[:-1]))
    assert sizes[0][0] == need.on_card and sizes[-1] == (0, need.in_ram) and sizes[-2][0] >= 0
    once = need.in_ram + need.tied + CUDA_CONTEXT  # the card has its own copy, and what CUDA takes
    assert all(card + ram == once for card, ram in sizes[:-1])


@given(needs, st.integers(0, CUDA_CONTEXT + 1000), st.integers(0, PROCESS_BYTES + 1000))
def test_what_is_chosen_has_room_and_is_the_first_that_has(need: Need, card: int, ram: int) -> None:
    found = placement(need, card, ram)
    fitting = [one for one in offloads(need) if taken(need, one)[0] <= card and taken(need, one)[1] <= ram]
    assert (found.kind != "no") == bool(fitting)
    assert not fitting or found.offload == fitting[0]


def test_two_answer_together_where_the_card_holds_both() -> None:
    found = placements([MOE, DENSE], MOE.on_card + DENSE.on_card, ROOMY)
    assert (
        found.together and [one.kind for one in found.models] == ["card", "card"] and "at the same time" in found.reason
    )


def test_two_take_turns_where_the_card_holds_each_but_not_both() -> None:
    found = placements([MOE, DENSE], MOE.on_card + DENSE.on_card - 1, ROOMY)
    assert not found.together and [one.kind for one in found.models] == ["card", "card"] and "in turn" in found.reason


def test_two_that_each_leave_experts_in_memory_share_the_card() -> None:
    found = placements([MOE, MOE], 12 * GIB, ROOMY)
    assert found.together and all(one.kind == "experts in RAM" for one in found.models)
    assert sum(one.card for one in found.models) <= 12 * GIB


def test_without_a_card_two_answer_together_as_far_as_memory_goes() -> None:
    assert placements([MOE, DENSE], 0, MOE.in_ram + DENSE.in_ram).together
    assert not placements([MOE, DENSE], 0, MOE.in_ram + DENSE.in_ram - 1).together


def test_one_that_never_runs_is_named() -> None:
    found = placements([DENSE, MOE], 0, MOE.in_ram - 1)
    assert not found.together and found.reason.startswith("It needs") and found.models[1].kind == "no"


@pytest.mark.parametrize(
    ("gib", "kind"),
    [(80, "card"), (48, "experts in RAM"), (12, "experts in RAM"), (8, "layers in RAM"), (1, "RAM")],
)
def test_gemma_4_26b_in_f16_on_cards_that_are_sold(gemma4: GgufHeader, gib: int, kind: str) -> None:
    need = need_of(gemma4, 8192, 2)
    found = placement(need, card_bytes(gib), 64 * GIB)
    assert found.kind == kind and found.card <= card_bytes(gib)


def test_every_byte_of_a_header_has_its_place(gemma4: GgufHeader) -> None:
    need = need_of(gemma4, 4096)
    weights = sum(layer.weights + layer.experts for layer in need.layers) + need.output + need.embeddings
    assert weights == sum(tensor.size for tensor in gemma4.tensors)
    assert need.tied == need.embeddings == 262144 * 2816 * 2  # there is no output.weight
    scales = 128 * 4  # of the down projections, which llama.cpp's pattern finds too
    assert all(layer.experts == 128 * 3 * 704 * 2816 * 2 + scales for layer in need.layers)


def kv_of(path: Path, architecture: str, keys: dict[str, int], context: int) -> Any:
    header = sparse_gguf(path / "m.gguf", architecture, keys, [("token_embd.weight", (64, 32), Type.F16)])
    return kv_by_layer(header, context)


def test_compressed_attention_keeps_no_values(tmp_path: Path) -> None:
    # DeepSeek V3: llama.cpp keeps one key of 512 + 64 per token and layer, the values being part of it.
    keys = {
        "block_count": 61,
        "embedding_length": 7168,
        "attention.head_count": 128,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
    }
    assert kv_of(tmp_path, "deepseek2", keys, 4096) == [576 * 2 * 4096] * 61


def test_recurrent_layers_keep_a_state_whatever_the_context(tmp_path: Path) -> None:
    # Qwen3 Next 80B: every fourth of 48 layers attends to all, with 2 heads of 256.
    keys = {
        "block_count": 48,
        "embedding_length": 2048,
        "attention.head_count": 16,
        "attention.head_count_kv": 2,
        "attention.key_length": 256,
        "attention.value_length": 256,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 128,
        "ssm.group_count": 16,
        "ssm.inner_size": 4096,
    }
    found = kv_of(tmp_path, "qwen3next", keys, 8192)
    assert found[3::4] == [2 * 512 * 2 * 8192] * 12
    assert set(found) - {found[3]} == {2 * 4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096)}


def test_a_need_of_a_plan_is_the_sum_of_its_parts() -> None:
    need = even_need(weights=1003, experts=701, kv=101, compute=7, layers=10)
    assert need.on_card == 1003 + 101 + 7 + CUDA_CONTEXT and sum(layer.experts for layer in need.layers) == 701
    assert replace(need, layers=()).on_card == 7 + CUDA_CONTEXT
