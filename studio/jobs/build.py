"""The job that most people come for: from a reference and a drop map to a folder of files with their story."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from studio.checkpoints.convert import cached_gguf
from studio.checkpoints.digests import digest_file
from studio.checkpoints.gguf_header import GgufHeader
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.prune_gguf import prune_gguf
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.checkpoints.reference import Reference, open_reference
from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError
from studio.jobs.needs import CONVERTED_BYTES, pruned_bytes, require_memory
from studio.jobs.steps import Steps
from studio.jobs.task import Result, Task, check_new, input_path, reference_path, relative
from studio.progress import Progress
from studio.publish import manifest
from studio.publish.manifest import FileRecord, ImatrixRecord, Manifest, ReferenceRecord
from studio.quantize.custom import tier_from_json
from studio.quantize.dynamic import ranking_of_contributions, ranking_of_imatrix
from studio.quantize.imatrix import Imatrix
from studio.quantize.plan import TensorPlan, check_buildable, make_plan
from studio.quantize.tiers import Tier, tier_named
from studio.quantize.writer import Options, fitting_imatrix, kept_experts, quantize
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
from studio.staging import require_disk, staged
from studio.workspace import Workspace


class Build(Task):
    """Make `artifacts/NAME/`: a pruned safetensors checkpoint, GGUF files in chosen tiers, or both, and a manifest.

    The folder appears when everything in it is complete.
    """

    reference: str
    """See `reference_path`."""
    map: str
    """A published drop map: JSON text, or a path."""
    name: str
    """Of the folder and the files."""
    outputs: tuple[Literal["safetensors", "gguf"], ...] = Field(min_length=1)
    tiers: tuple[str, ...] = ()
    """Of the GGUF files: names, or the JSON of a person's own (see `studio.quantize.custom`). A GGUF reference without
    tiers is pruned as it is."""
    imatrix: str | None = None
    """Path of an importance matrix."""
    split_bytes: int | None = Field(default=None, gt=0)
    """The most weights in a GGUF file, where the models are to be split."""
    requantize: bool = False
    """Whether a GGUF reference may be quantized already."""
    zero_nonfinite: bool = False
    """Whether NaN and infinity in the weights become zeros, instead of being refused."""
    recipe: dict[str, Any] | str | None = None
    """The recipe that gave the map, for the manifest: JSON text, or what it parsed to."""
    contributions: str | None = None
    """Path of the contributions that the recipe was used on, for the manifest."""
    floor_contributions: str | None = None
    """Path of the second analysis, which the recipe's floors go by."""
    overwrite: bool = False

    def title(self) -> str:
        made = ["safetensors"] if "safetensors" in self.outputs else []
        if "gguf" in self.outputs:
            made += [one.name for one in _tiers(self.tiers)] or ["GGUF"]
        return f"Build {self.name}: {', '.join(made)}"

    def check(self, workspace: Workspace) -> None:
        """Raise for a wrong name, a map that does not fit, tiers or outputs that cannot be made, too little room."""
        check_new(workspace.artifacts, self.name, self.overwrite)
        inputs = self._open(workspace)
        reference = inputs.reference
        if reference.kind == "gguf" and "safetensors" in self.outputs:
            raise InputError(
                f"{reference.name} is a GGUF file, and cannot become a safetensors checkpoint.",
                "Choose GGUF outputs only, or open the safetensors reference.",
            )
        if inputs.converts and not inputs.tiers:
            raise InputError("GGUF files were asked for, but no tier.", "Choose at least one, for instance Q4_K_M.")
        if len({tier.name for tier in inputs.tiers}) < len(inputs.tiers):
            raise InputError(f"A tier is named twice: {', '.join(tier.name for tier in inputs.tiers)}.")
        for plan in inputs.plans:
            check_buildable(inputs.outline, plan, requantize=self.requantize)
        require_disk(workspace.artifacts, inputs.made + inputs.converted)
        require_memory(reference, inputs.converts)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        inputs = self._open(workspace)
        reference, drop, tiers = inputs.reference, inputs.drop, inputs.tiers
        steps = Steps(progress, inputs.work)
        hashing = steps.step(reference.hashed_bytes, f"Reading {reference.name}")
        digest = reference.content_hash(hashing, workspace.cache / "digests")
        record = ReferenceRecord(name=reference.name, sha256=digest)
        provenance = {**inputs.provenance, "base_model": reference.name, "reference_hash": digest}

        source = reference.path if reference.kind == "gguf" else None
        if inputs.converts:
            converting = steps.step(inputs.converted, "Converting, once for this reference")
            source = cached_gguf(reference.path, workspace.cache, digest=digest, progress=converting)

        folder = workspace.artifacts / self.name
        key = hashlib.sha256(f"{digest} {drop.content_hash} {self.model_dump_json()}".encode()).hexdigest()[:16]
        with staged(folder, overwrite=self.overwrite, needed_bytes=inputs.made, resume=key) as partial:
            if "safetensors" in self.outputs:
                pruning = steps.step(inputs.pruned, "Pruning safetensors")
                out = partial / "safetensors"
                if not out.exists():  # it stands when it is complete
                    prune_safetensors(reference.path, drop, out, progress=pruning, provenance=provenance)
            told = inputs.imatrix_record
            story = manifest.describe(record, drop, provenance=provenance, tiers=self.tiers, imatrix=told)
            if source is not None:
                making = steps.step(inputs.read, "Quantizing" if tiers else "Pruning")
                self._make_gguf(source, partial, inputs, story, provenance, progress=making)
            files = _hash_files(partial, steps.step(inputs.made, "Hashing"))
            story.model_copy(update={"files": tuple(files)}).write(partial / manifest.FILE_NAME)
        return {
            "folder": relative(workspace, folder),
            "manifest": relative(workspace, folder / manifest.FILE_NAME),
            "files": [
                {"path": relative(workspace, folder / file.name), "bytes": file.bytes, "sha256": file.sha256}
                for file in files
            ],
        }

    def _open(self, workspace: Workspace) -> Inputs:
        reference = open_reference(reference_path(workspace, self.reference))
        drop = read_map(workspace, self.map, reference)
        contributions, second = (
            None if path is None else import_analysis(input_path(workspace, path))
            for path in (self.contributions, self.floor_contributions)
        )
        provenance = {**drop.provenance, **self._story(contributions, second, drop)}
        return Inputs(
            reference,
            drop,
            provenance,
            outputs=self.outputs,
            tiers=_tiers(self.tiers),
            imatrix_path=None if self.imatrix is None else input_path(workspace, self.imatrix),
            contributions=contributions,
        )

    def _story(
        self, contributions: Contributions | None, second: Contributions | None, drop: DropMap
    ) -> dict[str, Any]:
        """Recipe and contributions as the manifest tells them; `MismatchError` when they do not give this map."""
        recipe = None if self.recipe is None else Recipe.from_json(self.recipe)
        story: dict[str, Any] = {}
        if recipe is not None:
            story |= {"recipe": recipe.to_json(), "recipe_hash": recipe.content_hash}
        if contributions is not None:
            if recipe is not None and make_map(contributions, recipe, second).content_hash != drop.content_hash:
                raise MismatchError(
                    "The recipe, applied to these contributions, gives another map than the one to build.",
                    "Build the recipe's own map, or leave recipe and contributions out.",
                )
            story["contributions_hash"] = contributions.content_hash
        if second is not None and recipe is not None and recipe.needs_second_analysis:
            story["floor_contributions_hash"] = second.content_hash
        return story

    def _make_gguf(
        self,
        source: Path,
        partial: Path,
        inputs: Inputs,
        story: Manifest,
        provenance: dict[str, Any],
        *,
        progress: Progress,
    ) -> None:
        """Make `partial/gguf`, unless a job that was killed had made it."""
        folder, finished = partial / "gguf", partial.with_name("gguf-finished")
        if finished.exists():
            return
        if self.tiers:
            options = Options(
                imatrix=inputs.imatrix_path,
                ranking=inputs.ranking,
                split_bytes=self.split_bytes,
                requantize=self.requantize,
                zero_nonfinite=self.zero_nonfinite,
                overwrite=True,
            )
            quantize(
                source,
                inputs.tiers,
                folder,
                drop=inputs.drop,
                name=self.name,
                options=options,
                progress=progress,
                provenance={"manifest": story.to_json()},
            )
        else:
            out = folder / f"{self.name}.gguf"
            prune_gguf(source, inputs.drop, out, overwrite=True, progress=progress, provenance=provenance)
        finished.touch()


@dataclass(frozen=True)
class Inputs:
    """What the parameters of a build name, opened; and how many bytes of work that is."""

    reference: Reference
    drop: DropMap
    provenance: dict[str, Any]
    """As `studio.publish.manifest.describe` takes it, without the reference's hash."""
    outputs: tuple[str, ...]
    tiers: tuple[Tier, ...]
    imatrix_path: Path | None
    contributions: Contributions | None

    @cached_property
    def imatrix(self) -> Imatrix | None:
        """The importance matrix, cut to the kept experts."""
        if self.imatrix_path is None:
            return None
        return fitting_imatrix(self.imatrix_path, self.outline, kept_experts(self.outline, self.drop))

    @property
    def imatrix_record(self) -> ImatrixRecord | None:
        """The importance matrix as the manifest tells it."""
        if self.imatrix is None or self.imatrix_path is None:
            return None
        return ImatrixRecord(name=self.imatrix_path.name, sha256=self.imatrix.content_hash)

    @cached_property
    def ranking(self) -> tuple[int, ...] | None:
        """Layers, the most important first, as far as that is known."""
        if self.contributions is not None:
            return ranking_of_contributions(self.contributions)
        return None if self.imatrix is None else ranking_of_imatrix(self.imatrix)

    @cached_property
    def plans(self) -> list[TensorPlan]:
        """What each tier makes of the pruned model."""
        known = None if self.imatrix is None else self.imatrix.entries.keys()
        kept = self.drop.kept_count
        return [
            make_plan(self.outline, tier, imatrix=known, kept_experts=kept, ranking=self.ranking) for tier in self.tiers
        ]

    @property
    def converts(self) -> bool:
        """Whether there is a step from safetensors to GGUF."""
        return "gguf" in self.outputs and self.reference.kind == "safetensors"

    @cached_property
    def outline(self) -> GgufHeader:
        """The GGUF header that the reference has, or will have when it is converted."""
        return outline(self.reference)

    @property
    def converted(self) -> int:
        """Bytes that the converter writes, if it has to."""
        return self.reference.parameters * CONVERTED_BYTES if self.converts else 0

    @cached_property
    def pruned(self) -> int:
        """Bytes of the pruned safetensors."""
        return pruned_bytes(self.reference, self.drop) if "safetensors" in self.outputs else 0

    @property
    def read(self) -> int:
        """Bytes of kept weights that the GGUF files are made from."""
        if "gguf" not in self.outputs:
            return 0
        kept = self.reference.parameters_with(self.drop.kept_count)
        return kept * CONVERTED_BYTES if self.converts else self.reference.bytes * kept // self.reference.parameters

    @property
    def made(self) -> int:
        """Bytes of all outputs, but for the vocabulary in GGUF files that are still to be converted."""
        if "gguf" not in self.outputs:
            return self.pruned
        pruned_as_it_is = 0 if self.tiers else self.read
        return self.pruned + pruned_as_it_is + sum(plan.file_bytes for plan in self.plans)

    @property
    def work(self) -> int:
        """Bytes that all steps together go through: hash, convert, prune, quantize, hash."""
        return self.reference.hashed_bytes + self.converted + self.pruned + self.read + self.made


def _tiers(texts: Sequence[str]) -> tuple[Tier, ...]:
    """The tiers that are named or described in `texts`."""
    return tuple(tier_from_json(text) if text.lstrip().startswith("{") else tier_named(text) for text in texts)


def read_map(workspace: Workspace, text: str, reference: Reference) -> DropMap:
    """The drop map in `text`, JSON or the path of a file with it; raises unless it fits `reference`."""
    if text.lstrip().startswith("{"):
        return DropMap.from_json(text, shape=reference.shape)
    path = input_path(workspace, text)
    return DropMap.from_json(path.read_bytes(), shape=reference.shape, name=path.name)


def _hash_files(folder: Path, progress: Progress) -> list[FileRecord]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path: path.stat().st_size for path in paths}
    total, done = sum(sizes.values()), 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return [
        FileRecord(name=path.relative_to(folder).as_posix(), bytes=sizes[path], sha256=digest_file(path, read=read))
        for path in paths
    ]
