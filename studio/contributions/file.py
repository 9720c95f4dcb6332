"""The file of `Contributions`: safetensors, a float64 tensor `[Q, L, E]` per sum, the rest as JSON in its metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from studio.contributions.model import SUMS, Array, Contributions, Question
from studio.errors import FormatError, InputError
from studio.families.base import MoeShape
from studio.staging import staged

FORMAT = "espalier-contributions"
VERSION = 1
_KEY = "espalier"  # one key, because safetensors writes several in no fixed order
_REMEDY = "Give a file made by `python -m studio analyze` or `python -m studio import`."


def save(contributions: Contributions, path: Path, overwrite: bool = False) -> None:
    """Write `contributions` to `path`; the same contributions give the same bytes.

    Raises `OutputExistsError` when `path` exists and `overwrite` is false, `ResourceError` when the disk is full.
    """
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "model": contributions.model,
        "source": contributions.source,
        "shape": contributions.shape.fields,
        "questions": [asdict(question) for question in contributions.questions],
    }
    if contributions.estimated:
        header["estimated"] = list(contributions.estimated)
    needed = sum(values.nbytes for values in contributions.sums.values())
    with staged(Path(path), overwrite=overwrite, needed_bytes=needed) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(dict(contributions.sums), partial, metadata={_KEY: json.dumps(header, sort_keys=True)})
        partial.chmod(mode)  # safetensors makes a file that nobody else may read


def load(path: Path) -> Contributions:
    """Read what `save` wrote.

    Raises `InputError` when there is no such file, `FormatError` when it is damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="numpy") as opened:
            header = _header(path, opened.metadata() or {})
            sums = {name: _sum(path, opened, name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise FormatError(path, "", f"this is not a whole safetensors file ({error})", _REMEDY) from error
    try:
        return Contributions(
            shape=_shape(header["shape"]),
            model=str(header["model"]),
            questions=tuple(_question(entry) for entry in header["questions"]),
            sums=sums,
            source=str(header["source"]),
            estimated=tuple(str(name) for name in header.get("estimated", ())),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FormatError(path, "header", f"a field is missing or wrong ({error})", _REMEDY) from error
    except InputError as error:
        raise FormatError(path, "header", error.what.rstrip("."), _REMEDY) from error


def shape_of(path: Path) -> MoeShape:
    """The grid of the analysis at `path`, from its header alone; `FormatError` for anything that is none."""
    try:
        with safe_open(path, framework="numpy") as opened:
            return _shape(_header(path, opened.metadata() or {})["shape"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(path, "header", f"it cannot be read ({error})", _REMEDY) from error


def is_ours(path: Path) -> bool:
    """Whether the safetensors file at `path` says that it is a contribution analysis of Espalier's."""
    try:
        with safe_open(path, framework="numpy") as opened:
            return _KEY in (opened.metadata() or {})
    except SafetensorError:
        return True  # `load` says what is wrong with it


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        header = json.loads(metadata[_KEY])
        described = (header["format"], header["version"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        problem = "these are tensors, but not a contribution analysis"
        raise FormatError(path, "header", problem, _REMEDY) from error
    if described != (FORMAT, VERSION):
        problem = f"it says {described[0]} version {described[1]}, and this Espalier reads {FORMAT} version {VERSION}"
        raise FormatError(path, "header", problem, _REMEDY)
    return dict(header)


def _sum(path: Path, opened: Any, name: str) -> Array:
    if name not in SUMS:
        raise FormatError(path, f"tensor {name}", f"this is not one of the sums {', '.join(SUMS)}", _REMEDY)
    dtype = opened.get_slice(name).get_dtype()
    if dtype != "F64":
        raise FormatError(path, f"tensor {name}", f"it is {dtype} and not F64", _REMEDY)
    values: Array = opened.get_tensor(name)
    return values


def _shape(entry: dict[str, Any]) -> MoeShape:
    numbers = ("experts", "top_k", "hidden_size", "expert_size")
    return MoeShape(
        family=str(entry["family"]),
        layer_ids=tuple(int(layer) for layer in entry["layer_ids"]),
        **{key: int(entry[key]) for key in numbers},
        **{key: int(entry[key]) for key in ("groups", "groups_per_token") if key in entry},
    )


def _question(entry: dict[str, Any]) -> Question:
    return Question(
        id=str(entry["id"]),
        klass=str(entry["klass"]),
        prompts=int(entry["prompts"]),
        truncated=bool(entry["truncated"]),
        skipped_tokens=int(entry["skipped_tokens"]),
    )
