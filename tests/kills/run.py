"""Kill jobs at random moments, and see whether anybody could tell from what they make: `python -m tests.kills.run`.

Each kind of work is first done undisturbed. Then it is started again and again, killed with `kill -9` (the worker alone
or its whole process group, from outside at a random moment or by itself at a random look at the file system), tried
again, perhaps killed again, and let go on to its end. After every kill nothing stands under a final name that is not
whole, the job is known to have failed, and no process of it is left; at the end all bytes are those of the undisturbed
one, and nothing half written is left. The same seed chooses the same kills, but for what the machine's speed decides.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.workspace import Workspace
from tests.kills import worker
from tests.kills.works import Found, Work, works

PATIENCE_S = 600.0
GONE_S = 30.0
"""How long the processes of a job may need to go when it has ended; taking torch apart takes seconds."""
MOST_IN_A_ROW = 3
_AT_START, _AT_A_LOOK = 0.08, 0.5
"""Shares of the kills that come while the worker starts, and at a look at the file system."""


@dataclass
class Undisturbed:
    """How it goes when nobody interferes."""

    found: Found
    start_s: float
    """Until the work proper began."""
    work_s: float
    looks: int


@dataclass
class Told:
    """What came of the kills of one kind of work."""

    kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    whole_already: int = 0
    """Kills after the last result had its name, before the record said so."""
    finished_first: int = 0
    """Jobs that were quicker than the kill meant for them."""
    went_on: int = 0
    """Tries that found something of the one before to go on with."""
    identical: int = 0
    """Jobs that came to their end, with the bytes of the undisturbed one."""
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Disturber:
    """Kills one kind of work in a workspace of its own."""

    def __init__(self, work: Work, root: Path, random_: random.Random, keep: Path | None = None) -> None:
        self.work, self.random, self.keep, self.told = work, random_, keep, Told()
        self.store = JobStore(Workspace.open(root))
        work.prepare(self.store.workspace)

    def run(self, kills: int) -> Told:
        """Until there were so many."""
        started = time.monotonic()
        known = self.undisturbed()
        while self.told.kills < kills and not self.told.faults:
            self.chain(known, min(self.random.randint(1, MOST_IN_A_ROW), kills - self.told.kills))
        self.told.seconds = round(time.monotonic() - started, 1)
        self.store.close()
        return self.told

    def undisturbed(self) -> Undisturbed:
        count_to = self.store.workspace.root / "looks.txt"
        began = time.monotonic()
        job = self.started(None, count_to=str(count_to))
        begun = time.monotonic()
        for seen in self.watched(job):
            if not seen.total:
                begun = time.monotonic()
        ended = time.monotonic()
        job = self.store.get(job.id)
        if job.status != "done":
            raise SystemExit(f"{self.work.name}: {job.error}\n{job.log_tail}")
        self.wait_for_processes()
        known = Undisturbed(
            self.work.found(self.store.workspace), begun - began, ended - begun, int(count_to.read_text())
        )
        self.work.clear(self.store.workspace)
        return known

    def chain(self, known: Undisturbed, kills: int) -> None:
        """Start the work, kill it up to `kills` times, and let it come to its end."""
        job = self.killed(None, known)
        while job.status == "failed" and kills > 1:
            kills -= 1
            job = self.killed(job, known)
        if job.status == "failed":
            self.told.went_on += self.leaves_something()
            job = self.started(job)
            for _ in self.watched(job):
                pass
            job = self.store.get(job.id)
        if job.status != "done":
            self.fault(f"the last try {job.status}: {job.error}")
        found = self.work.found(self.store.workspace)
        if found != known.found:
            self.fault(f"the bytes differ: {sorted({name for name, _ in found.items() ^ known.found.items()})}")
        if left := half_written(self.store.workspace):
            self.fault(f"half written and left after all: {left}")
        self.told.identical += not self.told.faults
        if self.told.faults and self.keep:
            shutil.copytree(self.store.workspace.root, self.keep / self.work.name, dirs_exist_ok=True)
        else:
            self.work.clear(self.store.workspace)

    def killed(self, before: Job | None, known: Undisturbed) -> Job:
        """Start or try again, kill, look at what is left; the job, which came to its end where it was quicker."""
        whole_group = self.random.random() < 0.5
        choice, share = self.random.random(), self.random.random()
        self.told.went_on += before is not None and self.leaves_something()
        if choice < _AT_A_LOOK:
            moment = "at a look at the file system"
            job = self.started(before, at=1 + int(share * known.looks), whole_group=whole_group)
        elif choice < 1 - _AT_START:
            moment = "in the middle"
            job = self.started(before)
            self.strike(job, share * known.work_s, whole_group, begun=True)
        else:
            moment = "at the start"
            job = self.started(before)
            self.strike(job, share * known.start_s, whole_group, begun=False)
        if job.process is None:
            self.fault("it has no process")
            return job
        self.wait_for(job)
        found, job = self.work.found(self.store.workspace), self.store.get(job.id)
        if job.status != "running":  # it wrote down how it ended
            self.told.finished_first += 1
            return job
        self.told.kills += 1
        self.told.moments[moment] += 1
        self.told.victims["whole group" if whole_group else "worker alone"] += 1
        self.look_at(found, known.found)
        for seen in self.watched(job):  # its lock is let go of when the last of its threads is gone
            job = seen
        if job.status != "failed" or "died" not in job.error:
            self.fault(f"after a kill it is {job.status}: {job.error}")
        self.wait_for_processes()
        return job

    def look_at(self, found: Found, whole: Found) -> None:
        """After a kill, before anybody cleared up."""
        strange = [name for name, sha256 in found.items() if whole.get(name) != sha256]
        if strange:
            self.fault(f"these stand under final names and are not whole: {strange}")
        elif found == whole:
            self.told.whole_already += 1
        elif found and self.work.together:
            self.fault(f"only some of the results have their names: {sorted(found)}")

    def started(self, before: Job | None, **death: Any) -> Job:
        os.environ[worker.VARIABLE] = json.dumps(death)
        try:
            if before is None:
                return runner.start(self.store, self.work.kind, self.work.parameters)
            return runner.retry(self.store, before.id)
        finally:
            del os.environ[worker.VARIABLE]

    def strike(self, job: Job, delay_s: float, whole_group: bool, *, begun: bool) -> None:
        """Kill the process of `job`, `delay_s` after its start or after its work has `begun`."""
        while begun and not (seen := self.store.get(job.id)).total and not seen.is_finished:
            time.sleep(0.01)
        time.sleep(delay_s)
        process = job.process
        if process is not None and process.is_alive():
            with suppress(ProcessLookupError):  # it ended just now
                (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)

    def wait_for(self, job: Job) -> None:
        if job.process is None or not job.process.wait(PATIENCE_S):
            self.fault(f"its process lives on after {PATIENCE_S:g} s")

    def watched(self, job: Job) -> Iterator[Job]:
        """`job` as it is, until it has come to its end."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            runner.refresh(self.store)
            seen = self.store.get(job.id)
            yield seen
            if seen.is_finished:
                return
            time.sleep(0.02)
        self.fault(f"it took more than {PATIENCE_S:g} s")

    def wait_for_processes(self) -> None:
        """Until nothing that was started for the job runs: the kernel takes some time to take a process apart."""
        deadline = time.monotonic() + GONE_S
        while left := processes_in(self.store.workspace):
            if time.monotonic() > deadline:
                self.fault(f"these processes were left: {left}")
                return
            time.sleep(0.05)

    def leaves_something(self) -> bool:
        return any(".partial-resume-" in path for path in half_written(self.store.workspace))

    def fault(self, text: str) -> None:
        self.told.faults.append(f"{self.work.name}, after {self.told.kills} kills: {text}")


def half_written(workspace: Workspace) -> list[str]:
    """Everything in the workspace that `studio.staging` has not given its final name."""
    marks = (".partial", ".replaced-")
    return [
        str(path.relative_to(workspace.root))
        for path in workspace.root.rglob(".*")
        if any(mark in path.name for mark in marks)
    ]


def processes_in(workspace: Workspace) -> list[str]:
    """Command lines of living processes that were told of the workspace, or work in it."""
    root, found = str(workspace.root), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if root in line or process.cwd().startswith(root):
                found.append(" ".join(line))
    return found


def run(
    folder: Path, kills: int, seed: int, *, small: bool = False, only: str | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """Share `kills` among the works, and tell what came of them."""
    started = time.monotonic()
    runner.WORKER = worker.COMMAND
    chosen = [work for work in works(folder, small=small) if only in (None, work.name)]
    shares = sum(work.share for work in chosen)
    told: dict[str, Told] = {}
    for number, work in enumerate(chosen):
        wanted = round(kills * sum(one.share for one in chosen[: number + 1]) / shares)
        wanted -= sum(one.kills for one in told.values())
        disturber = Disturber(work, folder / f"workspace {number}", random.Random(f"{seed} {work.name}"), keep)
        told[work.name] = disturber.run(wanted)
        print(f"{work.name}: {told[work.name]}", file=sys.stderr, flush=True)
    return {
        "seed": seed,
        "kills": sum(one.kills for one in told.values()),
        "faults": [fault for one in told.values() for fault in one.faults],
        "seconds": round(time.monotonic() - started, 1),
        "works": {name: vars(one) for name, one in told.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Kill jobs at random moments.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one kind of work")
    parser.add_argument("--small", action="store_true", help="on tiny models, without those that load torch")
    parser.add_argument("--keep", type=Path, help="where the workspace of a work that failed is kept")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="espalier-kills-") as name:
        root = Path(name).resolve()
        told = run(root, given.kills, given.seed, small=given.small, only=given.only, keep=given.keep)
    print(json.dumps(told, indent=2))
    return 1 if told["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
