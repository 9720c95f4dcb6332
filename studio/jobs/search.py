"""The job that looks for recipes that harm a model least."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from studio.contributions.calibration import Calibration
from studio.contributions.importers import import_analysis
from studio.contributions.measuring import require_dtype
from studio.contributions.sources import is_remote
from studio.errors import OutputExistsError
from studio.evaluate.held_out import MAX_TOKENS, own_prompts
from studio.evaluate.search_points import JOURNAL, Journal
from studio.evaluate.search_run import PER_CLASS, RESULT, SearchRequest, run_search
from studio.jobs.needs import require_safetensors
from studio.jobs.prompts import prompts_in
from studio.jobs.task import Result, Task, check_new, input_path, reference_path, relative
from studio.progress import Progress
from studio.workspace import Workspace


class Search(Task):
    """Measure recipes without building anything; makes `searches/NAME/`.

    Its journal has every recipe as soon as it is measured, for the page to read (`read_journal`). A job that was
    cancelled or killed goes on from there when it is started again.
    """

    reference: str
    contributions: str
    """Path of an analysis."""
    name: str
    drops: tuple[int, ...] = Field(min_length=1)
    """Experts dropped in every layer."""
    budget: float = Field(default=120.0, ge=1)
    """Seconds."""
    prompts: tuple[str, ...] = ()
    """Sources as `prompts_of` takes them; none: `own_prompts`. Half of them is kept for the end."""
    unseen: tuple[str, ...] = ()
    """Sources to measure the end on, in place of that half."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    klass: str | None = None
    limit: int | None = Field(default=None, ge=1)
    per_class: int | None = Field(default=PER_CLASS, ge=2)
    seed: int = 0
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
            self._prompts(workspace, self.prompts or (own_prompts(model),)),
            self.drops,
            seed=self.seed,
            dtype=self.dtype,
            max_tokens=self.max_tokens,
            thinking=self.thinking,
            unseen=self._prompts(workspace, self.unseen) if self.unseen else None,
        )

    def _prompts(self, workspace: Workspace, sources: tuple[str, ...]) -> Calibration:
        return prompts_in(
            workspace,
            sources,
            columns=self.columns,
            klass=self.klass,
            limit=self.limit,
            per_class=self.per_class,
            seed=self.seed,
        )
