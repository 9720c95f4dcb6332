"""What is known about every job, in a place that outlives the page, the app and the job itself.

Records are JSON text in a diskcache (SQLite) database, so any number of apps and workers share one workspace. The log
of a job is a plain file beside it.
"""

from __future__ import annotations

import builtins
import copy
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from diskcache import Cache
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from studio.errors import FormatError, InputError
from studio.jobs.disk import TextDisk
from studio.jobs.processes import WorkerProcess
from studio.workspace import Workspace

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: frozenset[Status] = frozenset({"done", "failed", "cancelled"})
RUNNING: tuple[Status, ...] = ("running",)
QUEUED: tuple[Status, ...] = ("queued",)

SLOTS_VARIABLE = "ESPALIER_JOB_SLOTS"
LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 16 * 1024

logger = logging.getLogger(__name__)


class Job(BaseModel):
    """One long piece of work in its own process. Times are seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: str
    title: str
    parameters: dict[str, JsonValue]
    status: Status = "queued"
    done: int = 0
    total: int = 0
    """In `unit`, as `done` is; 0 while the work has not been counted yet."""
    unit: str = ""
    message: str = ""
    eta_s: float | None = None
    """Estimate of the seconds left; None while nothing can be said."""
    created: float
    started: float | None = None
    finished: float | None = None
    pid: int | None = Field(default=None, gt=1)
    process_birth: float | None = None
    """When the process `pid` started, in seconds after boot: tells it from a later process with the same number."""
    result: dict[str, JsonValue] | None = None
    error: str = ""
    log_tail: str = ""
    """The last log lines of a finished job; `JobStore.log_tail` reads those of a running one."""
    retry_of: str | None = None
    part: str = ""
    """Whose part of the workspace it works in; empty: nobody's (`Workspace.parts`)."""
    limit_s: float | None = None
    """Seconds after which it is ended."""

    @property
    def process(self) -> WorkerProcess | None:
        """The process that runs or ran it."""
        if self.pid is None or self.process_birth is None:
            return None
        return WorkerProcess(self.pid, self.process_birth, mark=self.id)

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0

    @property
    def files(self) -> list[dict[str, Any]]:
        """What a finished build made: `path` (relative to the workspace), `bytes` and `sha256` of each file."""
        files = (self.result or {}).get("files")
        return [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def can_retry(self) -> bool:
        return self.status in ("failed", "cancelled")


class JobStore:
    """The jobs of one workspace, shared safely between threads and processes.

    Where the workspace has parts of several people, they share the records and the slots, and a store shows the jobs of
    its own part only. `slots` is how many jobs run at once, 1 unless `$ESPALIER_JOB_SLOTS` says otherwise: a build uses
    every core anyway. Raises `FormatError` when the database is damaged.
    """

    def __init__(self, workspace: Workspace, slots: int | None = None) -> None:
        self.workspace = workspace
        self.slots = slots or _slots_of_environment()
        self._parts = workspace.parts()
        folder = self._parts[""].jobs / "store"
        try:
            # Records are neither evicted nor culled: nobody wants the history of a job to vanish by itself.
            self._cache = Cache(str(folder), disk=TextDisk, eviction_policy="none", cull_limit=0)
        except sqlite3.DatabaseError as error:
            problem = f"the job store is damaged ({error})"
            raise FormatError(folder / "cache.db", "", problem, "Remove this folder; no artifact is in it.") from error

    def close(self) -> None:
        self._cache.close()

    def of(self, workspace: Workspace) -> JobStore:
        """The store of another part of the same workspace."""
        store = copy.copy(self)
        store.workspace = workspace
        return store

    def of_job(self, job: Job) -> JobStore | None:
        """The store of the part that `job` works in; None where that part is gone."""
        if job.part == self.workspace.part:
            return self
        if job.part not in self._parts:
            self._parts |= self.workspace.parts()
        part = self._parts.get(job.part)
        return self.of(part) if part and part.root.is_dir() else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is read and written inside happens at once, for every process on this workspace."""
        with self._cache.transact(retry=True):
            yield

    def add(self, kind: str, title: str, parameters: dict[str, JsonValue], retry_of: str | None = None) -> Job:
        """A new queued job, with a folder for its log."""
        job = Job(
            id=secrets.token_hex(4),
            kind=kind,
            title=title,
            parameters=parameters,
            created=time.time(),
            retry_of=retry_of,
            part=self.workspace.part,
            limit_s=self.workspace.access.job_s,
        )
        self._folder(job.id).mkdir()
        self._write(job)
        return job

    def get(self, job_id: str) -> Job:
        """The job called `job_id`; `InputError` when this part has none, `FormatError` when its record is damaged."""
        text = self._cache.get(job_id, retry=True)
        job = None if text is None else self._read(job_id, text)
        if job is None or job.part != self.workspace.part:
            raise InputError(
                f"There is no job {job_id!r} in {self.workspace.root}.", "`jobs list` shows those there are."
            )
        return job

    def list(self) -> list[Job]:
        """The jobs of this part, the newest first; a damaged record is logged and left out."""
        return [job for job in self.everyones() if job.part == self.workspace.part]

    def everyones(self) -> builtins.list[Job]:
        """The jobs of all parts, which share the slots; otherwise like `list`."""
        jobs = []
        for job_id in self._cache:
            try:
                if (text := self._cache.get(job_id, retry=True)) is not None:  # removed meanwhile
                    jobs.append(self._read(job_id, text))
            except InputError as error:
                logger.warning("%s", error)
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def _read(self, job_id: str, text: str) -> Job:
        try:
            return Job.model_validate_json(text)
        except ValidationError as error:
            raise FormatError(self.workspace.jobs, f"job {job_id}", f"the record is damaged ({error})") from error

    def forget(self, job: Job) -> None:
        """Remove the record of a job, whoever's it is: the part in which it worked is gone, or is about to go."""
        self._cache.delete(job.id, retry=True)

    def update(self, job_id: str, *, when: Collection[Status] | None = None, **changes: Any) -> Job:
        """Change fields of a job at once, and give it as it is then.

        Where its status is not one of `when`, nothing changes: a job that was cancelled meanwhile is not "done".
        """
        with self.transaction():
            job = self.get(job_id)
            if when is not None and job.status not in when:
                return job
            changed = Job.model_validate({**job.model_dump(), **changes})
            self._write(changed)
        return changed

    def finish(self, job_id: str, status: Status, *, when: Collection[Status] = RUNNING, **changes: Any) -> Job:
        """End a job that is in one of the states `when`, keeping the last lines of its log."""
        end = {"status": status, "finished": time.time(), "eta_s": None, "log_tail": self.log_tail(job_id)}
        return self.update(job_id, when=when, **{**changes, **end})

    def log_path(self, job_id: str) -> Path:
        """Where everything that the job's process says is kept."""
        return self._folder(job_id) / "log.txt"

    def log_tail(self, job_id: str, lines: int = LOG_TAIL_LINES) -> str:
        """The last `lines` lines of the job's log; empty when it has said nothing."""
        try:
            with self.log_path(job_id).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                tail = log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join([line for line in tail.splitlines() if line.strip()][-lines:])

    def _folder(self, job_id: str) -> Path:
        return self.workspace.jobs / job_id

    def _write(self, job: Job) -> None:
        self._cache.set(job.id, job.model_dump_json(), retry=True)


def _slots_of_environment() -> int:
    text = os.environ.get(SLOTS_VARIABLE, "1")
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{SLOTS_VARIABLE} is {text!r}, and has to be how many jobs may run at once: 1 or more.")
    return int(text)
