"""The page as a process: its health, and its end while people use it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser

from studio.jobs.store import JobStore
from studio.workspace import Workspace
from tests.browser.conftest import ROOT, running_process
from tests.patience import PATIENCE_S, eventually

SOON_S = 10.0
"""Containers kill everything after that."""
SEARCH = {
    "reference": "demo",
    "name": "found",
    "contributions": str(ROOT / "assets" / "demo-contributions.safetensors"),
    "drops": [8],
    "budget": 300,
}


def living(processes: Sequence[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def require_end(process: subprocess.Popen[bytes], number: int) -> None:
    """Within `SOON_S` nothing is left of it and its children."""
    family, since = children_of(process.pid), time.monotonic()
    process.send_signal(number)
    assert process.wait(SOON_S) == 0
    while living(family):
        assert time.monotonic() - since < SOON_S, living(family)
        time.sleep(0.05)


def answer_of(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.timeout(900)  # two apps, a model and a search, on a machine that may have much else to do
def test_an_app_that_is_told_to_end_leaves_no_process_and_its_job_goes_on_with_the_next(
    browser: Browser, tmp_path: Path
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    store = JobStore(workspace)
    job = store.add("search", "Search", SEARCH)  # it waits, as a job that was paused does
    with running_process(workspace.root) as (process, url):
        page = browser.new_page()
        page.context.set_default_timeout(PATIENCE_S * 1000)
        page.goto(url)
        page.wait_for_selector(".plot[data-drawn]")
        page.locator("#model-A input").click()
        page.locator("ul[role=listbox] li", has_text="The current map (virtual)").click()
        page.locator("#prompt textarea").fill("Count from one to a thousand.")
        page.click("#send")
        assert eventually(lambda: any("virtual_worker" in line for line in living(children_of(process.pid))))
        assert eventually(lambda: store.get(job.id).done > 0)
        assert any(job.id in line for line in living(children_of(process.pid)))
        require_end(process, signal.SIGTERM)
        page.close()
    paused = store.get(job.id)
    assert paused.status == "queued" and (workspace.searches / "found" / "journal.jsonl").exists()
    with running_process(workspace.root) as (process, url):
        assert eventually(lambda: store.get(job.id).status == "running" and store.get(job.id).done >= paused.done)
        assert answer_of(f"{url}health") == (200, "ok\n")
        with sqlite3.connect(workspace.jobs / "store" / "cache.db") as connection:
            connection.execute("ALTER TABLE Cache RENAME TO Lost")
        status, said = answer_of(f"{url}health")
        assert status == 503 and "jobs" in said
        with sqlite3.connect(workspace.jobs / "store" / "cache.db") as connection:
            connection.execute("ALTER TABLE Lost RENAME TO Cache")
        require_end(process, signal.SIGINT)


def test_an_app_whose_jobs_are_damaged_meanwhile_ends_with_a_sentence(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    with running_process(root) as (process, url):
        for file in (root / "jobs" / "store").glob("cache.db*"):
            file.write_bytes(b"not a database" * 1000)
        assert answer_of(f"{url}health")[0] == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == 2
    said = (tmp_path / "workspace-app.log").read_text()
    assert "its jobs could not be paused" in said and "Traceback" not in said


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
