"""From a reference and a drop map to a folder of files with their story: what builds and replays of builds do."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from studio.checkpoints.convert import PACKAGES as CONVERTER_PACKAGES
from studio.checkpoints.convert import cached_gguf
from studio.checkpoints.digests import digest_file
from studio.checkpoints.gguf_header import GgufHeader
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.prune_gguf import prune_gguf
from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.checkpoints.reference import Reference
from studio.contributions.model import Contributions
from studio.jobs.needs import CONVERTED_BYTES, pruned_bytes
from studio.jobs.steps import Steps
from studio.progress import Progress
from studio.publish import manifest
from studio.publish.licence import legal_files, licences_of
from studio.publish.manifest import (
    BuildRecord,
    FileRecord,
    ImatrixRecord,
    Manifest,
    ReferenceRecord,
    map_record,
    versions_of,
)
from studio.quantize import ggml
from studio.quantize.custom import tier_from_json
from studio.quantize.dynamic import ranking_of_contributions, ranking_of_imatrix
from studio.quantize.imatrix import Imatrix
from studio.quantize.imatrix_file import read_imatrix
from studio.quantize.plan import TensorPlan, make_plan
from studio.quantize.tiers import Tier, tier_named
from studio.quantize.writer import Options, fitting_imatrix, kept_experts, quantize
from studio.recipes.dropmap import DropMap
from studio.recipes.preview import preview
from studio.staging import staged
from studio.steady import steady

_SHARE_DIGITS = 6  # so that a sum in another order gives the same text


@dataclass(frozen=True)
class Inputs:
    """What the parameters of a build name, opened; and how many bytes of work that is."""

    reference: Reference
    drop: DropMap
    provenance: dict[str, Any]
    """As `studio.publish.manifest.describe` takes it, without the reference's hash."""
    name: str
    """Of the GGUF files."""
    outputs: tuple[Literal["safetensors", "gguf"], ...]
    tier_texts: tuple[str, ...] = ()
    """Names of known tiers, and the JSON of a person's own."""
    imatrix_path: Path | None = None
    contributions: Contributions | None = None
    ranking_given: tuple[int, ...] | None = None
    """Layers as a manifest ranks them, where the analysis that ranked them is not at hand."""
    shares_given: dict[str, float] | None = None
    """The same of what a manifest says of classes."""
    split_bytes: int | None = None
    requantize: bool = False
    zero_nonfinite: bool = False

    @cached_property
    def tiers(self) -> tuple[Tier, ...]:
        return tiers_of(self.tier_texts)

    @cached_property
    def imatrix(self) -> Imatrix | None:
        """The importance matrix, cut to the kept experts."""
        if self.imatrix_path is None:
            return None
        return fitting_imatrix(self.imatrix_path, self.outline, kept_experts(self.outline, self.drop))

    @property
    def imatrix_record(self) -> ImatrixRecord | None:
        """The importance matrix as the manifest tells it."""
        if self.imatrix_path is None:
            return None
        return ImatrixRecord(name=self.imatrix_path.name, sha256=read_imatrix(self.imatrix_path).content_hash)

    @cached_property
    def ranking(self) -> tuple[int, ...] | None:
        """Layers, the most important first, as far as that is known."""
        if self.ranking_given is not None:
            return self.ranking_given
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

    @cached_property
    def class_shares(self) -> dict[str, float]:
        """Class → share of its contribution that the kept experts make; empty where there is no analysis."""
        if self.shares_given is not None:
            return self.shares_given
        if self.contributions is None:
            return {}
        shares = preview(self.contributions, self.drop).share_kept_per_class
        return {name: round(share, _SHARE_DIGITS) for name, share in shares.items()}

    @property
    def build_record(self) -> BuildRecord:
        """All that was chosen beside map, tiers and importance matrix."""
        return BuildRecord(
            name=self.name,
            outputs=self.outputs,
            ranking=self.ranking if any(tier.layers for tier in self.tiers) else None,
            split_bytes=self.split_bytes,
            requantize=self.requantize,
            zero_nonfinite=self.zero_nonfinite,
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of the tools that the outputs go through."""
        versions: dict[str, str] = {}
        if self.converts:
            versions |= versions_of(*CONVERTER_PACKAGES)
        if "gguf" in self.outputs:
            versions |= versions_of("gguf")
        if self.tiers:
            versions |= ggml.versions() | versions_of("numpy")
        return versions


def make(inputs: Inputs, folder: Path, cache: Path, progress: Progress, *, overwrite: bool = False) -> list[FileRecord]:
    """Make `folder`: the outputs of `inputs` and a manifest; gives the files beside the manifest.

    The folder appears when everything in it is complete. Killed and called again, it goes on where it was. `cache`
    keeps converted references and digests. Raises what the steps raise, and `InputError` where the reference changes
    meanwhile.
    """
    reference, drop = inputs.reference, inputs.drop
    with steady(reference.files.values()) as require_steady:
        steps = Steps(progress, inputs.work)
        hashing = steps.step(reference.hashed_bytes, f"Reading {reference.name}")
        digest = reference.content_hash(hashing, cache / "digests")
        provenance = {**inputs.provenance, "base_model": reference.name, "reference_hash": digest}

        source = reference.path if reference.kind == "gguf" else None
        if inputs.converts:
            converting = steps.step(inputs.converted, "Converting, once for this reference")
            source = cached_gguf(reference.path, cache, digest=digest, progress=converting)

        story = _story(inputs, digest, cache)
        key = hashlib.sha256(story.to_json().encode()).hexdigest()[:16]
        with staged(folder, overwrite=overwrite, needed_bytes=inputs.made, resume=key) as partial:
            if "safetensors" in inputs.outputs:
                pruning = steps.step(inputs.pruned, "Pruning safetensors")
                out = partial / "safetensors"
                if not out.exists():  # it stands when it is complete
                    prune_safetensors(reference.path, drop, out, progress=pruning, provenance=provenance)
            if source is not None:
                making = steps.step(inputs.read, "Quantizing" if inputs.tiers else "Pruning")
                _make_gguf(source, partial, inputs, story, provenance, progress=making)
            files = _hash_files(partial, steps.step(inputs.made, "Hashing"))
            story.model_copy(update={"files": tuple(files)}).write(partial / manifest.FILE_NAME)
            require_steady()
    return files


def _story(inputs: Inputs, digest: str, cache: Path) -> Manifest:
    """The manifest, but for the files."""
    reference, drop = inputs.reference, inputs.drop
    licences = licences_of(reference)
    record = ReferenceRecord(
        name=reference.name,
        sha256=digest,
        revision=reference.revision,
        files=reference.file_hashes(cache=cache / "digests"),
        licenses=licences.names,
        licenses_from=licences.places,
        license_link=licences.link,
        family=reference.shape.family,
        parameters=reference.parameters,
    )
    story = manifest.describe(
        record,
        drop,
        provenance=inputs.provenance,
        tiers=inputs.tier_texts,
        imatrix=inputs.imatrix_record,
        build=inputs.build_record,
        versions=inputs.versions,
    )
    more = {"parameters": reference.parameters_with(drop.kept_count), "class_shares": inputs.class_shares}
    return story.model_copy(update={"map": map_record(drop).model_copy(update=more)})


def _make_gguf(
    source: Path,
    partial: Path,
    inputs: Inputs,
    story: Manifest,
    provenance: dict[str, Any],
    *,
    progress: Progress,
) -> None:
    """Make `partial/gguf`, unless a process that was killed had made it: it stands when it is complete."""
    finished, folder = partial / "gguf", partial.with_name(".gguf")
    if finished.exists():
        return
    if inputs.tiers:
        options = Options(
            imatrix=inputs.imatrix_path,
            ranking=inputs.ranking,
            split_bytes=inputs.split_bytes,
            requantize=inputs.requantize,
            zero_nonfinite=inputs.zero_nonfinite,
            overwrite=True,
        )
        quantize(
            source,
            inputs.tiers,
            folder,
            drop=inputs.drop,
            name=inputs.name,
            options=options,
            progress=progress,
            provenance={"manifest": story.to_json()},
        )
    else:
        out = folder / f"{inputs.name}.gguf"
        prune_gguf(source, inputs.drop, out, overwrite=True, progress=progress, provenance=provenance)
    for name, file in legal_files(inputs.reference).items():  # a repository of these files needs them too
        shutil.copyfile(file, folder / name)
    folder.rename(finished)


def tiers_of(texts: Sequence[str]) -> tuple[Tier, ...]:
    """The tiers that are named or described in `texts`."""
    return tuple(tier_from_json(text) if text.lstrip().startswith("{") else tier_named(text) for text in texts)


def _hash_files(folder: Path, progress: Progress) -> list[FileRecord]:
    """All files in `folder`, but for the manifest that a process may have written there before it was killed."""
    told = folder / manifest.FILE_NAME
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != told)
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
