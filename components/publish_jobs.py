"""The jobs of one artifact, as each part of the station lists its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from components.jobs import job_html
from studio.jobs.store import Job, JobStore

CHECKS = ("verify", "replay")
OLLAMA = ("ollama",)
UPLOADS = ("publish",)
_SHOWN = {"publish": 3}
"""Kind → how many of those that are over are shown, one where nothing is said: an older check is of older files."""


def jobs_of(jobs: Sequence[Job], artifact: str, kinds: Sequence[str]) -> list[Job]:
    """Those among `jobs` of one of `kinds` that are about `artifact`, in their order."""
    return [job for job in jobs if job.kind in kinds and _artifact(job) == artifact]


def _artifact(job: Job) -> str:
    """The name of the artifact that a job is about."""
    told = next((job.parameters[key] for key in ("artifact", "manifest", "gguf") if key in job.parameters), "")
    parts = str(told).split("/")
    return parts[parts.index("artifacts") + 1] if "artifacts" in parts[:-1] else ""


def jobs_html(jobs: Sequence[Job], store: JobStore) -> str:
    """`jobs`, newest first: all that are under way and the latest of each kind that are over, each with its button."""
    over = {
        kind: [job.id for job in jobs if job.is_finished and job.kind == kind] for kind in {one.kind for one in jobs}
    }
    shown = {id for kind, ids in over.items() for id in ids[: _SHOWN.get(kind, 1)]}
    return "".join(_job(job, store) for job in jobs if not job.is_finished or job.id in shown)


def _job(job: Job, store: JobStore) -> str:
    tail = store.log_tail(job.id) if job.status == "failed" else ""
    action = "cancel" if not job.is_finished else "retry" if job.can_retry else ""
    word = "Go on with the upload" if (action, job.kind) == ("retry", "publish") else action.capitalize()
    button = (
        f"<button type='button' data-action='{action}' data-job='{job.id}' "
        f"aria-label='{escape(f'{word}: {job.title}', quote=True)}'>{word}</button>"
        if action
        else ""
    )
    return f"<article data-job='{job.id}'>{job_html(job, store.workspace, tail)}{button}</article>"
