"""Drop maps: the published files, round trips, and everything that is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import EspalierError, FormatError, InputError, MismatchError
from studio.families.base import MoeShape
from studio.recipes.dropmap import DropMap

SHAPE = MoeShape("gemma4", (0, 1, 2), experts=8, top_k=2, hidden_size=16, expert_size=8)
GEMMA4 = MoeShape("gemma4", tuple(range(30)), experts=128, top_k=8, hidden_size=2816, expert_size=704)
GOOD = {"0": [1, 3], "1": [0, 7], "2": [4, 5]}


@st.composite
def drop_maps(draw: st.DrawFn) -> DropMap:
    experts = draw(st.integers(1, 12))
    dropped = draw(st.integers(0, experts - 1))
    layer_ids = draw(st.lists(st.integers(0, 70), min_size=1, max_size=5, unique=True).map(sorted))
    ids = st.permutations(range(experts)).map(lambda order: tuple(sorted(order[:dropped])))
    extra = draw(st.sampled_from([(), ("mtp",)]))
    return DropMap(
        shape_family=None,
        experts=experts,
        dropped=tuple(draw(ids) for _ in layer_ids),
        layer_ids=tuple(layer_ids),
        provenance={"note": "made by a test"},
        extra=tuple((name, draw(ids)) for name in extra),
    )


@given(drop_maps())
def test_exporting_and_importing_gives_the_same_map(drop: DropMap) -> None:
    assert DropMap.from_json(drop.to_json(), drop.experts) == drop
    again = DropMap.from_json(json.dumps(drop.to_metadata("a/model")))
    assert again == drop
    assert again.content_hash == drop.content_hash
    assert again.provenance["note"] == "made by a test"
    assert again.provenance["base_model"] == "a/model"


@given(drop_maps())
def test_dropped_and_kept_make_up_every_expert_once(drop: DropMap) -> None:
    assert drop.mask.shape == (drop.layers, drop.experts)
    for index, layer in enumerate(drop.layer_ids):
        assert sorted(drop.kept(index) + drop.dropped[index]) == list(range(drop.experts))
        assert drop.kept_in_layer(layer) == drop.kept(index)
        assert np.flatnonzero(drop.mask[index]).tolist() == list(drop.dropped[index])
        assert len(drop.kept(index)) == drop.kept_count
        assert len(drop.dropped[index]) == drop.dropped_count
    assert DropMap.from_mask(drop.mask, drop.layer_ids).dropped == drop.dropped


@given(drop_maps())
def test_lists_of_the_kept_say_as_much_as_lists_of_the_dropped(drop: DropMap) -> None:
    metadata = drop.to_metadata()
    del metadata["per_layer_drop"]
    kept_only = DropMap.from_json(metadata)
    assert kept_only.dropped == drop.dropped
    assert kept_only.layer_ids == drop.layer_ids


@pytest.mark.parametrize(
    ("name", "experts", "layers", "kept"),
    [
        ("v7coder_C6v3lcb_drop_map.json", 128, 30, 98),
        ("v6coder_C6v3lcb_62e_drop_map.json", 128, 30, 62),
        ("drop_map_184e.json", 256, 40, 184),
        ("a2_keep_metadata.json", None, 30, 62),
    ],
)
def test_published_maps_import_and_round_trip(
    data: Path, name: str, experts: int | None, layers: int, kept: int
) -> None:
    text = (data / "published" / name).read_text()
    drop = DropMap.from_json(text, experts, name=name)
    assert (drop.layers, drop.kept_count) == (layers, kept)
    content = json.loads(text)
    assert json.loads(drop.to_json()) == content.get("per_layer_drop", content)
    if layers == 30:
        assert DropMap.from_json(text, shape=GEMMA4) == drop


def test_the_mtp_entry_of_qwen_survives_the_round_trip_and_needs_a_model_that_has_it(data: Path) -> None:
    text = (data / "published" / "drop_map_184e.json").read_text()
    drop = DropMap.from_json(text, 256)
    assert [name for name, _ in drop.extra] == ["mtp"]
    assert json.loads(drop.to_json())["mtp"] == json.loads(text)["mtp"]
    qwen = MoeShape("qwen", tuple(range(40)), experts=256, top_k=8, hidden_size=2048, expert_size=512)
    drop.check(qwen, extra=["mtp"])
    with pytest.raises(MismatchError, match="mtp"):
        drop.check(qwen)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v4_layer_floor_map_v7.json", "floors per layer"),
        ("v7coder_C6v3lcb_drop_map.json.summary.json", "generator's summary"),
    ],
)
def test_published_files_that_are_no_maps_are_refused_by_what_they_are(data: Path, name: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as refused:
        DropMap.from_json((data / "published" / name).read_text(), 128, name=name)
    assert name in str(refused.value)


def test_a_summary_that_contains_the_map_is_read() -> None:
    drop = DropMap.from_json({"args": {"target": 6}, "drop_map": GOOD}, shape=SHAPE)
    assert drop.dropped == ((1, 3), (0, 7), (4, 5))
    assert drop.provenance["args"] == {"target": 6}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (GOOD | {"1": [0]}, "layer 1 drops 1 experts, and layer 0 drops 2"),
        (GOOD | {"1": [0, 8]}, "layer 1 lists expert 8, and the ids go from 0 to 7"),
        (GOOD | {"1": [-1, 0]}, "layer 1 lists expert -1"),
        (GOOD | {"1": [3, 3]}, "layer 1 lists expert 3 twice"),
        (GOOD | {"1": [True, 3]}, "True is not an expert id"),
        (GOOD | {"1": ["0", 3]}, "'0' is not an expert id"),
        (GOOD | {"1": [0.0, 3]}, "0.0 is not an expert id"),
        (GOOD | {"1": [None, 3]}, "None is not an expert id"),
        (GOOD | {"1": [[0], 3]}, r"\[0\] is not an expert id"),
        (GOOD | {"1": 25}, "the number 25, not a list"),
        (GOOD | {"1": "0,7"}, "a str, not a list"),
        (GOOD | {"1": {"0": 7}}, "a dict, not a list"),
        (GOOD | {"-1": [0, 7]}, "'-1' is neither a layer number"),
        (GOOD | {"01": [0, 7]}, "'01' is neither a layer number"),
        (GOOD | {"vision": [0, 7]}, "'vision' is neither a layer number nor a known block"),
        ({}, "not an object with one list"),
        ({"mtp": [0, 7]}, "no layers"),
        ({str(layer): list(range(8)) for layer in range(3)}, "drops all 8 experts"),
        ({"categories": {}}, "contribution analysis"),
        ({"questions": {}}, "contribution analysis"),
        ({"criterion": "reap", "drop": 3}, "is a recipe"),
        ({"text_config": {}}, "config.json"),
        ({"per_layer_drop": GOOD, "original_experts": "8"}, "'8' is not a number of experts"),
        ({"per_layer_drop": GOOD, "original_experts": True}, "True is not a number of experts"),
        ({"per_layer_drop": GOOD, "original_experts": 8, "target_experts": 5}, "says 5, and the map keeps 6"),
        ({"per_layer_drop": GOOD, "per_layer_keep": {"0": [0]}}, "different layers"),
        ({"per_layer_drop": {"0": [0]}, "per_layer_keep": {"0": [0, 1]}}, "do not make up all"),
        ({"per_layer_keep": {"0": [0, 9], "1": [0, 1], "2": [0, 1]}}, "keeps expert 9"),
        ({"per_layer_keep": {"0": [1, 1], "1": [0, 1], "2": [0, 1]}}, "keeps an expert twice"),
    ],
)
def test_what_is_not_a_map_is_refused_with_the_place_and_the_reason(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        DropMap.from_json(json.dumps(content), shape=SHAPE, name="map.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[[0, 1]]",
        "null",
        "3",
        '{"0": [1',
        '{"0": [1], "0": [2]}',
        pytest.param('{"0": [' + "9" * 5000 + "]}", id="number of 5000 digits"),
        pytest.param('{"0": ' + "[" * 100_000 + "]" * 100_000 + "}", id="nested 100000 deep"),
        b"\xff\xfe\x00",
        b"PK\x03\x04 a zip file",
    ],
)
def test_text_that_is_not_an_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(FormatError):
        DropMap.from_json(text, shape=SHAPE)


SCALARS = st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text(max_size=3)
KEYS = st.sampled_from(["0", "1", "2", "mtp", "per_layer_keep", "original_experts"]) | st.text(max_size=3)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


@given(ANY_JSON)
def test_any_json_at_all_gives_a_map_or_an_error_for_people(content: Any) -> None:
    try:
        drop = DropMap.from_json(json.dumps(content), shape=SHAPE)
    except EspalierError as error:
        assert str(error)
    else:
        drop.check(SHAPE)


@pytest.mark.parametrize(
    ("drop", "reason"),
    [
        ({"0": [1], "1": [0]}, "no entry for layer 2"),
        (GOOD | {"3": [0, 1]}, "entry for layer 3, which the model has not"),
        ({str(layer): list(range(7)) for layer in range(3)}, "keeps 1, and the router uses 2"),
    ],
)
def test_a_map_for_another_model_is_refused(drop: dict[str, list[int]], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        DropMap.from_json(drop, shape=SHAPE)


def test_another_number_of_experts_or_another_family_is_a_mismatch(data: Path) -> None:
    drop = DropMap.from_json(GOOD, shape=SHAPE)
    with pytest.raises(MismatchError, match="8 experts per layer, and the model has 128"):
        drop.check(GEMMA4)
    with pytest.raises(MismatchError, match="for gemma4, and the model is a qwen"):
        drop.check(MoeShape("qwen", (0, 1, 2), 8, 2, 16, 8))
    with pytest.raises(MismatchError, match="62 in the request"):
        DropMap.from_json((data / "published" / "a2_keep_metadata.json").read_text(), 62)


def test_a_bare_map_needs_the_number_of_experts_from_elsewhere() -> None:
    with pytest.raises(InputError, match="does not say how many experts"):
        DropMap.from_json(GOOD, name="map.json")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"experts": 0}, "0 experts"),
        ({"experts": True}, "True experts"),
        ({"dropped": (), "layer_ids": ()}, "no layers"),
        ({"layer_ids": (0, 1)}, "names 2 layers and lists 1"),
        ({"layer_ids": (-1,)}, "ascend"),
        ({"dropped": ((2, 1),)}, "ascending order"),
        ({"dropped": ((1, True),)}, "not an expert id"),
        ({"extra": (("mtp", (0,)),)}, "mtp drops 1 experts, and layer 0 drops 2"),
    ],
)
def test_a_map_that_makes_no_sense_cannot_be_made(fields: dict[str, Any], reason: str) -> None:
    sane: dict[str, Any] = {"shape_family": None, "experts": 8, "dropped": ((1, 2),), "layer_ids": (0,)}
    with pytest.raises(InputError, match=reason):
        DropMap(**sane | fields)


def test_a_layer_that_the_map_does_not_have_is_named() -> None:
    with pytest.raises(MismatchError, match="no layer 9"):
        DropMap.from_json(GOOD, 8).kept_in_layer(9)
