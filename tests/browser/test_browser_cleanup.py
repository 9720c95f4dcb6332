"""Disk space on the real page: looked at, and removed after a question."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.conftest import App

OpenPage = Callable[..., Page]


def test_a_file_goes_only_after_a_second_click(open_page: OpenPage, app: App) -> None:
    kept, gone = (app.workspace / "prompts" / name for name in ("kept.jsonl", "gone.jsonl"))
    cached = app.workspace / "cache" / "converted" / "0123-bf16.gguf"
    for path in (kept, gone, cached):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    page = open_page()
    page.get_by_text("Disk space").click()
    row = page.locator("#cleanup-list tr", has_text="prompts/gone.jsonl")
    row.get_by_role("button", name="Remove prompts/gone.jsonl").click()
    row.get_by_role("button", name="Keep").click()
    row.get_by_role("button", name="Remove prompts/gone.jsonl").click()
    assert gone.exists()
    row.get_by_role("button", name="Yes, remove").click()
    page.get_by_text("Removed prompts/gone.jsonl").wait_for()
    assert not gone.exists() and kept.exists()
    page.get_by_role("button", name="Remove all that comes back by itself").click()
    page.get_by_role("button", name="Yes, remove").click()
    page.wait_for_function("!document.querySelector('#cleanup-list').innerText.includes('converted')")
    assert not cached.exists() and kept.exists()
