"""The prompts that a job is given: sources in the workspace, those that come with Espalier, and data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from studio.contributions.calibration import Calibration
from studio.contributions.sources import is_folder, is_path, prompts_of
from studio.errors import InputError
from studio.jobs.task import Task, input_path
from studio.workspace import Workspace


class PromptedTask(Task):
    """A kind of job that reads prompts."""

    prompts: tuple[str, ...] = ()
    """Sources as `prompts_of` takes them; files lie in the workspace. What none means is for each kind to say."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    klass: str | None = None
    limit: int | None = Field(default=None, ge=1)
    per_class: int | None = Field(default=None, ge=1)
    seed: int = 0

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        """A single source may be written without a list."""
        return (value,) if isinstance(value, str) else value

    def prompts_in(self, workspace: Workspace, sources: Sequence[str]) -> Calibration:
        """The prompts of `sources`, read as this job is told to.

        Raises what `prompts_of` raises, and `InputError` for what lies outside the workspace.
        """
        return prompts_of(
            sources_in(workspace, sources),
            columns=self.columns,
            klass=self.klass,
            limit=self.limit,
            per_class=self.per_class,
            seed=self.seed,
        )


def sources_in(workspace: Workspace, sources: Sequence[str]) -> list[str]:
    """`sources` with the full paths of their files. Raises `InputError` for what lies outside the workspace."""
    if outside := next(filter(is_folder, sources), None):
        raise InputError(
            f"{outside} is also a folder outside the workspace, and would be read from there.",
            "Start Espalier in another folder, or give the files themselves.",
        )
    return [str(input_path(workspace, source)) if is_path(source) else source for source in sources]
