"""The job that measures a pruned model before it is built, on the reference with its experts masked."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from studio.checkpoints.reference import open_reference
from studio.contributions.calibration import Calibration
from studio.contributions.importers import import_analysis
from studio.contributions.measuring import require_dtype
from studio.contributions.model import Contributions
from studio.contributions.sources import is_remote
from studio.evaluate.held_out import MAX_TOKENS, PER_CLASS, held_out, overlap, own_prompts
from studio.evaluate.virtual import Ruler, VirtualModel
from studio.jobs.build import read_map
from studio.jobs.needs import require_safetensors
from studio.jobs.prompts import PromptedTask
from studio.jobs.task import Result, input_path, reference_path
from studio.progress import Progress
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
from studio.workspace import Workspace


class Measure(PromptedTask):
    """Measure a drop map against its reference on held-out prompts; makes no file, the result is in the job's record.

    The map is given as it is, or by the contributions and the recipe that make it. Without prompts it
    goes by `own_prompts`.
    """

    reference: str
    map: str | None = None
    """A published drop map: JSON text, or a path."""
    contributions: str | None = None
    """Path of an analysis; beside a map, it tells whether the prompts are held out from it."""
    recipe: dict[str, Any] | str | None = None
    per_class: int | None = Field(default=PER_CLASS, ge=1)
    max_tokens: int = Field(default=MAX_TOKENS, ge=1)
    thinking: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32", "nf4"] = "auto"

    @model_validator(mode="after")
    def _one_map(self) -> Self:
        if (self.map is None) == (self.recipe is None):
            raise ValueError("exactly one of map and recipe is needed")
        if self.recipe is not None and self.contributions is None:
            raise ValueError("a recipe needs the contributions that it is used on")
        return self

    def title(self) -> str:
        return f"Measure a map of {self.reference}"

    def check(self, workspace: Workspace) -> None:
        require_safetensors(workspace, self.reference, "measured before it is built")
        shape = open_reference(reference_path(workspace, self.reference)).shape
        require_dtype(self.dtype, shape)
        self.drop_map(workspace).check(shape)
        if not any(is_remote(source) for source in self.prompts):  # fetching is work
            self.calibration(workspace)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        model = reference_path(workspace, self.reference)
        calibration, drop = self.calibration(workspace), self.drop_map(workspace)
        progress(0, len(calibration.prompts), "prompts", "loading the reference")
        virtual = VirtualModel.load(model, self.dtype)
        prompts = held_out(virtual.tokenizer, calibration, max_tokens=self.max_tokens, thinking=self.thinking)
        found = Ruler(virtual, prompts, workspace.cache / "logits").measure(drop, progress)
        contributions = self._contributions(workspace)
        warning = "" if contributions is None else overlap(contributions, calibration)
        return {**found.to_json(), "dropped": drop.dropped_count, "warning": warning}

    def calibration(self, workspace: Workspace) -> Calibration:
        """The prompts that are measured on; raises what `prompts_in` raises."""
        return self.prompts_in(workspace, self.prompts or [own_prompts(reference_path(workspace, self.reference))])

    def drop_map(self, workspace: Workspace) -> DropMap:
        """The map that is measured. Raises what reading or making it raises."""
        if self.map is not None:
            return read_map(workspace, self.map, open_reference(reference_path(workspace, self.reference)))
        contributions = self._contributions(workspace)
        assert contributions is not None and self.recipe is not None
        return make_map(contributions, Recipe.from_json(self.recipe))

    def _contributions(self, workspace: Workspace) -> Contributions | None:
        return None if self.contributions is None else import_analysis(input_path(workspace, self.contributions))
