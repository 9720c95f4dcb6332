"""Two maps are compared while the recipe changes, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

OpenPage = Callable[..., Page]


def open_panel(page: Page) -> None:
    assert page.locator("#compare-text section").count() == 0, "nothing is computed before somebody looks"
    page.locator("#compare button", has_text="Compare with another map").click()
    page.wait_for_selector("#compare-text section")


def drop(page: Page, count: int) -> None:
    page.locator("#drop input[type=number]").fill(str(count))
    page.locator("#drop input[type=number]").press("Enter")
    page.wait_for_function(
        f"document.querySelector('#compare-text').innerText.includes('shown: 98e-v4, {count} dropped')"
    )


def test_the_kept_map_stays_while_the_recipe_changes(open_page: OpenPage) -> None:
    page = open_page()
    open_panel(page)
    drop(page, 6)
    page.click("#compare-keep")
    page.wait_for_function("document.querySelector('#compare-text').innerText.includes('drop the same experts')")
    for count in (3, 9):
        drop(page, count)
        assert "A is 98e-v4, 6 dropped" in page.inner_text("#compare-text")
    assert "0 come back" in page.locator("#compare-text h3").first.inner_text()
    drop(page, 6)
    assert "drop the same experts" in page.inner_text("#compare-text")
    drop(page, 9)
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    expect(page.locator("#drop input[type=number]")).to_have_value("9")
    open_panel(page)
    assert "A is 98e-v4, 6 dropped" in page.inner_text("#compare-text")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_a_map_from_a_file_is_compared_and_fits(open_page: OpenPage, tmp_path: Path, width: int, theme: str) -> None:
    page = open_page(width=width, query=f"?__theme={theme}")
    open_panel(page)
    layers = page.evaluate("document.querySelector('.plot').layout.meta.layers.length")
    lines = ", ".join(f'"{layer}": [0, 1, 2]' for layer in range(layers))
    (tmp_path / "published.json").write_text(f"{{{lines}}}")
    page.locator("#compare-file button", has_text="Compare with a file").click()
    page.set_input_files("#compare-upload input[type=file]", tmp_path / "published.json")
    page.wait_for_function("document.querySelector('#compare-text').innerText.includes('A is published.json')")
    assert page.locator("#compare-text figure[role=img]").count() == 3
    page.locator("#compare-text summary", has_text="The experts of every layer").click()
    assert page.locator("#compare-text .numbers").last.locator("tbody tr").count() == layers
    assert page.evaluate("document.documentElement.scrollWidth") == width
    (tmp_path / "broken.json").write_text("{")
    page.set_input_files("#compare-upload input[type=file]", tmp_path / "broken.json")
    page.wait_for_selector("#compare-text .notice.error")
