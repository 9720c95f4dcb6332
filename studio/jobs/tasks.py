"""The kinds of jobs there are. Adding one is adding a `Task` and a line in `TASKS`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import PositiveInt

from studio.checkpoints.convert import cached_gguf, convert_to_gguf
from studio.checkpoints.digests import digest_file
from studio.checkpoints.expert_weights import ExpertWeights
from studio.checkpoints.reference import open_reference
from studio.checkpoints.similarity import in_words, similarity
from studio.jobs.analyze import Analyze
from studio.jobs.build import Build
from studio.jobs.diverge import Diverge
from studio.jobs.evaluate import Evaluate
from studio.jobs.harness import Harness
from studio.jobs.measure import Measure
from studio.jobs.needs import CONVERTED_BYTES, conversion_bytes, require_memory, require_room, require_safetensors
from studio.jobs.ollama import OllamaCreate
from studio.jobs.publish import Publish
from studio.jobs.replay import Replay
from studio.jobs.search import Search
from studio.jobs.task import Parameters, Result, Task, check_new, parse, reference_path, relative
from studio.jobs.verify import Verify
from studio.progress import Progress
from studio.workspace import Workspace


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
        require_safetensors(workspace, self.reference, "converted")
        reference = open_reference(reference_path(workspace, self.reference))
        require_memory(reference, converting=True)

    def adds(self, workspace: Workspace) -> int:
        reference = open_reference(reference_path(workspace, self.reference))
        return conversion_bytes(workspace, reference) if self.name is None else reference.parameters * CONVERTED_BYTES

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

    def adds(self, workspace: Workspace) -> int:
        return self._build(workspace).adds(workspace)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        return self._build(workspace).run(workspace, progress)

    def _build(self, workspace: Workspace) -> Build:
        kind: Literal["safetensors", "gguf"] = open_reference(reference_path(workspace, self.reference)).kind
        return Build(**self.model_dump(), outputs=(kind,))


class Similarity(Task):
    """Compare the weights of experts of a reference; makes no file, the result is in the job's record."""

    reference: str
    layers: PositiveInt = 4
    pairs: PositiveInt = 64
    seed: int = 0

    def title(self) -> str:
        return f"Compare experts of {self.reference}"

    def check(self, workspace: Workspace) -> None:
        ExpertWeights(open_reference(reference_path(workspace, self.reference)))

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        weights = ExpertWeights(open_reference(reference_path(workspace, self.reference)))
        found = similarity(weights, layers=self.layers, pairs=self.pairs, seed=self.seed, progress=progress)
        return {"says": in_words(found), "layers": [{**asdict(one), "experts": list(one.experts)} for one in found]}


TASKS: dict[str, type[Task]] = {
    "analyze": Analyze,
    "convert": Convert,
    "prune": Prune,
    "build": Build,
    "verify": Verify,
    "replay": Replay,
    "ollama": OllamaCreate,
    "publish": Publish,
    "similarity": Similarity,
    "evaluate": Evaluate,
    "harness": Harness,
    "diverge": Diverge,
    "measure": Measure,
    "search": Search,
}


def check(kind: str, parameters: Parameters, workspace: Workspace) -> Task:
    """The task that `parameters` describe, after everything that can be known to go wrong has been looked at.

    Raises `InputError` for an unknown kind or a wrong parameter, and what the task's own `check` raises.
    """
    task = parse(TASKS, kind, parameters)
    task.check(workspace)
    require_room(workspace, task.adds(workspace))
    return task
