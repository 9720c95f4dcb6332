"""Does a finished file set still hold the bytes that its manifest promises?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studio.checkpoints.digests import read_digest
from studio.errors import FormatError, InputError
from studio.progress import Progress, Tally, silent
from studio.publish.manifest import FILE_NAME, FileRecord, Manifest


@dataclass(frozen=True)
class Verification:
    """What became of the files that a manifest names."""

    manifest: Path
    files: int
    """How many it names."""
    bytes: int
    """How many bytes they are to have."""
    problems: tuple[str, ...]
    """A sentence for each file that is not what it was; none where all is well."""
    strangers: tuple[str, ...]
    """Files in the folder that the manifest does not name: nothing is known of them."""
    beside: tuple[str, ...] = ()
    """Those that it does not name because they may change: cards, pictures, Modelfiles, measures since."""


_BESIDE = re.compile(r"README[^/]*\.md|(pictures|ollama|measures)/[^/]+|template|params")


def manifest_path(path: Path) -> Path:
    """The manifest at `path`: that file itself, or the one in that folder; `InputError` where there is none."""
    found = path / FILE_NAME if path.is_dir() else path
    if not found.is_file():
        raise InputError(f"There is no manifest at {found}.", f"Name a folder that has an {FILE_NAME}.")
    return found


def verify(path: Path, progress: Progress = silent) -> Verification:
    """Read every file that the manifest at `path` (or in that folder) names, and compare sizes and hashes.

    Nothing remembered is believed: the bytes are read from the disk. Raises `InputError` where there is no manifest
    or it names no files, `FormatError` for a damaged one.
    """
    told = manifest_path(path)
    manifest, folder = Manifest.read(told), told.parent
    records = [*manifest.files, *manifest.measures]
    if not records:
        raise InputError(
            f"{told} names no files, and nothing can be verified by it.",
            "Manifests of whole artifacts do; those inside a folder of weights tell only where these came from.",
        )
    tally = Tally(progress, sum(record.bytes for record in records))
    problems = [problem for record in records if (problem := _problem(folder, record, tally))]
    named = {record.name for record in records} | {told.name}
    present = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    others = sorted(set(present) - named)
    beside = tuple(name for name in others if _BESIDE.fullmatch(name))
    strangers = tuple(name for name in others if name not in beside)
    size = sum(record.bytes for record in records)
    return Verification(told, len(records), size, tuple(problems), strangers, beside)


def inside(folder: Path, name: str, *, links: bool = False) -> Path:
    """The file that a manifest in `folder` calls `name`; `FormatError` for one that lies elsewhere.

    `links` says whether links to elsewhere may be followed, as they lie in the Hub's cache: where bytes are only
    compared, and go nowhere.
    """
    path = folder / name
    elsewhere = Path(name).is_absolute() or ".." in Path(name).parts
    if elsewhere or not (links or path.resolve().is_relative_to(folder.resolve())):
        raise FormatError(folder / FILE_NAME, "files", f"{name!r} lies outside the folder of the manifest")
    return path


def _problem(folder: Path, record: FileRecord, tally: Tally) -> str | None:
    path = inside(folder, record.name, links=True)
    if not path.is_file():
        tally.advance(record.bytes, record.name)
        return f"{record.name} is missing."
    found = path.stat().st_size
    if found != record.bytes:
        tally.advance(record.bytes, record.name)
        return f"{record.name} has {found:,} bytes, and the manifest says {record.bytes:,}."
    digest = read_digest(path, lambda count: tally.advance(count, record.name))
    if digest != record.sha256:
        return f"{record.name} has other contents: sha256 {digest}, and the manifest says {record.sha256}."
    return None


def records_of(folder: Path, paths: Iterable[Path]) -> list[FileRecord]:
    """The records of `paths` in `folder`, as they are on the disk now, sorted by name."""
    return [
        FileRecord(name=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=read_digest(path))
        for path in sorted(paths)
    ]
