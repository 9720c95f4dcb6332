"""A build from the page: watched, cancelled, interrupted, found again."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from studio.jobs.store import JobStore
from studio.workspace import Workspace

OpenPage = Callable[..., Page]
DONE_MS = 300_000


def start(page: Page, name: str, *outputs: str) -> None:
    """Start a build of `outputs`, and wait until its job is on the page."""
    for box in page.locator("#outputs label").all():
        ticked = box.locator("input").is_checked()
        if ticked != (box.inner_text().strip() in outputs):
            box.click()
    page.locator("#build-name input, #build-name textarea").first.fill(name)
    page.click("#build-start")
    page.wait_for_function(f"document.querySelector('#job-panel').innerText.includes('Build {name}:')")


def wait_for_status(page: Page, status: str) -> None:
    page.wait_for_selector(f"#job-panel .badge.{status}", timeout=DONE_MS)


def newest_job(workspace: Path) -> Any:
    store = JobStore(Workspace.open(workspace))
    try:
        return store.list()[0]
    finally:
        store.close()


def test_a_build_is_watched_to_its_files_and_survives_a_reload(open_page: OpenPage, app: Any, tmp_path: Path) -> None:
    page = open_page()
    start(page, "watched", "Safetensors", "Q8_0")
    page.wait_for_selector("#job-panel [role=progressbar]")
    page.reload()
    page.wait_for_selector("#job-panel :text('Build watched:')")
    wait_for_status(page, "done")
    names = page.locator("#job-panel td:first-child").all_inner_texts()
    assert {"watched-Q8_0.gguf", "config.json", "espalier-manifest.json"} <= set(names)
    row = page.locator("#job-panel tr", has_text="watched-Q8_0.gguf")
    with page.expect_download() as saving:
        row.locator("a").click()
    saved = tmp_path / "saved.gguf"
    saving.value.save_as(saved)
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert row.locator(".hash").get_attribute("title") == digest
    assert saved.read_bytes() == (app.workspace / "artifacts/watched/gguf/watched-Q8_0.gguf").read_bytes()
    page.click("#job-log button")
    assert "done" in page.locator("#job-log .log").inner_text()
    page.wait_for_function("document.querySelector('#model-B input')?.value.includes('watched')")


def test_a_name_that_is_taken_or_impossible_is_said_before_anything_starts(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#build-name input, #build-name textarea").first.fill("../outside")
    page.click("#build-start")
    page.wait_for_selector("#build .notice.error")
    assert "../outside" in page.inner_text("#build .notice.error")


def test_cancelling_leaves_nothing_behind(open_page: OpenPage, app: Any) -> None:
    page = open_page()
    start(page, "unwanted", "Safetensors", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
    page.click("#job-cancel")
    wait_for_status(page, "cancelled")
    assert not list((app.workspace / "artifacts").glob("*unwanted*"))
    assert not list((app.workspace / "artifacts").glob(".unwanted*"))


def test_a_job_that_was_killed_says_so_and_can_be_retried(open_page: OpenPage, app: Any) -> None:
    page = open_page()
    start(page, "killed", "Safetensors", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
    page.wait_for_selector("#job-panel [role=progressbar]")
    job = newest_job(app.workspace)
    assert job.pid is not None, "the job has a process of its own"
    os.killpg(job.pid, signal.SIGKILL)
    wait_for_status(page, "failed")
    assert "died" in page.inner_text("#job-panel .notice.error")
    page.click("#job-retry")
    wait_for_status(page, "done")
    assert (app.workspace / "artifacts/killed/espalier-manifest.json").exists()
