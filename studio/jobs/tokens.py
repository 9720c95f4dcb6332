"""The tokens of people whose jobs wait: in the memory of the app that they gave them to, and nowhere else.

Only that app can start such a job, and it holds the job's lock until it does, so that everybody sees whether the token
is still there. The process of the job gets the token through a pipe, and the lock with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from studio import discretion
from studio.jobs.store import Job, JobStore
from studio.locks import locked


@dataclass(frozen=True)
class _Held:
    token: str = field(repr=False)
    lock: int | None
    holding: ExitStack


_HELD: dict[str, _Held] = {}
"""Job → what is held for it."""


def hold(store: JobStore, job: Job, token: str) -> None:
    """Keep `token` until `job` starts. Called before anybody else can see the job."""
    holding = ExitStack()
    _HELD[job.id] = _Held(token, holding.enter_context(locked(store.lock_path(job.id))), holding)


def is_held(job: Job) -> bool:
    """Whether this process has the token of `job`."""
    return job.id in _HELD


@contextmanager
def handed(job: Job) -> Iterator[tuple[int | None, str]]:
    """The descriptor of the lock and the token of `job`, for its process; this one has neither any more afterwards."""
    held = _HELD[job.id]
    try:
        yield held.lock, held.token
    finally:
        release(job.id)


def release(job_id: str) -> None:
    """Forget the token of a job, if there is one."""
    if held := _HELD.pop(job_id, None):
        held.holding.close()


def is_lost(store: JobStore, job: Job) -> bool:
    """Whether `job` waits for a token that nobody has any more."""
    return job.status == "queued" and job.login and not is_held(job) and store.is_locked(job) is False


discretion.also(lambda: [held.token for held in _HELD.values()])
