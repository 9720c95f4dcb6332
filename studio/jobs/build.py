"""The job that most people come for: from a reference and a drop map to a folder of files with their story."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from studio.checkpoints.reference import Reference, open_reference
from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError
from studio.jobs.making import Inputs, make, tiers_of
from studio.jobs.needs import conversion_bytes, require_memory
from studio.jobs.task import Result, Task, check_new, input_path, reference_path, relative
from studio.progress import Progress
from studio.publish import manifest
from studio.quantize.plan import check_buildable
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
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
            made += [one.name for one in tiers_of(self.tiers)] or ["GGUF"]
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
        require_memory(reference, inputs.converts)

    def adds(self, workspace: Workspace) -> int:
        inputs = self._open(workspace)
        return inputs.made + (conversion_bytes(workspace, inputs.reference) if inputs.converts else 0)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        folder = workspace.artifacts / self.name
        files = make(self._open(workspace), folder, workspace.cache, progress, overwrite=self.overwrite)
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
            name=self.name,
            outputs=self.outputs,
            tier_texts=self.tiers,
            imatrix_path=None if self.imatrix is None else input_path(workspace, self.imatrix),
            contributions=contributions,
            split_bytes=self.split_bytes,
            requantize=self.requantize,
            zero_nonfinite=self.zero_nonfinite,
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


def read_map(workspace: Workspace, text: str, reference: Reference) -> DropMap:
    """The drop map in `text`, JSON or the path of a file with it; raises unless it fits `reference`."""
    if text.lstrip().startswith("{"):
        return DropMap.from_json(text, shape=reference.shape)
    path = input_path(workspace, text)
    return DropMap.from_json(path.read_bytes(), shape=reference.shape, name=path.name)
