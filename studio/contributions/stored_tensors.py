"""Where the tensors of a safetensors checkpoint lie, as its headers say; needs no torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from studio.errors import FormatError, InputError


@dataclass(frozen=True)
class StoredTensor:
    """A tensor at the byte `start` of `file`; `dtype` is safetensors' name of its type."""

    file: Path
    start: int
    size: int
    """Bytes."""
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name → place of every tensor of the model in `folder`.

    Raises `InputError` when its weights are not there, `FormatError` for a damaged file.
    """
    found: dict[str, StoredTensor] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="numpy"):  # which checks the header and that the tensors fill the file
                header, start = _header(file)
        except (OSError, SafetensorError) as error:
            raise FormatError(file, "header", f"{error}", "Is the download complete?") from error
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            found[name] = StoredTensor(file, start + begin, end - begin, tuple(entry["shape"]), entry["dtype"])
    return found


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The entries of a header that is known to be whole, and the byte where the tensors begin."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads the model in `folder` from; others may lie beside them."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    try:
        return sorted({folder / Path(name).name for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{folder} has neither {single.name} nor a readable {index.name}.", "Is the download complete?"
        ) from error
