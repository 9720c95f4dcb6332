"""Building again what a manifest tells of, and comparing the bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.checkpoints.convert import cached_path
from studio.checkpoints.digests import read_digest
from studio.checkpoints.reference import Reference, open_reference
from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError
from studio.jobs.making import Inputs, make
from studio.jobs.task import Result, Task, check_new, input_path, reference_path, references_called, relative
from studio.progress import Progress, silent
from studio.publish.differences import differing_layers, first_difference
from studio.publish.manifest import FILE_NAME, BuildRecord, FileRecord, Manifest
from studio.publish.repository import REPLACED
from studio.publish.verify import inside, manifest_path
from studio.quantize.imatrix_file import read_imatrix
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
from studio.staging import below, publish, resumable
from studio.workspace import Workspace

STORIES = "manifests"
"""The room of a workspace for what stays of builds that were removed: a folder for each."""


@dataclass(frozen=True)
class Sources:
    """Where the things lie that a manifest names by their hashes."""

    reference: Path
    imatrix: Path | None = None
    contributions: Path | None = None
    """With it the recipe makes the map again; without it the map is taken as the manifest tells it."""
    floor_contributions: Path | None = None


@dataclass(frozen=True)
class Replayed:
    """How a second build compares with the first."""

    same: int
    """Files that are equal, byte for byte: with those beside the manifest, and with what it says of them."""
    differences: tuple[str, ...]
    """A sentence for each that is not, the first difference in it named."""
    remarks: tuple[str, ...]
    """What else a person has to know: another map, other versions of tools."""
    compared: bool = True
    """Whether the first build's files lie beside the manifest; else only its hashes were there to compare with."""

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def says(self) -> str:
        """How many files are the same, in a sentence that says what they were compared with."""
        return same_in_words(self.same, len(self.differences), compared=self.compared)


def same_in_words(same: int, others: int, *, compared: bool) -> str:
    """How many files are the `same` in both builds, and how many are not."""
    if others:
        files = "1 file is" if same == 1 else f"{same} files are"
        return f"{files} the same, and {others} {'is' if others == 1 else 'are'} not:"
    files = "The file is" if same == 1 else f"All {same} files are"
    if compared:
        return f"{files} the same, byte for byte."
    return (
        f"{files} what the manifest says, by their hashes. The first build's files are not beside it, to be compared."
    )


def replay(
    manifest: Path,
    sources: Sources,
    cache: Path,
    *,
    out: Path | None = None,
    stories: Path | None = None,
    afresh: bool = False,
    progress: Progress = silent,
) -> Replayed:
    """Make the files of `manifest` again, from nothing but `sources`, and compare them with those beside it.

    The work is done in the folder `cache` and vanishes, unless `out` is to keep it, with the measures and the card that
    lie beside the manifest of a build that was removed (a folder in `stories`); where only the manifest is there
    and not its files, hashes are compared, and no place can be named. A reference that `cache` has as GGUF is converted
    again only `afresh`.

    Raises `MismatchError` where a source is not the one that was used, `InputError` for a manifest that does not say
    enough, and what building raises.
    """
    path = manifest_path(manifest)
    told = Manifest.read(path)
    build, remarks = _required(path, told), []
    reference = _same_reference(told, sources.reference, progress)
    contributions, second = _same_contributions(told, sources)
    drop, remark = _drop_map(path, told, reference, contributions, second)
    remarks += remark
    key = hashlib.sha256(f"{told.to_json()} {drop.content_hash}".encode()).hexdigest()[:16]
    name = out.name if out else f"replay of {build.name}"
    with resumable(out.parent if out else cache, name, key) as place:
        inputs = Inputs(
            reference,
            drop,
            _provenance(told),
            name=build.name,
            outputs=build.outputs,
            tier_texts=told.tiers,
            imatrix_path=_same_imatrix(told, sources.imatrix, place),
            contributions=contributions,
            ranking_given=build.ranking,
            shares_given=told.map.class_shares if contributions is None and told.map else None,
            split_bytes=build.split_bytes,
            requantize=build.requantize,
            zero_nonfinite=build.zero_nonfinite,
        )
        made = place / "made"
        if inputs.converts and not afresh and cached_path(told.reference.sha256, cache).exists():
            remarks.append("The reference's conversion to GGUF was not made again, but taken from the cache.")
        records = make(inputs, made, place if afresh else cache, progress, overwrite=True)
        again = Manifest.read(made / FILE_NAME)
        remarks += _other_versions(told.versions, again.versions)
        replayed = _compared(told, path.parent, records, made, remarks)
        if out:
            if path.parent.parent == stories:
                copy_others(path.parent, made, {record.name for record in told.files} | {path.name, FILE_NAME})
            publish(made, out)
    return replayed


def copy_others(folder: Path, target: Path, left_out: Collection[str]) -> None:
    """Copy all files of `folder` to the folder `target`, but for those that are `left_out`: names from `folder`."""
    for path in below(folder):
        name = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and name.as_posix() not in left_out:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)


class Replay(Task):
    """Make an artifact again from its manifest and compare the bytes; the result is in the job's record."""

    manifest: str
    """Of an artifact: `artifacts/NAME/espalier-manifest.json`."""
    reference: str | None = None
    """As builds take it; by default what the manifest calls it."""
    imatrix: str | None = None
    contributions: str | None = None
    floor_contributions: str | None = None
    afresh: bool = False
    """Whether the reference is converted again too."""
    name: str | None = None
    """Keep what was made, as `artifacts/NAME`."""

    def title(self) -> str:
        return f"Build {Path(self.manifest).parent.name} again and compare"

    def check(self, workspace: Workspace) -> None:
        if self.name is not None:
            check_new(workspace.artifacts, self.name, overwrite=False)
        path = input_path(workspace, self.manifest)
        _required(path, Manifest.read(path))
        self._sources(workspace)

    def adds(self, workspace: Workspace) -> int:
        """What the manifest's files have; it vanishes again where it gets no name."""
        return sum(file.bytes for file in Manifest.read(input_path(workspace, self.manifest)).files)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        path = input_path(workspace, self.manifest)
        out = workspace.artifacts / self.name if self.name else None
        sources = self._sources(workspace)
        stories = workspace.root / STORIES
        found = replay(path, sources, workspace.cache, out=out, stories=stories, afresh=self.afresh, progress=progress)
        return {
            "equal": found.equal,
            "same": found.same,
            "differences": list(found.differences),
            "remarks": list(found.remarks),
            "compared": found.compared,
            **({"folder": relative(workspace, out)} if out else {}),
        }

    def _sources(self, workspace: Workspace) -> Sources:
        told = Manifest.read(input_path(workspace, self.manifest))
        given = {name: getattr(self, name) for name in ("imatrix", "contributions", "floor_contributions")}
        paths = {name: input_path(workspace, text) for name, text in given.items() if text is not None}
        reference = None if self.reference is None else reference_path(workspace, self.reference)
        return found_sources(told, workspace, reference, **paths)


def found_sources(told: Manifest, workspace: Workspace, reference: Path | None, **given: Path) -> Sources:
    """What was `given`, and the rest as far as the workspace has it.

    Raises `InputError` where a reference or importance matrix is needed and not found.
    """
    if reference is None:
        reference = _reference_called(told.reference.name, workspace)
    if told.imatrix is not None and "imatrix" not in given:
        given["imatrix"] = _imatrix_of(told.imatrix.sha256, workspace)
    return Sources(reference, **given)


def _reference_called(name: str, workspace: Workspace) -> Path:
    for key in references_called(workspace, name):
        return reference_path(workspace, key)
    raise InputError(
        f"The reference {name} is neither in {workspace.references} nor in another folder of models.",
        "Say where it lies: --reference PATH.",
    )


def _imatrix_of(sha256: str, workspace: Workspace) -> Path:
    for path in sorted(workspace.imatrix.iterdir()):
        if path.is_file() and not path.name.startswith(".") and read_imatrix(path).content_hash == sha256:
            return path
    raise InputError(
        f"The importance matrix with sha256 {sha256} is not in {workspace.imatrix}.",
        "Say where it lies: --imatrix PATH.",
    )


def _required(path: Path, told: Manifest) -> BuildRecord:
    """The part about the build; `InputError` where that or the map is missing."""
    if told.build is None or told.map is None or not told.map.dropped:
        raise InputError(
            f"{path} does not tell what was dropped or how the files were made.",
            "Manifests of whole artifacts do; those inside a folder of weights tell only where these came from.",
        )
    return told.build


def _same_reference(told: Manifest, path: Path, progress: Progress) -> Reference:
    """The reference at `path`, called as the manifest calls it; `MismatchError` names the file that differs."""
    reference = open_reference(path)
    if reference.content_hash(progress) == told.reference.sha256:
        return replace(reference, name=told.reference.name)
    found, known = reference.file_hashes(), told.reference.files
    differing = [name for name in sorted({*found, *known}) if found.get(name) != known.get(name)] if known else []
    which = f" It differs in {', '.join(differing)}." if differing else ""
    raise MismatchError(f"{path} is not the {told.reference.name} that was used.{which}", "Give the same reference.")


def _same_contributions(told: Manifest, sources: Sources) -> tuple[Contributions | None, Contributions | None]:
    opened = []
    for path, wanted in (
        (sources.contributions, told.contributions),
        (sources.floor_contributions, told.floor_contributions),
    ):
        analysis = None if path is None else import_analysis(path)
        if analysis is not None and analysis.content_hash != wanted:
            raise MismatchError(f"{path} is not the analysis that was used.", f"Its hash would have to be {wanted}.")
        opened.append(analysis)
    return opened[0], opened[1]


def _same_imatrix(told: Manifest, path: Path | None, place: Path) -> Path | None:
    """The importance matrix under the name that it had: GGUF files tell it."""
    if told.imatrix is None:
        return None
    if path is None or read_imatrix(path).content_hash != told.imatrix.sha256:
        raise MismatchError(
            f"{path or 'Nothing'} is not the importance matrix {told.imatrix.name} that was used.",
            f"Its hash would have to be {told.imatrix.sha256}.",
        )
    named = place / "imatrix" / Path(told.imatrix.name).name
    named.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, named)
    os.utime(named, ns=(0, 0))  # so that what was half made with it can be gone on with
    return named


def _drop_map(
    path: Path, told: Manifest, reference: Reference, contributions: Contributions | None, second: Contributions | None
) -> tuple[DropMap, list[str]]:
    """The map that the recipe makes, else the one that the manifest tells; and what there is to say about it."""
    assert told.map is not None
    drop = DropMap.from_json(told.map.to_json(), shape=reference.shape, name=f"{path}, map")
    drop = replace(drop, provenance=told.map.provenance)
    if contributions is None or told.recipe is None:
        return drop, [] if told.recipe is None else ["The map was taken as recorded: its analysis was not given."]
    made = make_map(contributions, Recipe.from_json(told.recipe), second)
    if made.content_hash == told.map.sha256:
        return drop, ["The recipe gives the recorded map again."]
    first = next(differing_layers(told.map.to_json(), made.to_json()), "its grid is another")
    made = replace(made, provenance=told.map.provenance)
    return made, [f"The recipe gives another map than the recorded one: {first}."]


def _provenance(told: Manifest) -> dict[str, Any]:
    """Recipe and contributions in the form in which builds pass them on."""
    recipe = Recipe.from_json(told.recipe) if told.recipe else None
    known = {
        "recipe": recipe and recipe.to_json(),
        "recipe_hash": recipe and recipe.content_hash,
        "contributions_hash": told.contributions,
        "floor_contributions_hash": told.floor_contributions,
    }
    return {key: value for key, value in known.items() if value is not None}


def _other_versions(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{name} was {before.get(name, 'absent')} and is {after.get(name, 'absent')} here."
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _compared(told: Manifest, folder: Path, records: list[FileRecord], made: Path, remarks: list[str]) -> Replayed:
    """The files that `told` names, those of them that lie in `folder`, and those that were `made`.

    Where none lies there, hashes are compared; where some do, one that is missing is a difference.
    """
    prefix = f"{told.part}/" if told.part else ""
    found = {
        record.name.removeprefix(prefix): record
        for record in records
        if record.name.startswith(prefix) and not (told.part and record.name.removeprefix(prefix) in REPLACED)
    }
    beside = {record.name: inside(folder, record.name, links=True) for record in told.files}
    is_here = any(path.is_file() for path in beside.values())
    differences = []
    for record in told.files:
        other = found.pop(record.name, None)
        if other is None:
            differences.append(f"{record.name} was not made again.")
        elif problem := _difference(record, beside[record.name], other, made / (prefix + record.name), is_here):
            differences.append(problem)
    same = len(told.files) - len(differences)
    differences += [f"{name} was made, and the manifest does not name it." for name in found]
    return Replayed(same, tuple(differences), tuple(remarks), is_here)


def _difference(record: FileRecord, before: Path, other: FileRecord, after: Path, is_here: bool) -> str | None:
    """How the file `after` differs from the one that the manifest tells and from `before`; None where it is both."""
    as_told = other.sha256 == record.sha256
    if not before.is_file():
        if as_told:
            return f"{record.name} was made as the manifest says, and is missing beside it." if is_here else None
        lengths = "" if other.bytes == record.bytes else f" of {other.bytes:,} bytes instead of {record.bytes:,}"
        return f"{record.name} became another file{lengths}; where, only the first one could tell, and it is not here."
    is_whole = before.stat().st_size == record.bytes and read_digest(before) == record.sha256
    if as_told and is_whole:
        return None
    if not as_told and not is_whole:
        return f"{record.name} became another file, and the one beside the manifest is not what it was: verify it."
    found = first_difference(record.name, before, after)
    if found is None:
        return f"{record.name} is the same now, and was not while it was read: something is writing to it."
    damaged = " It was made as the manifest says: the one beside the manifest is damaged." if as_told else ""
    return f"{found}{damaged}"
