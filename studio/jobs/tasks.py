"""The kinds of jobs there are. Adding one is adding a `Task` and a line in `TASKS`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from studio.checkpoints.convert import cached_gguf, convert_to_gguf
from studio.checkpoints.digests import digest_file
from studio.checkpoints.reference import open_reference
from studio.contributions.analyze import analyze
from studio.contributions.calibration import Calibration
from studio.contributions.sources import BUILTIN, is_path, is_remote, prompts_of
from studio.errors import InputError
from studio.jobs.build import Build
from studio.jobs.needs import CONVERTED_BYTES, require_memory
from studio.jobs.task import Parameters, Result, Task, check_new, input_path, parse, reference_path, relative
from studio.progress import Progress
from studio.staging import require_disk
from studio.workspace import Workspace


class Analyze(Task):
    """Observe a reference on prompts; makes `contributions/NAME.safetensors`.

    `prompts` are one or several sources as `prompts_of` reads them, and the fields after it are its arguments. With
    `own_answers` the model is observed on what it answers itself.
    """

    reference: str
    prompts: str | tuple[str, ...] = BUILTIN
    columns: dict[str, str] = Field(default_factory=dict)
    klass: str | None = None
    limit: PositiveInt | None = None
    per_class: PositiveInt | None = None
    seed: int = 0
    own_answers: bool = False
    thinking: bool = False
    name: str
    overwrite: bool = False

    def title(self) -> str:
        return f"Analyze {self.reference}"

    def check(self, workspace: Workspace) -> None:
        check_new(workspace.contributions, self.name, self.overwrite, suffix=".safetensors")
        _require_safetensors(workspace, self.reference, "observed")
        if not any(is_remote(source) for source in self._sources()):  # fetching is work
            self._calibration(workspace)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        out = workspace.contributions / f"{self.name}.safetensors"
        model = reference_path(workspace, self.reference)
        prompts = self._calibration(workspace)
        contributions = analyze(
            model, prompts, out, overwrite=self.overwrite, progress=progress, thinking=self.thinking
        )
        return {
            "path": relative(workspace, out),
            "questions": len(contributions.questions),
            "contributions_hash": contributions.content_hash,
        }

    def _sources(self) -> tuple[str, ...]:
        return (self.prompts,) if isinstance(self.prompts, str) else self.prompts

    def _calibration(self, workspace: Workspace) -> Calibration:
        calibration = prompts_of(
            [source if not is_path(source) else str(input_path(workspace, source)) for source in self._sources()],
            columns=self.columns,
            klass=self.klass,
            limit=self.limit,
            per_class=self.per_class,
            seed=self.seed,
        )
        return calibration.without_answers() if self.own_answers else calibration


class Convert(Task):
    """Convert a safetensors reference; makes `references/NAME.gguf`, which can be opened as a reference itself.

    Without a name the result goes where builds and chats find it, and is made only once.
    """

    reference: str
    name: str | None = None
    overwrite: bool = False

    def title(self) -> str:
        return f"Convert {self.reference} to GGUF"

    def check(self, workspace: Workspace) -> None:
        if self.name is not None:
            check_new(workspace.references, self.name, self.overwrite, suffix=".gguf")
        _require_safetensors(workspace, self.reference, "converted")
        reference = open_reference(reference_path(workspace, self.reference))
        require_disk(workspace.references, reference.parameters * CONVERTED_BYTES)
        require_memory(reference, converting=True)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        model = reference_path(workspace, self.reference)
        if self.name is None:
            out = cached_gguf(model, workspace.cache, progress=progress)
            return {"path": relative(workspace, out), "bytes": out.stat().st_size}
        out = workspace.references / f"{self.name}.gguf"
        convert_to_gguf(model, out, overwrite=self.overwrite, progress=progress)
        return {"path": relative(workspace, out), "bytes": out.stat().st_size, "sha256": digest_file(out)}


class Prune(Task):
    """Prune a reference in its own format, nothing else: a `Build` with one output."""

    reference: str
    map: str
    name: str
    overwrite: bool = False

    def title(self) -> str:
        return f"Prune {self.reference}"

    def check(self, workspace: Workspace) -> None:
        self._build(workspace).check(workspace)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        return self._build(workspace).run(workspace, progress)

    def _build(self, workspace: Workspace) -> Build:
        kind: Literal["safetensors", "gguf"] = open_reference(reference_path(workspace, self.reference)).kind
        return Build(**self.model_dump(), outputs=(kind,))


TASKS: dict[str, type[Task]] = {"analyze": Analyze, "convert": Convert, "prune": Prune, "build": Build}


def check(kind: str, parameters: Parameters, workspace: Workspace) -> Task:
    """The task that `parameters` describe, after everything that can be known to go wrong has been looked at.

    Raises `InputError` for an unknown kind or a wrong parameter, and what the task's own `check` raises.
    """
    task = parse(TASKS, kind, parameters)
    task.check(workspace)
    return task


def _require_safetensors(workspace: Workspace, reference: str, what: str) -> None:
    if open_reference(reference_path(workspace, reference)).kind != "safetensors":
        raise InputError(f"{reference} is a GGUF file, and cannot be {what}.", "Open the safetensors checkpoint.")
