"""Where arrays over the experts of a layer are found: .npz, safetensors and JSON files. Nothing is unpickled.

Only arrays are read whose names `per_layer` knows, and none before its size is known to be that of an analysis.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from studio.contributions.analysis_json import MOST_CELLS
from studio.contributions.model import Array
from studio.contributions.per_layer import HELP, Name, is_known
from studio.errors import FormatError, InputError

MOST_JSON_BYTES = 64 << 20
"""61 layers × 384 experts × 16 classes × ten numbers of ten digits; it is read as a whole."""
MOST_ARRAYS = 1 << 17
"""Names in a file; the largest models have some hundred layers, and an analysis ten numbers and some dozen classes."""
PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"}

_ZIP, _PICKLE_PROTOCOLS = b"PK\x03\x04", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PICKLED_TENSORS = "data.pkl"
"""What a zip file that `torch.save` wrote has in it."""
CONVERSION = (
    'python -c "import sys, numpy, torch; '
    "state = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "numpy.savez(sys.argv[2], **{f'{layer}/{name}': value.double().numpy() for layer, metrics in state.items() "
    "for name, value in metrics.items() if getattr(value, 'ndim', 2) < 2})\""
)
"""Makes an .npz of REAP's observations, for a shell; the two file names follow."""


def refuse_pickle(path: Path) -> None:
    """Raise `InputError`, with the way to convert it, when the file at `path` is a pickle, whatever it is called."""
    with path.open("rb") as opened:
        start = opened.read(4)
    is_pickle = path.suffix.lower() in PICKLE_SUFFIXES or start.startswith(_PICKLE_PROTOCOLS)
    if is_pickle or (start == _ZIP and _has_pickled_tensors(path)):
        raise InputError(
            f"{path} is a pickle, which can run any program when it is read, and is not opened here.",
            f"Where you trust it and have PyTorch, convert it: {CONVERSION} {path.name} {path.stem}.npz",
        )


def _has_pickled_tensors(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == _PICKLED_TENSORS for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return False  # it will be refused as what it claims to be


def is_zip(path: Path) -> bool:
    """Whether the file at `path` begins as an .npz does."""
    with path.open("rb") as opened:
        return opened.read(4) == _ZIP


def read_npz(path: Path) -> dict[Name, Array]:
    """The known arrays of an .npz file.

    Raises `FormatError`, with the name, for what is damaged, larger than it says, no array of numbers, or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ARRAYS:
                raise FormatError(path, "", f"it holds {len(entries)} arrays, more than any analysis")
            named = ((tuple(entry.filename.removesuffix(".npy").split("/")), entry) for entry in entries)
            return {name: _npy(path, archive, entry) for name, entry in named if is_known(name)}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise FormatError(path, "", f"this is not a whole .npz file ({error})", HELP) from error


def _npy(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    """One array of an archive, whose sizes are compared before anything is unpacked."""
    try:
        with archive.open(entry) as opened:
            shape, fortran, dtype = _npy_header(opened)
            if dtype.hasobject:
                raise FormatError(path, entry.filename, "it is a pickled object, and is not opened here", HELP)
            array_bytes = math.prod(shape) * dtype.itemsize
            _check(path, entry.filename, shape, dtype)
            if opened.tell() + array_bytes != entry.file_size:
                raise FormatError(path, entry.filename, f"{dtype} {list(shape)} is not of the {entry.file_size} bytes")
            data = opened.read(array_bytes)
            values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(path, entry.filename, f"this is not an array ({error})", HELP) from error
    return values.astype(np.float64)


def _npy_header(opened: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(opened)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(opened)
    return shape, fortran, dtype


def read_safetensors(path: Path) -> dict[Name, Array]:
    """The known arrays of a safetensors file. Raises `FormatError` as `read_npz` does."""
    try:
        with safe_open(path, framework="numpy") as opened:
            named = ((tuple(key.split("/")), key) for key in opened.keys())  # noqa: SIM118 (not a mapping)
            return {name: _tensor(path, opened, key) for name, key in named if is_known(name)}
    except SafetensorError as error:
        raise FormatError(path, "", f"this is not a whole safetensors file ({error})", HELP) from error


def _tensor(path: Path, opened: Any, key: str) -> Array:
    part = opened.get_slice(key)
    dtype = _DTYPES.get(part.get_dtype())
    if dtype is None:
        known = ", ".join(_DTYPES)
        raise FormatError(path, f"tensor {key}", f"it is {part.get_dtype()}, and has to be one of {known}", HELP)
    _check(path, key, part.get_shape(), np.dtype(dtype))
    return np.asarray(opened.get_tensor(key), dtype=np.float64)


_DTYPES = {
    **{"F16": np.float16, "F32": np.float32, "F64": np.float64},
    **{"U8": np.uint8, "I32": np.int32, "I64": np.int64, "U32": np.uint32, "U64": np.uint64},
}


def _check(path: Path, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiu" or math.prod(shape) > MOST_CELLS:
        raise FormatError(path, name, f"{dtype} {list(shape)} is no array of numbers over layers and experts", HELP)


def read_json(path: Path) -> tuple[dict[Name, Array], Mapping[str, Any]]:
    """The known arrays of a JSON file; and its `metadata` with whatever else stands beside it, such as the model.

    Levels are names, lists of numbers arrays; of a list of objects each is a layer, by its `layer` or its position.
    Raises `FormatError`, with the place, for what is no JSON, ragged, no numbers, or larger than an analysis is.
    """
    size = path.stat().st_size
    if size > MOST_JSON_BYTES:
        raise FormatError(path, "", f"{size:,} bytes are too many for arrays in JSON", "Export them as .npz.")
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "", f"this is not readable as JSON ({str(error)[:200]})", HELP) from error
    if not isinstance(content, dict):
        raise FormatError(path, "", "an object is expected here", HELP)
    metadata = content.pop("metadata", {})
    beside = {key: value for key, value in content.items() if not isinstance(value, dict | list)}
    arrays = {name: _array(path, name, value) for name, value in _leaves(content, ()) if is_known(name)}
    return arrays, {**beside, **(metadata if isinstance(metadata, dict) else {})}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} comes twice")
    return result


def _leaves(value: Any, name: Name) -> Iterator[tuple[Name, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*name, key))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from _leaves(item, (*name, str(item.get("layer", position))))
    elif name:
        yield name, value


def _array(path: Path, name: Name, value: Any) -> Array:
    try:
        array = np.array(value, dtype=np.float64)  # null becomes NaN
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(path, "/".join(name), "this is no array of numbers", HELP) from error
    _check(path, "/".join(name), array.shape, array.dtype)
    return array
