"""A reference is known from its headers, and its hash from its contents alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoints import digests
from studio.checkpoints.digests import digest_file
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.checkpoints.reference import open_reference
from studio.errors import FormatError, InputError
from studio.recipes.dropmap import DropMap

MakeMap = Callable[..., DropMap]


def test_shape_and_parameters_are_those_of_the_model(tiny_model: Path, sharded_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    reference = open_reference(tiny_model)
    assert reference.name == "tiny-model"
    assert (reference.shape.layers, reference.shape.experts, reference.shape.top_k) == (4, 8, 2)
    stored = model.state_dict()
    del stored["lm_head.weight"]  # tied to the embeddings
    assert reference.parameters == sum(one.numel() for one in stored.values())
    assert open_reference(sharded_model).parameters == reference.parameters
    assert reference.bytes == (tiny_model / "model.safetensors").stat().st_size


def test_parameters_left_are_foretold(tiny_model: Path, drop_map: MakeMap, tmp_path: Path) -> None:
    pruned = open_reference(prune_safetensors(tiny_model, drop_map(3), tmp_path / "out"))
    assert open_reference(tiny_model).parameters_with(5) == pruned.parameters


def test_the_hash_of_a_folder_depends_on_its_contents_alone(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / ".cache").mkdir()
    (copy / "optimizer.pt").write_bytes(b"foreign")
    assert open_reference(copy).content_hash() == open_reference(tiny_model).content_hash()
    (copy / "tokenizer.json").write_text("{}")
    assert open_reference(copy).content_hash() != open_reference(tiny_model).content_hash()


def test_the_hash_of_a_gguf_is_the_digest_of_the_file(tiny_gguf: Path) -> None:
    assert open_reference(tiny_gguf).content_hash() == hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()


def test_progress_of_the_hash_ends_at_its_total(tiny_model: Path) -> None:
    reference, heard = open_reference(tiny_model), list[tuple[int, int]]()
    reference.content_hash(lambda done, total, *_: heard.append((done, total)))
    assert heard[-1] == (reference.hashed_bytes, reference.hashed_bytes)


def test_a_digest_is_read_once_and_anew_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_bytes(b"one")
    assert digest_file(file, cache) == hashlib.sha256(b"one").hexdigest()
    monkeypatch.setattr(digests, "_known", {})  # another process
    remembered = next(cache.iterdir())
    remembered.write_text("0" * 64)
    assert digest_file(file, cache) == "0" * 64
    monkeypatch.setattr(digests, "_known", {})
    remembered.write_text("")  # as a crash may leave it
    assert digest_file(file, cache) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"three")
    assert digest_file(file, cache) == hashlib.sha256(b"three").hexdigest()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_reference(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json"):
        open_reference(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(FormatError, match="not a GGUF file"):
        open_reference(text)
