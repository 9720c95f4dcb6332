"""Every tier's size on the page, and any of them ticked for the build."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

OpenPage = Callable[..., Page]
ROW = "#tier-table tr[data-tier='IQ4_XS']"


def open_table(page: Page) -> None:
    page.click("#all-sizes > button")
    page.wait_for_selector(ROW)


def choose(page: Page, selector: str, label: str) -> None:
    page.click(f"{selector} input")
    page.click(f"[role=option]:has-text('{label}')")


def test_a_tier_is_found_in_the_table_and_ticked_with_its_size(open_page: OpenPage) -> None:
    page = open_page()
    open_table(page)
    assert "GiB" in page.inner_text(ROW) and "fits" in page.inner_text(ROW)
    assert page.locator("#tier-table th.chosen").count() == 1
    choose(page, "#card", "12 GB")
    page.wait_for_selector("#tier-table p:has-text('11.4 GiB for models')")
    page.click("#more-tiers label:has-text('IQ4_XS')")
    page.wait_for_selector("#sizes strong:text-is('IQ4_XS')")
    assert "MiB" in page.locator("#sizes tr", has_text="IQ4_XS").first.inner_text()
    page.locator("#build button", has_text="The same as commands").click()
    assert "--tier IQ4_XS" in page.locator("#command").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_table_scrolls_in_its_own_box_on_a_phone(open_page: OpenPage, scheme: str) -> None:
    page = open_page(width=390, height=844, color_scheme=scheme)
    open_table(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('.tiers'))")
