"""A pruned GGUF is the reference without the dropped experts, whatever the tensors' types, and llama.cpp loads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.checkpoints.convert import convert_to_gguf
from studio.checkpoints.gguf_header import laid_out, read_header
from studio.checkpoints.prune_gguf import MANIFEST_KEY, prune_gguf
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.checkpoints.reference import open_reference
from studio.errors import FormatError, InputError, MismatchError, OutputExistsError, UnsupportedError
from studio.publish.manifest import Manifest
from studio.recipes.dropmap import DropMap

MakeMap = Callable[..., DropMap]
Builder = Callable[..., bytes]
F32, F16 = 0, 1
SHAPE_KEYS = {
    "general.architecture": "gemma4",
    "gemma4.block_count": 1,
    "gemma4.expert_count": 8,
    "gemma4.expert_used_count": 2,
    "gemma4.embedding_length": 256,
    "gemma4.expert_feed_forward_length": 256,
}


def write_one_layer(
    build: Builder, path: Path, kind: int, experts: int = 8, extra: str = "blk.0.attn_norm.weight"
) -> Path:
    """One layer whose expert tensors are random bytes of type `kind`."""
    shapes = [
        ("blk.0.ffn_gate_up_exps.weight", (256, 3, experts), kind),
        (extra, (7,), F32),
        ("blk.0.ffn_down_exps.weight", (512, 1, experts), kind),
        ("blk.0.ffn_gate_inp.weight", (5, experts), F32),
        ("blk.0.ffn_down_exps.scale", (experts,), F32),
    ]
    placed = laid_out([(name, ne, GGMLQuantizationType(code)) for name, ne, code in shapes], 32)
    random = np.random.default_rng(kind)
    data = bytearray(placed[-1].offset + placed[-1].size)
    for tensor in placed:
        data[tensor.offset : tensor.offset + tensor.size] = random.bytes(tensor.size)
    infos = [(one.name, one.shape, int(one.type), one.offset) for one in placed]
    path.write_bytes(build(SHAPE_KEYS, infos, bytes(data)))
    return path


def raw_tensors(path: Path) -> dict[str, np.ndarray]:
    """Each tensor's bytes as gguf-py finds them, experts first."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        found[tensor.name] = np.frombuffer(tensor.data.tobytes(), np.uint8).reshape(int(tensor.shape[-1]), -1)
    return found


def is_expert(name: str) -> bool:
    return "_exps." in name or name.endswith("ffn_gate_inp.weight")


@pytest.mark.parametrize("kind", [kind for kind in GGML_QUANT_SIZES if 256 % GGML_QUANT_SIZES[kind][0] == 0])
def test_every_tensor_type_is_sliced_as_bytes(
    build_gguf: Builder, drop_map: MakeMap, tmp_path: Path, kind: GGMLQuantizationType
) -> None:
    source = write_one_layer(build_gguf, tmp_path / "source.gguf", int(kind))
    chosen = drop_map(3, seed=int(kind), layers=1)
    out = prune_gguf(source, chosen, tmp_path / "out.gguf")
    before, after = raw_tensors(source), raw_tensors(out)
    assert list(after) == list(before)
    for name, array in after.items():
        expected = before[name][list(chosen.kept(0))] if is_expert(name) else before[name]
        assert array.tobytes() == expected.tobytes(), name


@settings(max_examples=15)
@given(drop=st.integers(0, 6), seed=st.integers(0, 1000))
def test_for_any_map_the_bytes_equal_numpy_take_of_the_parsed_tensors(
    tiny_gguf: Path, drop_map: MakeMap, tmp_path_factory: pytest.TempPathFactory, drop: int, seed: int
) -> None:
    chosen = drop_map(drop, seed)
    out = prune_gguf(tiny_gguf, chosen, tmp_path_factory.mktemp("pruned") / "out.gguf")
    before, after = gguf.GGUFReader(tiny_gguf), gguf.GGUFReader(out)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (new.name, new.tensor_type) == (old.name, old.tensor_type)
        expected = old.data
        if is_expert(old.name):
            expected = np.take(old.data, chosen.kept(int(old.name.split(".")[1])), axis=0)
        assert new.data.shape == expected.shape
        assert new.data.tobytes() == expected.tobytes(), old.name


def test_the_header_keeps_everything_but_the_expert_count(tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    out = prune_gguf(tiny_gguf, drop_map(3), tmp_path / "out.gguf")
    before, after = read_header(tiny_gguf).values, read_header(out).values
    assert list(after) == [*before, MANIFEST_KEY]
    for key in before:
        if key == "gemma4.expert_count":
            assert (before[key], after[key]) == (8, 5)
        else:
            assert after.pair_bytes(key) == before.pair_bytes(key)


def test_the_file_carries_its_own_story(tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    chosen = drop_map(3)
    out = prune_gguf(
        tiny_gguf, chosen, tmp_path / "out.gguf", provenance={"base_model": "me/tiny", "recipe_hash": "b" * 64}
    )
    story = Manifest.model_validate(json.loads(read_header(out).values[MANIFEST_KEY]))
    assert (story.reference.name, story.recipe_sha256) == ("me/tiny", "b" * 64)
    assert story.reference.sha256 == open_reference(tiny_gguf).content_hash()
    assert story.map is not None
    assert story.map.sha256 == chosen.content_hash


def test_two_builds_give_identical_bytes_and_pruning_twice_works(
    tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path
) -> None:
    first = prune_gguf(tiny_gguf, drop_map(3), tmp_path / "first.gguf")
    second = prune_gguf(tiny_gguf, drop_map(3), tmp_path / "second.gguf")
    assert first.read_bytes() == second.read_bytes()
    twice = prune_gguf(first, drop_map(2, experts=5), tmp_path / "twice.gguf")
    assert open_reference(twice).shape.experts == 3


def test_converting_then_pruning_equals_pruning_then_converting(
    tiny_model: Path, tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path
) -> None:
    chosen = drop_map(3, seed=5)
    one = prune_gguf(tiny_gguf, chosen, tmp_path / "one.gguf")
    two = convert_to_gguf(prune_safetensors(tiny_model, chosen, tmp_path / "pruned"), tmp_path / "two.gguf")
    ours, theirs = raw_tensors(one), raw_tensors(two)
    assert list(ours) == list(theirs)
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name


CHAT_SCRIPT = """
import sys, xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames, parameters.port, parameters.api_keys = ["127.0.0.1"], 0, ["test"]
parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 64, 1, 1
answer = xllamacpp.Server(parameters).handle_completions({"prompt": "the thing", "max_tokens": 4, "temperature": 0})
assert answer["usage"]["completion_tokens"] > 0, answer
print("spoke")
"""


def test_llama_cpp_loads_the_pruned_file_and_it_speaks(tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    out = prune_gguf(tiny_gguf, drop_map(3), tmp_path / "out.gguf")
    result = subprocess.run(
        [sys.executable, "-c", CHAT_SCRIPT, str(out)], capture_output=True, text=True, timeout=120, check=False
    )
    assert "spoke" in result.stdout, result.stdout[-500:] + result.stderr[-2000:]


def test_a_map_for_another_model_is_refused_before_anything_is_written(
    tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(MismatchError, match="16 experts"):
        prune_gguf(tiny_gguf, drop_map(3, experts=16), out)
    with pytest.raises(MismatchError, match="layer 3"):
        prune_gguf(tiny_gguf, drop_map(3, layers=3), out)
    with pytest.raises(InputError, match="uses 2 per token"):
        prune_gguf(tiny_gguf, drop_map(7), out)
    with pytest.raises(InputError, match="is the reference"):
        prune_gguf(tiny_gguf, drop_map(3), tiny_gguf, overwrite=True)
    out.write_bytes(b"kept")
    with pytest.raises(OutputExistsError):
        prune_gguf(tiny_gguf, drop_map(3), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    assert out.read_bytes() == b"kept"


def test_experts_that_the_family_does_not_know_are_refused(
    build_gguf: Builder, drop_map: MakeMap, tmp_path: Path
) -> None:
    one = drop_map(3, layers=1)
    unknown = write_one_layer(build_gguf, tmp_path / "unknown.gguf", F16, extra="blk.0.ffn_odd_exps.weight")
    with pytest.raises(UnsupportedError, match=r"blk\.0\.ffn_odd_exps\.weight"):
        prune_gguf(unknown, one, tmp_path / "out.gguf")
    beyond = write_one_layer(build_gguf, tmp_path / "beyond.gguf", F16, extra="blk.1.ffn_down_exps.weight")
    with pytest.raises(FormatError, match="layers up to 0 only"):
        prune_gguf(beyond, one, tmp_path / "out.gguf")
    lying = write_one_layer(build_gguf, tmp_path / "lying.gguf", F16, experts=7)
    with pytest.raises(FormatError, match="does not end in 8 experts"):
        prune_gguf(lying, one, tmp_path / "out.gguf")
    empty = tmp_path / "empty.gguf"
    empty.write_bytes(build_gguf(SHAPE_KEYS))
    with pytest.raises(FormatError, match="layer 0: it has no expert tensors"):
        prune_gguf(empty, one, tmp_path / "out.gguf")
    other = tmp_path / "other.gguf"
    other.write_bytes(build_gguf({**SHAPE_KEYS, "general.architecture": "clip"}))
    with pytest.raises(UnsupportedError, match="'clip'"):
        prune_gguf(other, one, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_a_truncated_reference_is_refused(tiny_gguf: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-200])
    with pytest.raises(FormatError, match=r"it ends at byte \d+ and the file at byte \d+"):
        prune_gguf(cut, drop_map(3), tmp_path / "out.gguf")
