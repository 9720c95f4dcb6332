"""A folder with a safetensors checkpoint as transformers and the Hub lay it out, opened without reading weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.checkpoints.safetensors_header import SafetensorsHeader, read_header
from studio.errors import FormatError, InputError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
CARD = "README.md"
BASE_CARD = "README.base.md"
"""What the card of the reference is called beside pruned weights: its sizes and measures are not theirs."""
MAX_JSON_BYTES = 64 << 20
"""An index of 100,000 tensors has 10 MB."""

WEIGHT_SUFFIXES = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".npz"),
    *(".pkl", ".pickle", ".tflite", ".ot", ".onnx_data"),
}
"""Other people's weights: never copied beside pruned ones, which they would not match."""


@dataclass(frozen=True)
class ModelFolder:
    """What a checkpoint consists of."""

    path: Path
    config: Mapping[str, Any] = field(repr=False)
    config_text: str = field(repr=False)
    """`config.json` as it stands in the file."""
    shards: Mapping[str, SafetensorsHeader] = field(repr=False)
    """File name → header, in the order of the names."""
    index: Mapping[str, Any] | None = field(repr=False)
    """The parsed index of a sharded checkpoint, None for a single file."""
    companions: Mapping[str, Path] = field(repr=False)
    """Everything else that belongs to the model (tokenizer, templates, card): relative name → file, links resolved."""

    @property
    def files(self) -> dict[str, Path]:
        """Relative name → file, links resolved, of all that makes the model, sorted by name."""
        own = {name: header.path.resolve() for name, header in self.shards.items()}
        own[CONFIG] = (self.path / CONFIG).resolve()
        if self.index is not None:
            own[INDEX] = (self.path / INDEX).resolve()
        return dict(sorted({**self.companions, **own}.items()))


def open_model_folder(path: Path) -> ModelFolder:
    """Open the checkpoint in the folder `path`.

    Raises `InputError` when a file is missing, `FormatError` for a damaged one: config, index or the header of a shard.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder.", "Name the folder that holds config.json and model.safetensors.")
    config, config_text = read_json_object(path / CONFIG)
    names, index = _weight_files(path)
    shards = {name: read_header(path / name) for name in names}
    if index is not None:
        _check_index(path / INDEX, index, shards)
    return ModelFolder(path, config, config_text, shards, index, _companions(path))


def read_json_object(path: Path) -> tuple[dict[str, Any], str]:
    """A JSON file that has to hold an object: (parsed, as text)."""
    if not path.is_file():
        raise InputError(f"There is no {path.name} in {path.parent}.", "Is this the folder of a model?")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise FormatError(path, "", f"it has more than {MAX_JSON_BYTES} bytes")
    try:
        text = path.read_bytes().decode("utf-8")
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "", f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise FormatError(path, "", "it is not a JSON object")
    return value, text


def _weight_files(path: Path) -> tuple[list[str], dict[str, Any] | None]:
    """Names of the weight files, and the index when there is one."""
    if (path / SINGLE).is_file():  # transformers prefers it too
        return [SINGLE], None
    if not (path / INDEX).is_file():
        raise InputError(
            f"{path} has neither {SINGLE} nor {INDEX}.", "Espalier reads checkpoints in the safetensors format."
        )
    index, _ = read_json_object(path / INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(path / INDEX, "weight_map", "it does not map tensors to files")
    names = set(weight_map.values()) if all(isinstance(name, str) for name in weight_map.values()) else {None}
    for name in names:
        if name is None or Path(name).name != name or not name.endswith(".safetensors"):
            raise FormatError(path / INDEX, "weight_map", f"{name!r} is not the name of a safetensors file beside it")
    return sorted(name for name in names if name), index


def _check_index(path: Path, index: Mapping[str, Any], shards: Mapping[str, SafetensorsHeader]) -> None:
    inside = {file: {tensor.name for tensor in header.tensors} for file, header in shards.items()}
    for name, file in index["weight_map"].items():
        if name not in inside[file]:
            raise FormatError(path, f"weight_map, {name!r}", f"{file} has no such tensor")


def _companions(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder, subfolders, files in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            file = Path(folder) / name
            if name.startswith(".") or _is_weights(name) or file == path / CONFIG:
                continue
            if not file.exists():
                raise InputError(f"{file} is a link to a file that is not there.", "Download the model again.")
            if file.is_file():
                found[file.relative_to(path).as_posix()] = file.resolve()
    return found


def _is_weights(name: str) -> bool:
    stem = name.removesuffix(".index.json")
    return Path(stem).suffix in WEIGHT_SUFFIXES
