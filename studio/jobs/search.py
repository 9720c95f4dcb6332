"""The job that looks for recipes that harm a model least."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.contributions.importers import import_analysis
from studio.contributions.measuring import require_dtype
from studio.contributions.sources import is_remote
from studio.errors import OutputExistsError
from studio.evaluate.held_out import MAX_TOKENS, own_prompts
from studio.evaluate.search_points import JOURNAL, Journal
from studio.evaluate.search_run import PER_CLASS, RESULT, SearchRequest, run_search
from studio.jobs.needs import require_safetensors
from studio.jobs.prompts import PromptedTask
from studio.jobs.task import Result, check_new, input_path, reference_path, relative
from studio.progress import Progress
from studio.workspace import Workspace


class Search(PromptedTask):
    """Measure recipes without building anything; makes `searches/NAME/`.

    Half of the prompts, or of `own_prompts` without any, is kept for the end. The journal has every recipe as soon as
    it is measured, for the page to read (`read_journal`). A job that was cancelled or killed goes on from there when it
    is started again.
    """

    reference: str
    contributions: str
    """Path of an analysis."""
    name: str
    drops: tuple[int, ...] = Field(min_length=1)
    """Experts dropped in every layer."""
    budget: float = Field(default=120.0, ge=1)
    """Seconds."""
    unseen: tuple[str, ...] = ()
    """Sources to measure the end on, in place of half of the prompts."""
    per_class: int | None = Field(default=PER_CLASS, ge=2)
    max_tokens: int = Field(default=MAX_TOKENS, ge=1)
    thinking: bool = False
    dtype: Literal["auto", "bfloat16", "float16", "float32", "nf4"] = "auto"
    extend: bool = False
    """Go on with a search that has finished, up to a larger budget; its table is measured anew at the end."""

    def title(self) -> str:
        return f"Search recipes for {self.reference}"

    def check(self, workspace: Workspace) -> None:
        """Raise for what cannot be searched, and for a name that a finished or another search has."""
        require_safetensors(workspace, self.reference, "searched")
        folder = workspace.searches / self.name
        if (folder / RESULT).exists() and not self.extend:
            raise OutputExistsError(folder)
        if not (folder / JOURNAL).exists():
            check_new(workspace.searches, self.name, overwrite=False)
        if any(is_remote(source) for source in (*self.prompts, *self.unseen)):
            return  # fetching is work
        request = self.request(workspace)
        require_dtype(self.dtype, request.contributions.shape)
        request.check()
        if (folder / JOURNAL).exists():
            Journal(folder, request.asked)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        folder = workspace.searches / self.name
        found = run_search(
            self.request(workspace), folder, budget_s=self.budget, cache=workspace.cache / "logits", progress=progress
        )
        return {
            "folder": relative(workspace, folder),
            "result": relative(workspace, folder / RESULT),
            "recipes": len(found.points),
            "best": {str(drop): f"{relative(workspace, folder)}/drop-{drop}.recipe.json" for drop in self.drops},
        }

    def request(self, workspace: Workspace) -> SearchRequest:
        """What is searched for; raises what reading contributions and prompts raises."""
        model = reference_path(workspace, self.reference)
        return SearchRequest(
            model,
            import_analysis(input_path(workspace, self.contributions)),
            self.prompts_in(workspace, self.prompts or (own_prompts(model),)),
            self.drops,
            seed=self.seed,
            dtype=self.dtype,
            max_tokens=self.max_tokens,
            thinking=self.thinking,
            unseen=self.prompts_in(workspace, self.unseen) if self.unseen else None,
        )
