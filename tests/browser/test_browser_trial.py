"""A map is tried on the page before anything is built, with the real demo model in its child process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.patience import PATIENCE_S

OpenPage = Callable[..., Page]
LONG = PATIENCE_S * 1000


def open_panel(page: Page, per_class: int = 3) -> None:
    page.locator("#trial > button").click()
    page.wait_for_selector("#trial-text .notice, #trial-text table")
    page.locator("#trial-prompts > button").click()
    number = page.locator("#trial-per-class input[type=number]")
    number.fill(str(per_class))
    number.press("Tab")
    page.locator("#trial-prompts > button").click()


def drop(page: Page, count: int) -> None:
    page.locator("#drop input[type=number]").fill(str(count))
    page.locator("#drop input[type=number]").press("Enter")


def test_a_map_is_measured_then_the_next_by_itself_and_both_are_compared(open_page: OpenPage) -> None:
    page = open_page()
    open_panel(page)
    expect(page.locator("#trial-text")).to_contain_text("This map has not been tried")
    page.click("#trial-measure")
    page.wait_for_selector("#trial-status .job-bar")
    text = page.locator("#trial-text")
    expect(text).to_contain_text("With 8 of 32 experts dropped", timeout=LONG)
    assert page.locator("#trial-text tbody tr").count() == 6
    drop(page, 12)
    expect(text).to_contain_text("These numbers are of another map", timeout=LONG)
    page.locator("#trial-always input").check()
    expect(text).to_contain_text("With 12 of 32 experts dropped", timeout=LONG)
    expect(text).to_contain_text("1: 98e-v4, 8 dropped, moves them by")
    drop(page, 8)  # known already: shown without being measured
    expect(text).to_contain_text("With 8 of 32 experts dropped", timeout=LONG)
    expect(page.locator("#trial-cancel")).to_be_hidden()


def test_a_trial_is_cancelled_and_found_again_after_a_reload(open_page: OpenPage) -> None:
    page = open_page()
    drop(page, 13)
    open_panel(page, 60)
    page.click("#trial-measure")
    page.click("#trial-cancel")
    expect(page.locator("#trial-status")).to_contain_text("Cancelled.", timeout=LONG)
    expect(page.locator("#trial-measure")).to_be_enabled()
    page.click("#trial-measure")
    page.wait_for_selector("#trial-status .job-bar")
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    open_panel(page, 60)
    page.locator("#trial > button").click()
    page.locator("#trial > button").click()  # with the same prompts again
    expect(page.locator("#trial-text")).to_contain_text("With 13 of 32 experts dropped", timeout=LONG)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_part_fits(open_page: OpenPage, width: int, theme: str) -> None:
    page = open_page(width=width, query=f"?__theme={theme}")
    open_panel(page)
    page.click("#trial-measure")
    expect(page.locator("#trial-text")).to_contain_text("With 8 of 32", timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") == width
