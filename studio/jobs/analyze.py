"""The job that measures what the experts of a reference contribute."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from studio.checkpoints.reference import open_reference
from studio.contributions.analyze import analyze, estimate
from studio.contributions.calibration import Calibration
from studio.contributions.encoding import load_tokenizer
from studio.contributions.measuring import require_dtype
from studio.contributions.preflight import Preflight
from studio.contributions.prompt_preview import PromptPreview, preview_prompts
from studio.contributions.sources import BUILTIN, is_remote
from studio.jobs.needs import require_safetensors
from studio.jobs.prompts import PromptedTask
from studio.jobs.task import Result, check_new, reference_path, relative
from studio.progress import Progress
from studio.quantize.imatrix_observed import imatrix_writer
from studio.workspace import Workspace


class Analyze(PromptedTask):
    """Observe a reference on prompts; makes `contributions/NAME.safetensors`, and `imatrix/NAME.gguf` when asked."""

    reference: str
    name: str
    prompts: tuple[str, ...] = (BUILTIN,)
    answers: Literal["given", "own"] = "given"
    continuation: int = Field(default=128, ge=0)
    max_tokens: int = Field(default=4096, ge=1)
    thinking: bool = False
    imatrix: bool = False
    mode: Literal["auto", "whole", "offloaded", "layered"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32", "nf4"] = "auto"
    overwrite: bool = False

    def title(self) -> str:
        return f"Measure {self.reference}"

    def check(self, workspace: Workspace) -> None:
        check_new(workspace.contributions, self.name, self.overwrite, suffix=".safetensors")
        if self.imatrix:
            check_new(workspace.imatrix, self.name, self.overwrite, suffix=".gguf")
        require_safetensors(workspace, self.reference, "observed")
        require_dtype(self.dtype, open_reference(reference_path(workspace, self.reference)).shape)
        if not any(is_remote(source) for source in self.prompts):  # fetching is work
            self.calibration(workspace)

    def calibration(self, workspace: Workspace) -> Calibration:
        """The prompts that the model is observed on; raises what `prompts_in` raises."""
        calibration = self.prompts_in(workspace, self.prompts)
        return calibration if self.answers == "given" else calibration.without_answers()

    def foresee(self, workspace: Workspace) -> tuple[PromptPreview, Preflight]:
        """What the model will see, and what the job would take of time and memory in each mode; reads no weights.

        Raises what `prompts_of` and `estimate` raise.
        """
        require_safetensors(workspace, self.reference, "observed")
        calibration, model = self.calibration(workspace), reference_path(workspace, self.reference)
        preview = preview_prompts(load_tokenizer(model), calibration.prompts, **self._encoding)
        return preview, estimate(model, calibration, dtype=self.dtype, **self._encoding)

    @property
    def _encoding(self) -> dict[str, Any]:
        """What becomes of prompts on their way to tokens."""
        return {
            "max_tokens": self.max_tokens,
            "continuation_tokens": self.continuation,
            "thinking": self.thinking,
        }

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        out = workspace.contributions / f"{self.name}.safetensors"
        model = reference_path(workspace, self.reference)
        calibration = self.calibration(workspace)
        made: Result = {}
        use_energies = None
        if self.imatrix:
            importance = workspace.imatrix / f"{self.name}.gguf"
            dataset = " + ".join(calibration.sources)
            use_energies = imatrix_writer(open_reference(model).config, dataset, importance, self.overwrite)
            made["imatrix"] = relative(workspace, importance)
        contributions = analyze(
            model,
            calibration,
            out,
            overwrite=self.overwrite,
            progress=progress,
            use_energies=use_energies,
            mode=self.mode,
            dtype=self.dtype,
            **self._encoding,
        )
        return {
            "path": relative(workspace, out),
            "questions": len(contributions.questions),
            "contributions_hash": contributions.content_hash,
            **made,
        }
