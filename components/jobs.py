"""How a job looks: progress, estimate, log, files with their hashes. The job runs elsewhere; the page only watches."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from components.markup import duration_text, notice, table
from components.publish_outcome import OUTCOMES, differs
from studio.jobs.store import Job
from studio.units import size_text
from studio.workspace import Workspace

WORDS = {
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
WATCH_S = 1.0
"""How often a page looks at a job that is under way."""
IDLE_S = 5.0
"""How often it looks whether one was started elsewhere."""

NOTHING_YET = "<p class='quiet'>Nothing has been built yet. What you start keeps running when this page is closed.</p>"


def job_html(job: Job | None, workspace: Workspace, log_tail: str = "") -> str:
    """The state of one job, with what it made or why it failed."""
    if job is None:
        return NOTHING_YET
    looks, word = ("failed", "not the same") if differs(job.kind, job.result or {}) else (job.status, WORDS[job.status])
    head = (
        f"<p class='job-line' aria-live='polite'><strong>{escape(job.title)}</strong>"
        f"<span class='badge {looks}'>{word}</span></p>"
    )
    body = {
        "queued": _queued,
        "running": _running,
        "done": lambda done: _done(done, workspace),
        "failed": lambda failed: _failed(failed, log_tail),
        "cancelled": _cancelled,
    }[job.status]
    return head + body(job)


def job_choices(jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """Jobs for a selector, the newest first."""
    return [(f"{job.title} · {WORDS[job.status]}", job.id) for job in jobs]


def _queued(job: Job) -> str:
    if job.message:  # it was paused
        return notice("Waiting.", job.message)
    return notice("Waiting for the job before it.", "One job uses all cores, so they run one after the other.")


def _running(job: Job) -> str:
    percent = 100 * job.fraction
    left = f"about {duration_text(job.eta_s)} left" if job.eta_s is not None else "estimating the time left"
    amount = (
        f"{size_text(job.done)} of {size_text(job.total)}"
        if job.unit == "bytes"
        else f"{job.done} of {job.total} {job.unit}"
    )
    counted = f"{percent:.0f} % · {amount}" if job.total else "counting the work"
    return bar_html(job.fraction, counted, left, "Progress of the job") + f"<p class='quiet'>{escape(job.message)}</p>"


def bar_html(fraction: float, counted: str, left: str, label: str) -> str:
    """A bar for `fraction` (0 to 1) of some work, with a text at each end of the line below it."""
    percent = 100 * fraction
    return (
        f"<div class='job-bar' role='progressbar' aria-label='{escape(label)}' aria-valuemin='0' "
        f"aria-valuemax='100' aria-valuenow='{percent:.0f}'><i style='width:{percent:.1f}%'></i></div>"
        f"<p class='job-line'><span class='number'>{escape(counted)}</span><span>{escape(left)}</span></p>"
    )


def _cancelled(job: Job) -> str:
    if job.kind == "publish":
        return notice("Cancelled.", "What the Hub has already is not sent again when you go on.")
    return notice("Cancelled.", "Nothing was kept of it; Retry starts it again.")


def _done(job: Job, workspace: Workspace) -> str:
    result = job.result or {}
    if job.kind in OUTCOMES:
        return OUTCOMES[job.kind](result)
    if "says" in result:
        return f"<p>{escape(str(result['says']))}</p>"
    took = f" in {duration_text(job.finished - job.started)}" if job.started and job.finished else ""
    listed = result.get("files")
    rows = [_file_row(workspace, entry) for entry in listed] if isinstance(listed, list) else []
    if "manifest" in result:
        rows.append((_link(workspace, str(result["manifest"])), "", "how they were made"))
    folder = workspace.root / str(result.get("folder", ""))
    place = f"The files lie in <code>{escape(str(folder))}</code>."
    if not workspace.access.is_full:  # the folder is on a machine that is not theirs, and goes when they do
        place = "The files go when you leave: download what you want to keep."
    said = f"<p>Made{took}. {place}</p>"
    return said + (table(("File", "Size", "SHA-256"), rows, numeric=(1,)) if rows else "")


def _file_row(workspace: Workspace, entry: object) -> tuple[str, str, str]:
    """(link, size, hash) of one file."""
    assert isinstance(entry, dict)
    digest = escape(str(entry["sha256"]))
    shown = f"<span class='hash mono' title='{digest}'>{digest[:16]}…</span>"
    return _link(workspace, str(entry["path"])), size_text(int(entry["bytes"])), shown


def _link(workspace: Workspace, relative: str) -> str:
    """A download; relative to the page, so that it works behind a proxy."""
    path = workspace.root / relative
    return f'<a href="gradio_api/file={quote(str(path))}" download="{escape(path.name)}">{escape(path.name)}</a>'


def _failed(job: Job, log_tail: str) -> str:
    tail = job.log_tail or log_tail
    log = f"<p class='panel-title'>Last lines of its log</p><pre class='log'>{escape(tail)}</pre>" if tail else ""
    return notice(job.error or "The job failed.", "", "error") + log
