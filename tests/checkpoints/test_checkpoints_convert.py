"""Conversion: reproducible, cached, and clear when it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoints.convert import _link_model, cached_gguf, convert_to_gguf
from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.reference import open_reference
from studio.errors import InputError, OutputExistsError, ProcessError

FilesBelow = Callable[[Path], dict[str, bytes]]


def test_the_converted_model_has_the_shape_and_parameters_of_its_checkpoint(tiny_model: Path, tiny_gguf: Path) -> None:
    before, after = open_reference(tiny_model), open_reference(tiny_gguf)
    assert after.shape == before.shape
    assert (before.kind, after.kind) == ("safetensors", "gguf")
    assert after.expert_parameters == before.expert_parameters
    types = {tensor.type.name for tensor in read_header(tiny_gguf).tensors}
    assert types == {"BF16", "F32"}


def test_a_model_is_converted_once_to_the_same_bytes_wherever_it_lies(
    tiny_model: Path, tiny_gguf: Path, tmp_path: Path, files_below: FilesBelow
) -> None:
    moved = tmp_path / "Another-Name-7B-v2 {ftype}"
    shutil.copytree(tiny_model, moved)
    heard: list[tuple[int, int, str]] = []

    def listen(done: int, total: int, unit: str = "", message: str = "") -> None:
        heard.append((done, total, message))

    first = cached_gguf(moved, tmp_path / "cache {0}", progress=listen)
    assert first.read_bytes() == tiny_gguf.read_bytes()
    assert any(message == "Converting to GGUF" for _, _, message in heard)
    assert all(0 <= done <= total for done, total, _ in heard)
    stamp = first.stat().st_mtime_ns
    assert cached_gguf(tiny_model, tmp_path / "cache {0}") == first
    assert first.stat().st_mtime_ns == stamp
    assert set(files_below(first.parent)) == {first.name}


def test_code_that_lies_beside_the_weights_is_not_shown_to_the_converter(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-code"
    shutil.copytree(tiny_model, folder)
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    linked = _link_model(open_reference(folder), tmp_path / "links")
    names = {path.name for path in linked.iterdir()}
    assert names == {path.name for path in tiny_model.iterdir()}


def test_a_failed_conversion_shows_the_converters_last_lines_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, files_below: FilesBelow
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "tokenizer.json").write_text("{}")
    (tmp_path / "out").mkdir()
    with pytest.raises(ProcessError) as caught:
        convert_to_gguf(broken, tmp_path / "out" / "model.gguf")
    assert "converter failed" in str(caught.value)
    assert "Traceback" in caught.value.log_tail
    assert files_below(tmp_path / "out") == {}


def test_what_is_wrong_is_said_before_the_converter_starts(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no output type 'q4'"):
        convert_to_gguf(tiny_model, tmp_path / "a.gguf", outtype="q4")
    (tmp_path / "b.gguf").write_bytes(b"kept")
    with pytest.raises(OutputExistsError):
        convert_to_gguf(tiny_model, tmp_path / "b.gguf")
    assert (tmp_path / "b.gguf").read_bytes() == b"kept"
    with pytest.raises(InputError, match=r"no config\.json"):
        convert_to_gguf(tmp_path, tmp_path / "c.gguf")


def test_the_name_in_the_file_comes_from_the_config(tiny_model: Path, tiny_gguf: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    assert read_header(tiny_gguf).values["general.name"] == config["model_type"]
