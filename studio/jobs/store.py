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

from studio.errors import FormatError, InputError, ResourceError
from studio.jobs.disk import TextDisk
from studio.jobs.made import Made
from studio.jobs.processes import WorkerProcess
from studio.limits import SLOTS
from studio.locks import HERE, is_held
from studio.workspace import Workspace

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: frozenset[Status] = frozenset({"done", "failed", "cancelled"})
RUNNING: tuple[Status, ...] = ("running",)
QUEUED: tuple[Status, ...] = ("queued",)

SLOTS_VARIABLE = SLOTS.variable
OWNER_VARIABLE = "ESPALIER_JOB_OWNER"
"""How the process of a job hears for which app it starts the next one."""
PAUSED = "Paused while Espalier was not running; it goes on where it was."
LOGIN_LOST = (
    "It works with the login of whoever started it, which is kept nowhere, and Espalier "
    "was stopped. Log in, and start it again: what was done is not done again."
)
"""The error of a job whose token nobody has any more."""
LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 16 * 1024
_AFTER_S = 1e-5  # more than a float of so many seconds leaves out

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
    place: str = ""
    """Where `pid` means that process, see `studio.locks.HERE`; empty in records of versions that knew one place."""
    result: dict[str, JsonValue] | None = None
    error: str = ""
    log_tail: str = ""
    """The last log lines of a finished job; `JobStore.log_tail` reads those of a running one."""
    retry_of: str | None = None
    owner: str = ""
    """The app that is to stop it when it is stopped itself; empty for a job that a verb started."""
    part: str = ""
    """Whose part of the workspace it works in; empty: nobody's (`Workspace.parts`)."""
    limit_s: float | None = None
    """Seconds after which it is ended."""
    login: bool = False
    """Whether it works with a token of whoever started it, see `studio.jobs.tokens`; the token is in no record."""

    @property
    def process(self) -> WorkerProcess | None:
        """The process that runs or ran it."""
        if self.pid is None or self.process_birth is None:
            return None
        return WorkerProcess(self.pid, self.process_birth, mark=self.id, place=self.place or HERE)

    @property
    def is_overdue(self) -> bool:
        """Whether it has run as long as it may."""
        return self.limit_s is not None and self.started is not None and time.time() - self.started >= self.limit_s

    @property
    def too_long(self) -> str:
        """Why it was ended then."""
        return f"It took longer than the {self.limit_s or 0.0:.0f} s that a job may take here."

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
    every core anyway. Everything here raises `FormatError` when the database is damaged, and `ResourceError` when it
    cannot be read or written now: the disk is full, or may not be written to.
    """

    def __init__(self, workspace: Workspace, slots: int | None = None) -> None:
        self.workspace = workspace
        self.slots = slots or SLOTS.value or 1
        self.owner = os.environ.get(OWNER_VARIABLE, "")
        """The app for which jobs are started here, empty for none."""
        self.closing = False
        """Whether no job is to be started here any more."""
        self._parts = workspace.parts()
        with self._explained():
            # Records are neither evicted nor culled: nobody wants the history of a job to vanish by itself.
            self._cache = Cache(str(self._place), disk=TextDisk, eviction_policy="none", cull_limit=0)

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
        with self._explained(), self._cache.transact(retry=True):
            yield

    def add(
        self,
        kind: str,
        title: str,
        parameters: dict[str, JsonValue],
        retry_of: str | None = None,
        *,
        login: bool = False,
    ) -> Job:
        """A new queued job, with a folder for its log; it comes after all others, whatever the clock says."""
        job_id = secrets.token_hex(4)
        self._folder(job_id).mkdir()
        with self.transaction():
            latest = max((job.created for job in self.everyones()), default=0.0)
            job = Job(
                id=job_id,
                kind=kind,
                title=title,
                parameters=parameters,
                created=max(time.time(), latest + _AFTER_S),
                retry_of=retry_of,
                part=self.workspace.part,
                limit_s=self.workspace.access.job_s,
                login=login,
            )
            self._write(job)
        return job

    def get(self, job_id: str) -> Job:
        """The job called `job_id`; `InputError` when this part has none, `FormatError` when its record is damaged."""
        with self._explained():
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
        with self._explained():
            known = [*self._cache]
        jobs = []
        for job_id in known:
            try:
                with self._explained():
                    text = self._cache.get(job_id, retry=True)
                if text is not None:  # removed meanwhile
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
        with self._explained():
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
        finished = max(time.time(), self.get(job_id).started or 0.0)  # the clock may have been set back meanwhile
        end = {"status": status, "finished": finished, "eta_s": None, "log_tail": self.log_tail(job_id)}
        return self.update(job_id, when=when, **{**changes, **end})

    def requeue(self, job: Job) -> Job:
        """Put a running job back among those that wait, unless it runs in another process by now.

        One that worked with somebody's login cannot go on by itself, and has failed.
        """
        with self.transaction():
            if self.get(job.id).process != job.process:
                return self.get(job.id)
            if job.login:
                return self.finish(job.id, "failed", error=LOGIN_LOST)
            nobody = {"pid": None, "process_birth": None, "place": ""}
            back = {"status": "queued", **nobody, "eta_s": None, "message": PAUSED}
            return self.update(job.id, when=RUNNING, **back)

    def log_path(self, job_id: str) -> Path:
        """Where everything that the job's process says is kept."""
        return self._folder(job_id) / "log.txt"

    def lock_path(self, job_id: str) -> Path:
        """The file whose lock the job's process holds as long as it lives."""
        return self._folder(job_id) / "lock"

    def is_locked(self, job: Job) -> bool | None:
        """Whether a living process holds the lock of `job`; None where that cannot be known."""
        return is_held(self.lock_path(job.id))

    def is_alive(self, job: Job) -> bool:
        """Whether the process of a running job lives, wherever it does; jobs without a lock are known by number."""
        held = self.is_locked(job)
        return held if held is not None else job.process is not None and job.process.is_alive()

    def made(self, job_id: str) -> Made:
        """The results that the job has given a name."""
        return Made(self._folder(job_id) / "made.txt")

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
        with self._explained():
            self._cache.set(job.id, job.model_dump_json(), retry=True)

    @property
    def _place(self) -> Path:
        return self._parts[""].jobs / "store"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell a database that is damaged, which nobody mends, from one that works again when its disk does."""
        try:
            yield
        except sqlite3.OperationalError as error:
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
            problem = "its disk is full" if full else str(error)
            remedy = "Free some space." if full else "May it be written to, and does its disk work?"
            raise ResourceError(f"The job store {self._place} cannot be used: {problem}.", remedy) from error
        except sqlite3.DatabaseError as error:
            problem = f"the job store is damaged ({error})"
            remedy = "Remove this folder; no artifact is in it."
            raise FormatError(self._place / "cache.db", "", problem, remedy) from error
