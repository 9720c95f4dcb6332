"""`Result`: what one model scored in one measure, with all that is needed to measure it again.

A result is a JSON file that lives with the model it is about: `artifacts/NAME/measures/KIND-NAME-HASH.json`, or
`measures/KIND-NAME-HASH.json` in the workspace for a model that is no artifact. The hash stands for the model's bytes
and for the ground it was measured on, so the same measure of the same model always has the same name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from studio.checkpoints.gguf_header import read_header
from studio.errors import FormatError, InputError, MismatchError
from studio.progress import Progress, silent
from studio.staging import staged
from studio.workspace import Workspace

FOLDER = "measures"
_HASH_LETTERS = 12
_LONGEST_NAME = 60

Outcome = Literal["answered", "retried", "unanswered", "too long"]
"""How an answer came: at once, by a prefilled continuation, not at all, or never asked, the prompt being too long."""
TOO_LONG: Literal["too long"] = "too long"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRecord(_Record):
    """The model file that was measured."""

    name: str
    path: str
    """From the workspace where it lies there; else absolute."""
    bytes: int = Field(ge=0)
    sha256: str
    """Of the file; of a split one over the list of its parts (see `Reference.content_hash`)."""


class Value(_Record):
    """One number of a result, with the interval that holds it where there is one."""

    value: float | None
    """None where nothing could be measured, and for what is not finite."""
    low: float | None = None
    high: float | None = None
    unit: Literal["share", "count", "nats", "perplexity", "ratio", "seconds", "number"] = "number"
    """A share is 0 to 1, and shown in percent."""
    better: Literal["higher", "lower", ""] = ""

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, number: float | None) -> float | None:
        """JSON has no NaN and no infinity."""
        return number if number is not None and isfinite(number) else None


class Answer(_Record):
    """One question, and what the model made of it."""

    id: str
    category: str
    right: bool
    outcome: Outcome
    expected: str
    given: str | None = None
    """What was read out of the text; None where nothing could be."""
    text: str = ""
    thought: str = ""
    retry: str = ""
    """The continuation of an empty or truncated answer, its prefilled start included."""
    tokens: int = 0


class Result(_Record):
    """What `model` scored. Two results are comparable when their `ground` is the same."""

    version: Literal[1] = 1
    kind: str
    """`task`, `harness`, `divergence` …"""
    name: str
    """Of the task or text, for a person."""
    model: ModelRecord
    reference: ModelRecord | None = None
    """What `model` was measured against, where the measure itself needs it (a divergence)."""
    configuration: dict[str, JsonValue]
    """How it was measured: locked, named, the same for all models compared."""
    inputs: dict[str, JsonValue]
    """What it was measured on: file and sha256, the subset's seed and size."""
    values: dict[str, Value]
    """Measure → number; the first is the one that sums the result up."""
    answers: tuple[Answer, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """What else is worth keeping, and says nothing about comparability."""

    @property
    def ground(self) -> str:
        """Hash of all that has to be equal before two results may be compared."""
        return ground_of(self.kind, self.name, self.configuration, self.inputs, self.reference)

    @property
    def file_name(self) -> str:
        return file_name(self.kind, self.name, self.ground, self.model.sha256)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result; `FormatError` says which field is wrong."""
        try:
            status = path.stat()
            return _read(path, (status.st_mtime_ns, status.st_size))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error

    def write(self, folder: Path, *, overwrite: bool = False) -> Path:
        """Write into `folder` under `file_name`; `OutputExistsError` when that was measured already."""
        path = folder / self.file_name
        with staged(path, overwrite=overwrite) as partial:
            text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8")
        return path


def ground_of(
    kind: str, name: str, configuration: dict[str, Any], inputs: dict[str, Any], reference: ModelRecord | None = None
) -> str:
    """See `Result.ground`."""
    against = reference.sha256 if reference else None
    return _sha256([kind, name, configuration, inputs, against])


def file_name(kind: str, name: str, ground: str, model_sha256: str) -> str:
    """What the result of a measure of a model is called, known before it is measured."""
    short = _sha256([ground, model_sha256])[:_HASH_LETTERS]
    return f"{kind}-{_slug(name)}-{short}.json"


def model_record(
    path: Path, workspace: Workspace, progress: Progress = silent, *, name: str | None = None
) -> ModelRecord:
    """The record of the GGUF at `path`, all its parts hashed (remembered in the workspace's cache).

    `name` is what people call it, where that is not the file's name: of a reference that was converted for this.

    Raises `InputError` when there is no such file, `FormatError` when it is no GGUF.
    """
    from studio.checkpoints.digests import digest_file

    if not path.is_file():
        raise InputError(f"There is no model file {path}.", "Name a GGUF file.")
    header = read_header(path)
    files = {part.path.name: part.path.resolve() for part in header.parts}
    digests: dict[str, str] = {}
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        progress(done, header.file_bytes, "bytes", f"Reading {path.name} for its hash")

    for part, file in files.items():
        digests[part] = digest_file(file, workspace.cache / "digests", read)
    listing = "".join(f"{digest}  {part}\n" for part, digest in sorted(digests.items()))
    sha256 = next(iter(digests.values())) if len(digests) == 1 else hashlib.sha256(listing.encode()).hexdigest()
    resolved = path.resolve()
    inside = resolved.is_relative_to(workspace.root)
    shown = resolved.relative_to(workspace.root).as_posix() if inside else str(resolved)
    return ModelRecord(name=name or path.name, path=shown, bytes=header.file_bytes, sha256=sha256)


def folder_of(model: Path, workspace: Workspace) -> Path:
    """Where results about the model file at `model` live: with its artifact, or in the workspace's own room."""
    resolved = model.resolve()
    if resolved.is_relative_to(workspace.artifacts) and resolved.parent != workspace.artifacts:
        return workspace.artifacts / resolved.relative_to(workspace.artifacts).parts[0] / FOLDER
    return workspace.measures


def find(model: Path, name: str, workspace: Workspace) -> Result | None:
    """The result called `name` (see `file_name`) about `model`; None while it has not been measured."""
    path = folder_of(model, workspace) / name
    return Result.read(path) if path.is_file() else None


def result_files(workspace: Workspace) -> Iterator[Path]:
    """All results of the workspace, those of its own room first."""
    yield from sorted(workspace.measures.glob("*.json"))
    yield from sorted(workspace.artifacts.glob(f"*/{FOLDER}/*.json"))


def read_results(workspace: Workspace) -> tuple[list[Result], list[InputError]]:
    """Every result that can be read, and what is wrong with the others: one damaged file hides nothing else."""
    results: list[Result] = []
    damaged: list[InputError] = []
    for path in result_files(workspace):
        try:
            results.append(Result.read(path))
        except InputError as error:
            damaged.append(error)
    return results, damaged


def require_same_ground(reference: Result, candidate: Result) -> None:
    """Raise `MismatchError`, which names what differs, unless the two may be compared."""
    if reference.ground == candidate.ground:
        return
    differing = _differing(reference, candidate)
    raise MismatchError(
        f"{candidate.model.name} and {reference.model.name} were not measured alike: {'; '.join(differing)}.",
        "Measure both with the same configuration on the same questions.",
    )


def different_versions(reference: Result, candidate: Result) -> str:
    """A sentence where two results that may be compared were measured with different programs, else nothing."""
    before, after = reference.versions, candidate.versions
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    changes = ", ".join(f"{name} {before.get(name, 'none')} and {after.get(name, 'none')}" for name in names)
    return f"They were measured with different versions: {changes}. Measure both again to be sure." if names else ""


def _differing(reference: Result, candidate: Result) -> Sequence[str]:
    before, after = _flat(reference), _flat(candidate)
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    hashes = ("sha256", "hash")
    plain = [key for key in keys if not key.endswith(hashes)]  # where names differ, their hashes say nothing more
    return [f"{key} is {_shown(after.get(key))}, and was {_shown(before.get(key))}" for key in plain or keys]


def _flat(result: Result) -> dict[str, Any]:
    against = result.reference.sha256 if result.reference else None
    found: dict[str, Any] = {"kind": result.kind, "name": result.name, "reference sha256": against}
    for prefix, fields in (("", result.inputs), ("", result.configuration)):
        for key, value in fields.items():
            if isinstance(value, dict):
                found |= {f"{prefix}{key}.{name}": one for name, one in value.items()}
            else:
                found[f"{prefix}{key}"] = value
    return found


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:_LONGEST_NAME] or "unnamed"


def _sha256(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=256)  # a page asks for the whole table again and again
def _read(path: Path, _signature: tuple[int, int]) -> Result:
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise FormatError(path, place, first["msg"], "Is it a result? Measure again to replace it.") from None
