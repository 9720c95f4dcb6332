"""The verbs for jobs. The page starts them; here they are watched, cancelled and started again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import Json, result, size
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.jobs.store import Job, JobStore

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `jobs list` shows it.")]


def list_(json: Json = False) -> None:
    """Show all jobs, the newest first."""
    from studio.jobs import runner

    jobs = runner.refresh(_store())
    text = "\n".join(_line(job) for job in jobs) or "There are no jobs."
    result(json, {"jobs": [_fields(job) for job in jobs]}, text)


def show(id_: JobId, json: Json = False) -> None:
    """Show one job, with the last lines of its log."""
    from studio.jobs import runner

    store = _store()
    runner.refresh(store)
    _tell(json, store, store.get(id_))


def cancel(id_: JobId, json: Json = False) -> None:
    """Stop a job, and remove what it had half written."""
    from studio.jobs import runner

    store = _store()
    _tell(json, store, runner.cancel(store, id_))


def resume(id_: JobId, json: Json = False) -> None:
    """Start a failed or cancelled job again.

    It becomes a new job, which goes on when this command ends.
    """
    from studio.jobs import runner

    store = _store()
    _tell(json, store, runner.retry(store, id_))


def _store() -> JobStore:
    from studio.jobs.store import JobStore

    return JobStore(Workspace.open())


def _tell(as_json: bool, store: JobStore, job: Job) -> None:
    tail = job.log_tail or store.log_tail(job.id)
    lines = [_line(job)]
    if job.error:
        lines.append(job.error)
    for file in job.files:
        lines.append(f"  {store.workspace.root / file['path']}  {size(file['bytes'])}  sha256 {file['sha256']}")
    if tail and not job.result:
        lines += ["Last lines of its log:", *(f"  {line}" for line in tail.splitlines())]
    result(as_json, {**_fields(job), "log_tail": tail}, "\n".join(lines))


def _line(job: Job) -> str:
    text = f"{job.id}  {job.status:<9}  {job.title}"
    if job.status == "running":
        text += f"  {job.fraction:.0%}"
        if job.eta_s is not None:
            text += f", about {max(1, round(job.eta_s))} s left"
        text += f"  {job.message}" if job.message else ""
    if job.started is not None and job.finished is not None:
        text += (
            f"  ({job.finished - job.started:.0f} s, {time.strftime('%Y-%m-%d %H:%M', time.localtime(job.started))})"
        )
    return text


def _fields(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json")
