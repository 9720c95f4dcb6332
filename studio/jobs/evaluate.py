"""The job that asks a model the questions of a task, and a reference the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import Field, JsonValue

from studio.checkpoints.convert import cached_gguf
from studio.checkpoints.reference import open_reference
from studio.demo.task import DEMO, demo_task
from studio.evaluate.configuration import Configuration, configuration_for, configuration_named
from studio.evaluate.results import Result as Measured
from studio.evaluate.results import different_versions, folder_of
from studio.evaluate.results_table import compare_results
from studio.evaluate.results_table import in_words as score_in_words
from studio.evaluate.runner import SLOTS, evaluate
from studio.evaluate.statistics import in_words
from studio.evaluate.tasks.task import PER_CATEGORY, SEED, read_task
from studio.evaluate.tasks.task import Task as Questions
from studio.jobs.needs import conversion_bytes
from studio.jobs.task import Result, Task, input_path, reference_path, relative
from studio.progress import Progress
from studio.serve import memory
from studio.workspace import Workspace


class Evaluate(Task):
    """Ask `model` the questions of `task`; the result lies with the model, see `studio.evaluate.results`."""

    model: str
    """A GGUF file in the workspace, or a reference, which is converted first."""
    task: str = DEMO
    """`demo`, or a file of JSON lines in the workspace."""
    against: str | None = None
    """A reference that is asked the same, named as `model` is."""
    per_category: int | None = Field(default=PER_CATEGORY, ge=1)
    """Questions of each category; None for all."""
    seed: int = SEED
    configuration: str | None = None
    """A name of `studio.evaluate.configuration.CONFIGURATIONS`; None is the official one of the reference's family."""
    thinking: bool = False
    slots: int = Field(default=SLOTS, ge=1, le=64)
    overwrite: bool = False

    def title(self) -> str:
        return f"Ask {Path(self.model).name} the questions of {Path(self.task).stem}"

    def check(self, workspace: Workspace) -> None:
        self.questions(workspace)
        if self.configuration is not None:
            configuration_named(self.configuration, thinking=self.thinking)
        for model in self._models:
            path = reference_path(workspace, model)
            if path.is_dir():
                open_reference(path)
            else:
                memory.model_need(path, 1, 1)

    def questions(self, workspace: Workspace) -> Questions:
        """What is asked; raises as `read_task` does, and `InputError` for what lies outside the workspace."""
        task = demo_task() if self.task == DEMO else read_task(input_path(workspace, self.task))
        return task.subset(self.per_category, self.seed)

    def adds(self, workspace: Workspace) -> int:
        found = [open_reference(reference_path(workspace, model)) for model in self._models]
        return sum(conversion_bytes(workspace, reference) for reference in found)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        questions = self.questions(workspace)
        files = [self._file(workspace, model, progress) for model in self._models]
        configuration = self._configuration(files[0])
        measured = [
            evaluate(
                file,
                questions,
                configuration,
                workspace,
                name=Path(model).name,
                slots=self.slots,
                overwrite=self.overwrite,
                progress=_in_turn(progress, turn, len(files)),
            )
            for turn, (model, file) in enumerate(zip(self._models, files, strict=True))
        ]
        says = [score_in_words(one) for one in measured]
        made: Result = {"results": [_told(workspace, *pair) for pair in zip(files, measured, strict=True)]}
        if self.against is not None:
            comparison = compare_results(measured[0], measured[-1])
            says += [in_words(comparison), different_versions(measured[0], measured[-1])]
            made["comparison"] = asdict(comparison)
        return {**made, "says": " ".join(filter(None, says)), "configuration": configuration.name}

    @property
    def _models(self) -> list[str]:
        """The reference first: its family decides on the configuration."""
        return [self.model] if self.against is None else [self.against, self.model]

    def _file(self, workspace: Workspace, model: str, progress: Progress) -> Path:
        path = reference_path(workspace, model)
        return cached_gguf(path, workspace.cache, progress=progress) if path.is_dir() else path

    def _configuration(self, reference: Path) -> Configuration:
        if self.configuration is None:
            return configuration_for(reference, thinking=self.thinking)
        return configuration_named(self.configuration, thinking=self.thinking)


def _in_turn(progress: Progress, turn: int, turns: int) -> Progress:
    """The progress of one of several runs of the same length, as part of all of them."""

    def report(done: int, total: int, unit: str = "", message: str = "") -> None:
        progress(turn * total + done, turns * total, unit, message)

    return report


def _told(workspace: Workspace, model: Path, measured: Measured) -> JsonValue:
    return {
        "path": relative(workspace, folder_of(model, workspace) / measured.file_name),
        "model": measured.model.name,
        "values": {name: value.model_dump() for name, value in measured.values.items()},
    }
