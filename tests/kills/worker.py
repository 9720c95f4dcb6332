"""The real worker of a job, which can die at a chosen look at the file system: `kill -9`, sent by itself.

Between two such looks the disk does not change, but for what is written to files that are open. So these deaths reach
every state that a result passes through on its way to its name, however short it is; deaths at random moments, which
come from outside, reach the rest.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "tests.kills.worker")
VARIABLE = "ESPALIER_TESTS_DEATH"
"""JSON: `at`, the number of the look at which it dies, `whole_group`; or `count_to`, a file for how many there were."""

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.")


class Looks:
    """Counts what this process asks of the file system below `root`, and dies when it is told to."""

    def __init__(self, root: str, at: int | None, whole_group: bool) -> None:
        self.count = 0
        self._root, self._at, self._whole_group = root, at, whole_group
        self._lock = threading.Lock()

    def install(self) -> None:
        sys.addaudithook(self._heard)
        os.fsync = self._before(os.fsync)

    def _heard(self, event: str, given: tuple[Any, ...]) -> None:
        if event.startswith(_CHANGES) or (event == "open" and str(given[0]).startswith(self._root)):
            self._look()

    def _before(self, function: Any) -> Any:
        def looked(*given: Any) -> Any:
            self._look()
            return function(*given)

        return looked

    def _look(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._at:
                (os.killpg if self._whole_group else os.kill)(os.getpid(), signal.SIGKILL)


def main(root: str, job_id: str) -> int:
    from studio.jobs import worker

    told = json.loads(os.environ.get(VARIABLE, "{}"))
    looks = Looks(root, told.get("at"), told.get("whole_group", False))
    looks.install()
    if count_to := told.get("count_to"):
        atexit.register(lambda: Path(count_to).write_text(str(looks.count)))
    return worker.main([root, job_id])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
