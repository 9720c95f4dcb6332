"""The job that measures how far a quantized file is from its reference."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from studio.checkpoints.convert import cached_gguf
from studio.checkpoints.gguf_header import read_header
from studio.checkpoints.reference import open_reference
from studio.contributions.sources import BUILTIN, is_remote
from studio.errors import InputError
from studio.evaluate.file_results import Ground, in_words, measure
from studio.evaluate.files import require_comparable
from studio.evaluate.samples import read_text
from studio.jobs.needs import conversion_bytes
from studio.jobs.prompts import PromptedTask
from studio.jobs.task import Result, input_path, reference_path, relative
from studio.progress import Progress
from studio.workspace import Workspace


class Diverge(PromptedTask):
    """Compare a GGUF file of the workspace with its reference; the result lies with the file's artifact.

    Without prompts and text it goes by the prompts that come with Espalier.
    """

    candidate: str
    """A GGUF file in the workspace."""
    reference: str
    """As for a build; a safetensors model is converted first, once."""
    text: str | None = None
    """A text file in the workspace, in place of prompts."""
    continuation: int = Field(default=128, ge=0)
    thinking: bool = False
    context: int | None = Field(default=None, ge=4)
    together: bool | None = None
    overwrite: bool = False

    def title(self) -> str:
        return f"Compare {Path(self.candidate).name} with {self.reference}"

    def check(self, workspace: Workspace) -> None:
        candidate = read_header(input_path(workspace, self.candidate))
        model = reference_path(workspace, self.reference)
        require_comparable(candidate if model.is_dir() else read_header(model), candidate, self.context or 0)
        if self.text and self.prompts:
            raise InputError("A text and prompts are two different grounds.", "Name one of them.")
        if self.text:
            read_text(input_path(workspace, self.text))
        elif not any(map(is_remote, self.prompts)):  # fetching is work
            self._ground(workspace)

    def adds(self, workspace: Workspace) -> int:
        """The converted reference; the logits are foretold when their number is known, against disk and quota alike."""
        return conversion_bytes(workspace, open_reference(reference_path(workspace, self.reference)))

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        model = reference_path(workspace, self.reference)
        reference = cached_gguf(model, workspace.cache, progress=progress) if model.is_dir() else model
        found, path = measure(
            input_path(workspace, self.candidate),
            reference,
            self._ground(workspace),
            workspace,
            reference_name=Path(self.reference).name,
            together=self.together,
            overwrite=self.overwrite,
            progress=progress,
        )
        return {"path": relative(workspace, path), "says": in_words(found), **found.details}

    def _ground(self, workspace: Workspace) -> Ground:
        if self.text:
            return Ground(text=input_path(workspace, self.text), context=self.context)
        calibration = self.prompts_in(workspace, self.prompts or (BUILTIN,))
        return Ground(
            calibration=calibration, context=self.context, continuation=self.continuation, thinking=self.thinking
        )
