"""The number of dropped experts is chosen by size, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

OpenPage = Callable[..., Page]


def open_panel(page: Page) -> None:
    assert page.locator("#counts-text section").count() == 0, "nothing is computed before somebody looks"
    page.locator("#counts button", has_text="each number").click()
    page.wait_for_selector("#counts-answer .notice")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_curves_fit_the_page(open_page: OpenPage, width: int, theme: str) -> None:
    page = open_page(width=width, query=f"?__theme={theme}")
    open_panel(page)
    assert page.locator("#counts-text figure[role=img]").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_size_sets_the_slider_and_the_curves_follow_it(open_page: OpenPage) -> None:
    page = open_page()
    open_panel(page)
    whole = page.locator("#counts-text h3").nth(1).inner_text()
    mebibytes = float(whole.split(" MiB with none")[0].rsplit(" ", 1)[1])
    page.click("#counts-room input")
    page.locator("ul[role=listbox] li", has_text="A file of").click()
    page.locator("#counts-gib input").fill(str(round(0.7 * mebibytes / 1024, 5)))
    page.wait_for_function("/^Drop [1-9]/.test(document.querySelector('#counts-answer').innerText)")
    drop = int(page.inner_text("#counts-answer").split()[1])
    page.wait_for_selector(f"#counts-use:has-text('Drop {drop} in every layer')")
    page.click("#counts-use")
    layers = page.evaluate("document.querySelector('.plot').layout.meta.layers.length")
    page.wait_for_function(f"document.querySelector('.plot').dataset.dropped === '{layers * drop}'")
    page.wait_for_function(f"document.querySelector('#counts-text h3').innerText.startsWith('Dropping {drop} keeps')")
    assert page.input_value("#drop input[type=number]") == str(drop)
    assert page.is_disabled("#counts-use")


def test_the_number_follows_the_card_and_the_context_that_are_chosen_elsewhere(open_page: OpenPage) -> None:
    page = open_page()
    open_panel(page)
    page.locator("#all-sizes button", has_text="All tiers").click()
    page.wait_for_selector("#tier-table table")
    page.click("#card input")
    page.locator("ul[role=listbox] li", has_text="12 GB").click()
    page.wait_for_selector("#counts-answer:has-text('a card with 11.4 GiB for models')")
    page.click("#fit-context input")
    page.locator("ul[role=listbox] li").first.click()
    page.wait_for_selector("#counts-answer:has-text('with 4,096 tokens of context')")
    page.reload()
    expect(page.locator("#drop input[type=number]")).not_to_have_value("")
    page.locator("#counts button", has_text="each number").click()
    page.wait_for_selector("#counts-answer:has-text('a card with 11.4 GiB for models, with 4,096 tokens')")
