"""`Reference`: the model that everything starts from, known from its headers alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from studio.checkpoints.digests import digest_file, is_known
from studio.checkpoints.gguf_header import GgufHeader, read_header
from studio.checkpoints.model_folder import ModelFolder, open_model_folder
from studio.errors import InputError
from studio.families import MoeShape, family_named, shape_of_config, shape_of_gguf
from studio.progress import Progress, silent


@dataclass(frozen=True)
class Reference:
    """A model on disk, in either format."""

    path: Path
    kind: Literal["safetensors", "gguf"]
    name: str
    """What people call it: the Hub's owner/name where the path tells it, else the name of the folder or file."""
    shape: MoeShape
    config: Mapping[str, Any] = field(repr=False)
    """`config.json`, or the key–value pairs of the GGUF header."""
    bytes: int
    """Size of the weights on disk."""
    parameters: int
    expert_parameters: int
    """Those in tensors with an expert axis: the part of `parameters` that pruning makes smaller."""
    files: Mapping[str, Path] = field(repr=False)
    """Relative name → file of all that makes the model."""

    def parameters_with(self, kept_experts: int) -> int:
        """Parameters left when every layer keeps `kept_experts`."""
        return self.parameters - self.expert_parameters // self.shape.experts * (self.shape.experts - kept_experts)

    @property
    def hashed_bytes(self) -> int:
        """Bytes that `content_hash` reads."""
        return sum(file.stat().st_size for file in self.files.values())

    def hash_is_known(self, cache: Path) -> bool:
        """Whether `content_hash` answers at once, as it does when nothing changed since it was last asked."""
        return all(is_known(file, cache) for file in self.files.values())

    def content_hash(self, progress: Progress = silent, cache: Path | None = None) -> str:
        """sha256 over the contents of all files of the model, whatever folder it lies in.

        Of a GGUF it is the digest of the file; of several files the digest of the sorted list of names and digests.
        `cache` is a folder that remembers digests between processes.
        """
        digests = self.file_hashes(progress, cache)
        if self.kind == "gguf" and len(digests) == 1:
            return next(iter(digests.values()))
        listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()

    def file_hashes(self, progress: Progress = silent, cache: Path | None = None) -> dict[str, str]:
        """Relative name → sha256 of each file; free of charge after `content_hash`."""
        total, done = self.hashed_bytes, 0

        def read(name: str, count: int) -> None:
            nonlocal done
            done += count
            progress(done, total, "bytes", f"Reading {name} for its hash")

        return {name: digest_file(file, cache, partial(read, name)) for name, file in self.files.items()}

    @property
    def revision(self) -> str | None:
        """The commit on the Hub, where the model lies in the Hub's cache: models--OWNER--NAME/snapshots/REVISION."""
        folder = self.path if self.kind == "safetensors" else self.path.parent  # the file is a link to elsewhere
        parts = folder.resolve().parts
        known = len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--")
        return parts[-1] if known else None


def open_reference(path: Path) -> Reference:
    """Open a folder with a safetensors checkpoint, or a GGUF file, without reading weights.

    Raises `InputError` when nothing there is a model, `FormatError` for damaged files, `UnsupportedError` for an
    unknown architecture.
    """
    path = Path(path)
    if path.is_dir():
        return reference_of_folder(open_model_folder(path))
    if path.is_file():
        return reference_of_gguf(read_header(path))
    raise InputError(f"{path} does not exist.", "Name the folder of a safetensors checkpoint, or a GGUF file.")


def reference_of_folder(folder: ModelFolder) -> Reference:
    """The reference that an opened checkpoint is."""
    with _said_of(folder.path):
        shape = shape_of_config(folder.config)
    family = family_named(shape.family)
    tensors = [tensor for header in folder.shards.values() for tensor in header.tensors]
    return Reference(
        path=folder.path,
        kind="safetensors",
        name=_hub_name(folder.path) or folder.path.resolve().name,
        shape=shape,
        config=folder.config,
        bytes=sum(header.path.stat().st_size for header in folder.shards.values()),
        parameters=sum(tensor.elements for tensor in tensors),
        expert_parameters=sum(tensor.elements for tensor in tensors if family.place(tensor.name)),
        files=folder.files,
    )


def reference_of_gguf(header: GgufHeader) -> Reference:
    """The reference that an opened GGUF is."""
    with _said_of(header.path):
        shape = shape_of_gguf(header.values)
    family = family_named(shape.family)
    return Reference(
        path=header.path,
        kind="gguf",
        name=header.path.name,
        shape=shape,
        config=header.values,
        bytes=header.file_bytes,
        parameters=sum(tensor.elements for tensor in header.tensors),
        expert_parameters=sum(
            tensor.elements for tensor in header.tensors if family.gguf_layer(tensor.name) is not None
        ),
        files={part.path.name: part.path.resolve() for part in header.parts},
    )


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Whatever is wrong with the shape that a model describes is said of the model at `path`."""
    try:
        yield
    except InputError as error:
        raise error.said_of(path) from None


def _hub_name(path: Path) -> str | None:
    """owner/name when `path` is a snapshot in a Hub cache: models--OWNER--NAME/snapshots/REVISION."""
    parts = path.resolve().parts
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return None
