"""A pruned checkpoint is the reference without the dropped experts, and nothing else about it is different."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from studio.checkpoints.prune_safetensors import prune_safetensors, with_expert_count
from studio.checkpoints.reference import open_reference
from studio.errors import (
    FormatError,
    InputError,
    MismatchError,
    OutputExistsError,
    UnsupportedError,
)
from studio.families import GEMMA4
from studio.publish.manifest import Manifest
from studio.recipes.dropmap import DropMap

MakeMap = Callable[..., DropMap]
FilesBelow = Callable[[Path], dict[str, bytes]]
EXPERT_PARTS = ("experts.gate_up_proj", "experts.down_proj", "router.proj.weight", "router.per_expert_scale")
WEIGHTS = "model.safetensors"


def tensors_of(folder: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint, read by the official library."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            found.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return found


def sliced(tensors: dict[str, Any], drop: DropMap) -> dict[str, Any]:
    """The slow, obvious pruning: numpy's take on parsed tensors."""
    result = {}
    for name, array in tensors.items():
        is_expert = name.endswith(EXPERT_PARTS)
        layer = int(name.split("layers.")[1].split(".")[0]) if is_expert else 0
        result[name] = np.take(array, drop.kept(layer), axis=0) if is_expert else array
    return result


def assert_same_tensors(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    assert ours.keys() == expected.keys()
    for name, array in ours.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape, name
        assert array.tobytes() == expected[name].tobytes(), name


@settings(max_examples=15)
@given(drop=st.integers(0, 6), seed=st.integers(0, 1000), sharded=st.booleans())
def test_for_any_map_the_bytes_equal_numpy_take_of_the_parsed_tensors(
    tiny_model: Path,
    sharded_model: Path,
    drop_map: MakeMap,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    drop: int,
    seed: int,
    sharded: bool,
) -> None:
    reference, chosen = sharded_model if sharded else tiny_model, drop_map(drop, seed)
    out = prune_safetensors(reference, chosen, tmp_path_factory.mktemp("pruned") / "out")
    assert_same_tensors(tensors_of(out), sliced(tensors_of(reference), chosen))


def test_order_and_metadata_of_the_header_are_kept(tiny_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    def header(path: Path) -> dict[str, Any]:
        with path.open("rb") as file:
            parsed: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            return parsed

    def by_offset(entries: dict[str, Any]) -> list[str]:
        entries = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        return sorted(entries, key=lambda name: entries[name]["data_offsets"])

    before = header(tiny_model / WEIGHTS)
    after = header(prune_safetensors(tiny_model, drop_map(3), tmp_path / "out") / WEIGHTS)
    assert list(after) == list(before)
    assert by_offset(after) == by_offset(before)
    assert after["__metadata__"] == before["__metadata__"]


@contextmanager
def masked(model: Any, drop: DropMap) -> Iterator[None]:
    """Inside, the router gives dropped experts −inf."""
    hooks = []
    for index, layer in enumerate(model.model.layers):
        chosen = list(drop.dropped[index])

        def mask(module: Any, inputs: Any, logits: Any, chosen: list[int] = chosen) -> Any:
            logits = logits.clone()
            logits[..., chosen] = float("-inf")
            return logits

        hooks.append(layer.router.proj.register_forward_hook(mask))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def reference_model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@settings(max_examples=6)
@given(drop=st.integers(1, 6), seed=st.integers(0, 1000))
def test_transformers_loads_it_and_its_logits_are_those_of_the_masked_reference(
    tiny_model: Path,
    reference_model: Any,
    drop_map: MakeMap,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    drop: int,
    seed: int,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chosen = drop_map(drop, seed)
    out = prune_safetensors(tiny_model, chosen, tmp_path_factory.mktemp("pruned") / "out")
    pruned = AutoModelForCausalLM.from_pretrained(out).eval()
    assert pruned.config.num_experts == chosen.kept_count
    tokens = torch.randint(
        10, len(AutoTokenizer.from_pretrained(out)), (2, 48), generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad(), masked(reference_model, chosen):
        expected = reference_model(tokens).logits
    with torch.no_grad():
        assert torch.allclose(pruned(tokens).logits, expected, atol=1e-5, rtol=0)
        unmasked = reference_model(tokens).logits
    assert not torch.allclose(unmasked, expected, atol=1e-3), "the mask made no difference, so the test shows nothing"


def test_everything_else_is_copied_but_hidden_files_and_foreign_weights(
    tiny_model: Path, drop_map: MakeMap, tmp_path: Path, files_below: FilesBelow
) -> None:
    reference = tmp_path / "reference"
    shutil.copytree(tiny_model, reference)
    extra = {
        "additional_chat_templates/tools.jinja": "{{ tools }}",
        ".git/config": "secret",
        ".gitattributes": "x",
        "pytorch_model.bin": "pickle",
        "pytorch_model.bin.index.json": "{}",
        "consolidated.safetensors": "other weights",
        "onnx/model.onnx": "other weights",
        "model-q4.gguf": "other weights",
        "drop_map.json": "of an earlier pruning",
    }
    for name, text in extra.items():
        (reference / name).parent.mkdir(exist_ok=True)
        (reference / name).write_text(text)
    out = prune_safetensors(reference, drop_map(3), tmp_path / "out")
    before, after = files_below(tiny_model), files_below(out)
    assert after["README.base.md"] == before.pop("README.md"), "the reference's card tells of the reference"
    written = {
        WEIGHTS,
        "README.base.md",
        "config.json",
        "expert_drop_metadata.json",
        "drop_map.json",
        "espalier-manifest.json",
    }
    assert set(after) == set(before) | written | {"additional_chat_templates/tools.jinja"}
    for name in set(before) - written:
        assert after[name] == before[name]


def test_links_of_a_hub_cache_become_files_and_name_the_base_model(
    tiny_model: Path, drop_map: MakeMap, tmp_path: Path
) -> None:
    root = tmp_path / "hub" / "models--google--gemma-tiny"
    snapshot = root / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir()
    for number, file in enumerate(sorted(tiny_model.iterdir())):
        shutil.copyfile(file, root / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    out = prune_safetensors(snapshot, drop_map(3), tmp_path / "out")
    plain = prune_safetensors(tiny_model, drop_map(3), tmp_path / "plain")
    assert not any(file.is_symlink() for file in out.rglob("*"))
    assert (out / WEIGHTS).read_bytes() == (plain / WEIGHTS).read_bytes()
    assert json.loads((out / "expert_drop_metadata.json").read_text())["base_model"] == "google/gemma-tiny"
    assert Manifest.read(out / "espalier-manifest.json").reference.sha256 == open_reference(tiny_model).content_hash()

    (snapshot / "gone.txt").symlink_to("../../blobs/missing")
    with pytest.raises(InputError, match=r"gone\.txt is a link to a file that is not there"):
        prune_safetensors(snapshot, drop_map(3), tmp_path / "again")


def test_the_towers_of_a_multimodal_checkpoint_pass_through(
    build_safetensors: Callable[..., bytes], drop_map: MakeMap, tmp_path: Path
) -> None:
    shapes = {
        "model.vision_tower.encoder.weight": [8, 4],
        "model.language_model.layers.0.experts.gate_up_proj": [8, 6, 5],
        "model.language_model.layers.0.experts.down_proj": [8, 5, 3],
        "model.language_model.layers.0.router.proj.weight": [8, 5],
        "model.language_model.layers.0.router.scale": [5],
        "model.language_model.layers.0.router.per_expert_scale": [8],
        "model.audio_tower.layers.0.weight": [8],
    }
    header, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * 2
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, start + size]}
        start += size
    text = {"num_hidden_layers": 1, "num_experts": 8, "top_k_experts": 2, "hidden_size": 5, "moe_intermediate_size": 3}
    reference = tmp_path / "multimodal"
    reference.mkdir()
    (reference / WEIGHTS).write_bytes(build_safetensors(header, np.random.default_rng(0).bytes(start)))
    config = {"model_type": "gemma4", "text_config": {"model_type": "gemma4_text", **text}, "vision_config": {"x": 1}}
    (reference / "config.json").write_text(json.dumps(config))
    chosen = drop_map(3, layers=1)
    out = prune_safetensors(reference, chosen, tmp_path / "out")
    assert_same_tensors(tensors_of(out), sliced(tensors_of(reference), chosen))
    config["text_config"]["num_experts"] = 5  # type: ignore[index]
    assert json.loads((out / "config.json").read_text()) == config


def test_only_the_expert_count_of_the_config_changes(tiny_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    out = prune_safetensors(tiny_model, drop_map(3), tmp_path / "out")
    before, after = (tiny_model / "config.json").read_text(), (out / "config.json").read_text()
    assert after == before.replace('"num_experts": 8', '"num_experts": 5')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"num_experts":8,"x":1e-06}', '{"num_experts":3,"x":1e-06}'),
        (
            '{\n\t"vision_config": {"num_experts": 8},\n\t"text_config": {"num_experts" : 8}, "ü": 1.0\n}\n',
            '{\n\t"vision_config": {"num_experts": 8},\n\t"text_config": {"num_experts" : 3}, "ü": 1.0\n}\n',
        ),
        ('{"text_config": {"note": "\\"num_experts\\": 8", "num_experts": 8}}', None),
    ],
)
def test_the_config_keeps_its_formatting_wherever_the_count_stands(before: str, after: str | None) -> None:
    rewritten = with_expert_count(before, GEMMA4, 3)
    expected = json.loads(before)
    expected.get("text_config", expected)["num_experts"] = 3
    assert json.loads(rewritten) == expected
    assert after is None or rewritten == after


def test_the_index_of_a_sharded_checkpoint_is_right(sharded_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    out = prune_safetensors(sharded_model, drop_map(3), tmp_path / "out")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    before = json.loads((sharded_model / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == before["weight_map"]
    assert set(index["metadata"]) == set(before["metadata"])
    tensors = tensors_of(out)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    if "total_parameters" in before["metadata"]:
        assert index["metadata"]["total_parameters"] == sum(array.size for array in tensors.values())
    for name, file in index["weight_map"].items():
        with safe_open(out / file, "np") as shard:
            assert name in shard.keys()  # noqa: SIM118


def test_two_builds_give_identical_bytes(
    sharded_model: Path, drop_map: MakeMap, tmp_path: Path, files_below: FilesBelow
) -> None:
    first = prune_safetensors(sharded_model, drop_map(3), tmp_path / "first")
    second = prune_safetensors(sharded_model, drop_map(3), tmp_path / "below" / "second")
    assert files_below(first) == files_below(second)


def test_the_story_lies_beside_the_weights(tiny_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    chosen = drop_map(3)
    provenance = {
        "recipe": {"drop": 3},
        "recipe_hash": "b" * 64,
        "contributions_hash": "c" * 64,
        "base_model": "me/tiny",
    }
    out = prune_safetensors(tiny_model, chosen, tmp_path / "out", provenance=provenance)
    metadata = json.loads((out / "expert_drop_metadata.json").read_text())
    assert metadata["base_model"] == "me/tiny"
    assert (metadata["original_experts"], metadata["target_experts"]) == (8, 5)
    assert metadata["per_layer_keep"]["1"] == list(chosen.kept(1))
    assert metadata["per_layer_drop"]["1"] == list(chosen.dropped[1])
    assert DropMap.from_json((out / "expert_drop_metadata.json").read_text()) == chosen
    assert DropMap.from_json((out / "drop_map.json").read_text(), 8) == chosen
    manifest = Manifest.read(out / "espalier-manifest.json")
    assert manifest.reference.sha256 == open_reference(tiny_model).content_hash()
    assert (manifest.recipe, manifest.recipe_sha256, manifest.contributions) == ({"drop": 3}, "b" * 64, "c" * 64)
    assert manifest.map is not None
    assert (manifest.map.sha256, manifest.map.kept) == (chosen.content_hash, 5)
    assert "espalier" in manifest.versions


def test_progress_runs_from_nothing_to_everything(tiny_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    prune_safetensors(
        tiny_model, drop_map(3), tmp_path / "out", progress=lambda done, total, *_: heard.append((done, total))
    )
    assert all(before[0] <= after[0] for before, after in pairwise(heard))
    assert heard[-1][0] == heard[-1][1]


def test_a_map_for_another_model_is_refused_before_anything_is_written(
    tiny_model: Path, drop_map: MakeMap, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(MismatchError, match="16 experts"):
        prune_safetensors(tiny_model, drop_map(3, experts=16), out)
    with pytest.raises(MismatchError, match="layer 3"):
        prune_safetensors(tiny_model, drop_map(3, layers=3), out)
    with pytest.raises(InputError, match="uses 2 per token"):
        prune_safetensors(tiny_model, drop_map(7), out)
    assert list(tmp_path.iterdir()) == []


def test_results_are_never_overwritten_unasked_and_the_reference_never(
    tiny_model: Path, drop_map: MakeMap, tmp_path: Path, files_below: FilesBelow
) -> None:
    out = prune_safetensors(tiny_model, drop_map(3), tmp_path / "out")
    before = files_below(out)
    with pytest.raises(OutputExistsError):
        prune_safetensors(tiny_model, drop_map(4), out)
    assert files_below(out) == before
    prune_safetensors(tiny_model, drop_map(4), out, overwrite=True)
    assert json.loads((out / "config.json").read_text())["num_experts"] == 4
    for place in (tiny_model, tiny_model.parent):
        with pytest.raises(InputError, match="is the reference, or holds it"):
            prune_safetensors(tiny_model, drop_map(3), place, overwrite=True)


def damaged(tiny_model: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(tiny_model, folder)
    change(folder)
    return folder


def rename_tensor(old: bytes, new: bytes) -> Callable[[Path], None]:
    assert len(old) == len(new)

    def change(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        assert old in data
        (folder / WEIGHTS).write_bytes(data.replace(old, new, 1))

    return change


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), InputError, "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), FormatError, "config.json: it is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), FormatError, "not a JSON object"),
        (lambda folder: (folder / WEIGHTS).unlink(), InputError, "has neither model.safetensors nor"),
        (replace_in("config.json", '"gemma4_text"', '"llama"'), UnsupportedError, "'llama'"),
        (replace_in("config.json", '"num_hidden_layers": 4', '"num_hidden_layers": 3'), MismatchError, "layer 3"),
        (
            rename_tensor(b"layers.2.experts.down_proj", b"layers.7.experts.down_proj"),
            FormatError,
            "layers up to 3 only",
        ),
        (rename_tensor(b"layers.2.experts.down_proj", b"layers.2.experts.odd__proj"), UnsupportedError, "odd__proj"),
        (replace_in("config.json", '"num_experts": 8', '"num_experts": 9'), MismatchError, "the model has 9"),
    ],
)
def test_a_damaged_reference_is_named_and_nothing_is_left(
    tiny_model: Path,
    drop_map: MakeMap,
    tmp_path: Path,
    *,
    change: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    reference = damaged(tiny_model, tmp_path / "damaged", change)
    with pytest.raises(error, match=message):
        prune_safetensors(reference, drop_map(3), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_weights_that_contradict_the_config_are_named(tiny_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    reference = damaged(
        tiny_model, tmp_path / "lying", replace_in("config.json", '"num_experts": 8', '"num_experts": 6')
    )
    with pytest.raises(FormatError, match="has not 6 experts at axis 0"):
        prune_safetensors(reference, drop_map(2, experts=6), tmp_path / "out")


def test_an_index_that_lies_is_refused(sharded_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    index = "model.safetensors.index.json"
    text = (sharded_model / index).read_text()
    first = next(iter(json.loads(text)["weight_map"].values()))
    for new, message in [
        ('"../../secret.safetensors"', "is not the name of a safetensors file beside it"),
        ('"/etc/passwd"', "is not the name of a safetensors file beside it"),
        ("7", "is not the name of a safetensors file beside it"),
        ('"absent.safetensors"', "absent.safetensors is not a file"),
    ]:
        reference = damaged(sharded_model, tmp_path / "reference", lambda folder: None)
        (reference / index).write_text(text.replace(f'"{first}"', new, 1))
        with pytest.raises(InputError, match=message):
            prune_safetensors(reference, drop_map(3), tmp_path / "out")
        shutil.rmtree(reference)
    reference = damaged(
        sharded_model, tmp_path / "reference", replace_in(index, "model.norm.weight", "model.gone.weight")
    )
    with pytest.raises(FormatError, match=r"'model\.gone\.weight': .* has no such tensor"):
        prune_safetensors(reference, drop_map(3), tmp_path / "out")
