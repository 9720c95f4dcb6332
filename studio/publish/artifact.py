"""A finished file set as publishing sees it: its manifest, and its GGUF files with their tiers."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.errors import InputError
from studio.evaluate.results import FOLDER
from studio.publish.manifest import FILE_NAME, Manifest
from studio.publish.verify import inside, manifest_path, records_of
from studio.staging import staged

Format = Literal["safetensors", "gguf"]

_PART = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class GgufFile:
    """A model in one tier: one file, or the parts of a split one."""

    tier: str
    """Empty for a GGUF that was pruned in the types that it had."""
    names: tuple[str, ...]
    """From the artifact's folder; the first part comes first."""
    path: Path
    """Of the first part."""
    bytes: int

    @cached_property
    def header(self) -> GgufHeader:
        return read_header(self.path)

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.header.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Of all weights, as llama.cpp tells it: the header does not count."""
        return 8 * sum(tensor.size for tensor in self.header.tensors) / self.parameters

    @property
    def types(self) -> dict[str, int]:
        """Type → bytes of tensors in it, the largest first."""
        found: Counter[str] = Counter()
        for tensor in self.header.tensors:
            found[tensor.type.name] += tensor.size
        return dict(found.most_common())


@dataclass(frozen=True)
class Artifact:
    """A folder with a manifest."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.build.name if self.manifest.build else self.folder.name

    @property
    def formats(self) -> tuple[Format, ...]:
        """What was built; nothing where its manifest tells of no build."""
        return self.manifest.build.outputs if self.manifest.build else ()

    @cached_property
    def ggufs(self) -> tuple[GgufFile, ...]:
        """The smallest first."""
        parts: dict[str, list[str]] = {}
        for record in self.manifest.files:
            if record.name.endswith(".gguf"):
                parts.setdefault(_PART.sub("", Path(record.name).stem), []).append(record.name)
        sizes = {record.name: record.bytes for record in self.manifest.files}
        files = [
            GgufFile(
                tier=self._tier(stem),
                names=tuple(sorted(names)),
                path=inside(self.folder, min(names)),
                bytes=sum(sizes[name] for name in names),
            )
            for stem, names in parts.items()
        ]
        return tuple(sorted(files, key=lambda file: (file.bytes, file.tier)))

    @property
    def safetensors(self) -> Path | None:
        """The folder of the pruned checkpoint, where there is one."""
        folder = self.folder / "safetensors"
        return folder if any(record.name.startswith("safetensors/") for record in self.manifest.files) else None

    def _tier(self, stem: str) -> str:
        """The tier of the file called `stem`: what follows the artifact's name."""
        rest = stem.removeprefix(self.name)
        return rest.removeprefix("-") if rest != stem else stem


def open_artifact(path: Path) -> Artifact:
    """The artifact in the folder `path`, or the one whose manifest `path` is.

    Raises `InputError` where there is no manifest or a file of it is missing, `FormatError` for a damaged one.
    """
    found = manifest_path(path)
    artifact = Artifact(found.parent, Manifest.read(found))
    for record in artifact.manifest.files:
        if not inside(artifact.folder, record.name).is_file():
            raise InputError(f"{artifact.folder} lacks {record.name}, which its manifest names.", "Build it again.")
    return artifact


def with_measures(artifact: Artifact) -> Artifact:
    """`artifact` with a manifest that names what has been measured until now; the same bytes give the same manifest."""
    measures = records_of(artifact.folder, (artifact.folder / FOLDER).glob("*.json"))
    return Artifact(artifact.folder, artifact.manifest.model_copy(update={"measures": tuple(measures)}))


def keep_measures(artifact: Artifact) -> Artifact:
    """`with_measures`, written into the artifact's manifest."""
    known = with_measures(artifact)
    if known.manifest != artifact.manifest:
        with staged(artifact.folder / FILE_NAME, overwrite=True) as partial:
            known.manifest.write(partial)
    return known


def tier_names(manifest: Manifest) -> tuple[str, ...]:
    """The names of the tiers, those of a person's own included."""
    return tuple(str(json.loads(text)["name"]) if text.lstrip().startswith("{") else text for text in manifest.tiers)
