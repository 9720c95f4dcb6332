"""The job that runs a task of lm-evaluation-harness against a model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from studio.checkpoints.convert import cached_gguf
from studio.checkpoints.reference import open_reference
from studio.errors import InputError
from studio.evaluate.configuration import configuration_for, configuration_named
from studio.evaluate.harness import PACKAGE, measure_with_harness
from studio.evaluate.results import folder_of
from studio.evaluate.results_table import in_words
from studio.evaluate.runner import SLOTS
from studio.jobs.needs import conversion_bytes
from studio.jobs.task import Result, Task, input_path, reference_path, relative
from studio.progress import Progress
from studio.serve import memory
from studio.workspace import Workspace


class Harness(Task):
    """Ask `model` a generative task of the harness; the result lies with the model, see `studio.evaluate.results`."""

    model: str
    """A GGUF file in the workspace, or a reference, which is converted first."""
    task: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][\w.+-]*$")
    """As the harness calls it."""
    include: str | None = None
    """A folder of the workspace with tasks of one's own."""
    limit: int | None = Field(default=None, ge=1)
    """The most questions; None for all."""
    shots: int | None = Field(default=None, ge=0)
    """Examples before each question; None for as many as the task says."""
    configuration: str | None = None
    """A name of `studio.evaluate.configuration.CONFIGURATIONS`; None is the official one of the model's family."""
    thinking: bool = False
    slots: int = Field(default=SLOTS, ge=1, le=64)

    def title(self) -> str:
        return f"Ask {Path(self.model).name} {self.task} of lm-evaluation-harness"

    def check(self, workspace: Workspace) -> None:
        if find_spec(PACKAGE) is None:
            raise InputError("lm-evaluation-harness is not installed.", 'It is optional: pip install "lm_eval[api]"')
        if self.configuration is not None:
            configuration_named(self.configuration, thinking=self.thinking)
        if self.include is not None:
            input_path(workspace, self.include)
        path = reference_path(workspace, self.model)
        if path.is_dir():
            open_reference(path)
        else:
            memory.model_need(path, 1, 1)

    def adds(self, workspace: Workspace) -> int:
        path = reference_path(workspace, self.model)
        return conversion_bytes(workspace, open_reference(path)) if path.is_dir() else 0

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        path = reference_path(workspace, self.model)
        file = cached_gguf(path, workspace.cache, progress=progress) if path.is_dir() else path
        if self.configuration is None:
            configuration = configuration_for(file, thinking=self.thinking)
        else:
            configuration = configuration_named(self.configuration, thinking=self.thinking)
        measured = measure_with_harness(
            file,
            self.task,
            configuration,
            workspace,
            include=None if self.include is None else input_path(workspace, self.include),
            limit=self.limit,
            shots=self.shots,
            name=Path(self.model).name,
            slots=self.slots,
            progress=progress,
        )
        return {
            "path": relative(workspace, folder_of(file, workspace) / measured.file_name),
            "says": in_words(measured),
            "values": {name: value.model_dump() for name, value in measured.values.items()},
            "configuration": configuration.name,
        }
