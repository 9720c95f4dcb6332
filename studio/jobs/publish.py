"""The job that sends an artifact to the Hub."""

from __future__ import annotations

from typing import Literal

from studio.errors import MismatchError
from studio.jobs.steps import Steps
from studio.jobs.task import Result, Task
from studio.progress import Progress
from studio.publish.artifact import Artifact, keep_measures, open_artifact
from studio.publish.hub import hub_token, upload
from studio.publish.measures import comparisons
from studio.publish.repository import Upload, plan_upload
from studio.publish.verify import verify
from studio.workspace import Workspace


class Publish(Task):
    """Send a verified artifact to the Hub. The token comes from whoever started it, or from the environment, and
    is in no parameter or record."""

    artifact: str
    """`artifacts/NAME`."""
    repository: str
    """OWNER/NAME."""
    format: Literal["safetensors", "gguf"] | None = None
    """Needed where the artifact has both."""
    public: bool = False
    base_model: str | None = None
    """What the Hub calls the reference, OWNER/NAME, where its own name does not tell."""

    def title(self) -> str:
        return f"Publish {self.repository}{'' if self.public else ' (private)'}"

    def check(self, workspace: Workspace) -> None:
        self.plan(workspace)
        hub_token()

    def plan(self, workspace: Workspace) -> Upload:
        """Every file and its size; nothing is sent."""
        return plan_artifact(self._opened(workspace), workspace, self)

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        artifact = keep_measures(self._opened(workspace))
        return send(artifact, plan_artifact(artifact, workspace, self), workspace, progress)

    def _opened(self, workspace: Workspace) -> Artifact:
        return open_artifact(workspace.inside(self.artifact))


def plan_artifact(artifact: Artifact, workspace: Workspace, chosen: Publish) -> Upload:
    """See `plan_upload`; what was measured of the reference is looked for in `workspace`."""
    return plan_upload(
        artifact,
        chosen.repository,
        chosen=chosen.format,
        public=chosen.public,
        measured=comparisons(artifact, workspace),
        base_model=chosen.base_model,
    )


def send(artifact: Artifact, plan: Upload, workspace: Workspace, progress: Progress) -> Result:
    """Verify `artifact`, and send it as `plan` says. Raises `MismatchError` for damaged files, and as `upload`."""
    reading = sum(record.bytes for record in (*artifact.manifest.files, *artifact.manifest.measures))
    steps = Steps(progress, reading + plan.bytes)
    found = verify(artifact.folder, steps.step(reading, "Verifying"))
    if found.problems:
        raise MismatchError(f"{artifact.folder} is not what it was: {' '.join(found.problems)}", "Build it again.")
    sent = upload(plan, workspace.cache, steps.step(plan.bytes, "Publishing"))
    return {"url": sent.url, "commit": sent.commit, "files": len(plan.files), "bytes": plan.bytes}
