"""The job that hands a finished GGUF file to Ollama."""

from __future__ import annotations

from studio.jobs.task import Result, Task, input_path
from studio.progress import Progress
from studio.publish.artifact import open_artifact
from studio.publish.licence import strictest
from studio.publish.manifest import FILE_NAME
from studio.publish.ollama import OllamaModel, ollama_model
from studio.publish.ollama_create import create, require_ollama
from studio.workspace import Workspace


class OllamaCreate(Task):
    """Run `ollama create` for a GGUF file of an artifact, with its Modelfile."""

    gguf: str
    """`artifacts/NAME/gguf/NAME-TIER.gguf`."""
    model: str
    """What it is called in Ollama: name:tier."""

    def title(self) -> str:
        return f"Give {self.model} to Ollama"

    def check(self, workspace: Workspace) -> None:
        self._opened(workspace)
        require_ollama(self.model)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        opened = self._opened(workspace)
        create(opened, self.model, progress)
        return {"model": self.model, "says": opened.remark, "run": f"ollama run {self.model}"}

    def _opened(self, workspace: Workspace) -> OllamaModel:
        path = input_path(workspace, self.gguf)
        folder = path.parent.parent
        known = open_artifact(folder).manifest.reference.licenses if (folder / FILE_NAME).is_file() else ()
        return ollama_model(path, strictest(known) if known else None)
