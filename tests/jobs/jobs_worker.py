"""A worker that knows one more kind of job: `pretend`, which takes its time and misbehaves as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Literal

from studio.errors import InputError, ProcessError
from studio.jobs import runner, worker
from studio.jobs.task import Result, Task, relative
from studio.jobs.tasks import TASKS
from studio.progress import Progress
from studio.staging import staged
from studio.workspace import Workspace

WORKER = (sys.executable, __file__)


Mood = Literal["good", "stubborn", "swallows", "mistaken", "child fails", "broken", "killed once", "children"]


class Pretend(Task):
    """Writes `name` in `steps` steps over `seconds`, in a partial folder."""

    name: str
    seconds: float = 0.0
    steps: int = 10
    mood: Literal["good", "stubborn", "swallows", "mistaken", "child fails", "broken", "killed once", "children"] = (
        "good"
    )

    def title(self) -> str:
        return f"Pretend to make {self.name}"

    def check(self, workspace: Workspace) -> None:
        if self.name == "impossible":
            raise InputError("This cannot be made.")

    def run(self, workspace: Workspace, progress: Progress) -> Result:
        final = workspace.artifacts / self.name
        with staged(final, overwrite=True) as folder:
            folder.mkdir()
            print(f"writing {self.name}")
            self._misbehave(workspace)
            for step in range(self.steps):
                progress(step, self.steps, "steps", f"step {step}")
                (folder / f"{step}.txt").write_text("something")
                self._wait()
            progress(self.steps, self.steps, "steps")
        with (workspace.artifacts / "order.txt").open("a") as order:
            order.write(f"{self.name}\n")
        return {"folder": relative(workspace, final)}

    def _misbehave(self, workspace: Workspace) -> None:
        match self.mood:
            case "stubborn":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            case "mistaken":
                raise InputError("The expert 7 of layer 3 is missing.", "Analyze again.")
            case "child fails":
                raise ProcessError("The converter failed.", log_tail="line one\nline two")
            case "broken":
                raise ZeroDivisionError("nobody expected this")
            case "children":
                child = subprocess.Popen(["sleep", "600"])
                loner = subprocess.Popen(["sleep", "600"], start_new_session=True)
                (workspace.artifacts / "children.txt").write_text(f"{child.pid} {loner.pid}")
            case "killed once":
                marker = workspace.artifacts / "was-killed"
                if not marker.exists():
                    marker.touch()
                    print("about to die", flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)

    def _wait(self) -> None:
        if self.mood != "swallows":
            time.sleep(self.seconds / self.steps)
            return
        try:
            time.sleep(self.seconds / self.steps)
        except Exception as error:  # what some library's retry loop would do
            print(f"ignored {error!r}")


TASKS["pretend"] = Pretend

if __name__ == "__main__":
    runner.WORKER = WORKER  # for the job that starts after this one
    sys.exit(worker.main(sys.argv[1:]))
