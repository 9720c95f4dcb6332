"""The job that reads an artifact back and compares it with its manifest."""

from __future__ import annotations

from studio.jobs.task import Result, Task
from studio.progress import Progress
from studio.publish.verify import manifest_path, verify
from studio.workspace import Workspace


class Verify(Task):
    """Read every file of an artifact; makes no file, the result is in the job's record."""

    artifact: str
    """`artifacts/NAME`."""

    def title(self) -> str:
        return f"Verify {self.artifact.rpartition('/')[2]}"

    def check(self, workspace: Workspace) -> None:
        manifest_path(workspace.inside(self.artifact))

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        found = verify(workspace.inside(self.artifact), progress)
        return {
            "files": found.files,
            "bytes": found.bytes,
            "problems": list(found.problems),
            "strangers": list(found.strangers),
            "beside": list(found.beside),
        }
