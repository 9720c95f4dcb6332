"""Why a cell stays or leaves, and what the map does, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request

OpenPage = Callable[..., Page]


def point_at_a_cell(page: Page) -> None:
    page.locator(".plot").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#cell h3")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_reasons_fit_the_page(open_page: OpenPage, width: int, theme: str) -> None:
    page = open_page(width=width, query=f"?__theme={theme}")
    assert page.locator("#why-text section").count() == 0, "nothing is computed before somebody looks"
    point_at_a_cell(page)
    page.locator("#why button", has_text="What the map does").click()
    page.wait_for_selector("#why-text section")
    assert "is hurt most" in page.inner_text("#why-text")
    assert page.locator("#cell figure[role=img]").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_reason_follows_the_recipe(open_page: OpenPage) -> None:
    page = open_page()
    point_at_a_cell(page)
    page.locator("#why button", has_text="What the map does").click()
    page.wait_for_selector("#why-text section")
    experts = page.evaluate("document.querySelector('.plot').layout.meta.experts")
    for drop, words in ((0, "nobody leaves by score"), (experts // 2, f"{experts - experts // 2} are kept")):
        page.locator("#drop input[type=number]").fill(str(drop))
        page.locator("#drop input[type=number]").press("Enter")
        page.wait_for_function(f"document.querySelector('#cell').innerText.includes('{words}')")
    page.wait_for_function("!document.querySelector('#why-text').innerText.includes('(100 % kept)')")


def test_closed_panels_ask_nothing_of_the_server(open_page: OpenPage) -> None:
    page = open_page()
    asked: list[int] = []

    def listen(request: Request) -> None:
        if request.method == "POST":
            asked.append(request.post_data_json["fn_index"])

    page.on("request", listen)
    page.wait_for_timeout(5500)
    timers = set(asked)
    page.click("#map-mode label:has-text('Keep')")
    page.locator(".plot").focus()
    for key in ("ArrowDown", "k"):
        page.keyboard.press(key)
    page.wait_for_selector("#see .by-hand:has-text('1 kept')")
    page.wait_for_timeout(500)  # a panel would ask after the map
    assert len([one for one in asked if one not in timers]) == 1, "the map itself, and no panel"


def test_a_chosen_cell_is_there_after_a_reload_and_follows(open_page: OpenPage) -> None:
    page = open_page()
    point_at_a_cell(page)
    page.reload()
    page.wait_for_selector("#cell h3")
    page.locator("#drop input[type=number]").fill("0")
    page.locator("#drop input[type=number]").press("Enter")
    page.wait_for_function("document.querySelector('#cell').innerText.includes('nobody leaves by score')")


def test_the_cut_of_any_layer_can_be_looked_at(open_page: OpenPage) -> None:
    page = open_page()
    page.locator("#why button", has_text="What the map does").click()
    page.wait_for_selector("#why-curve h3:has-text('Layer 0:')")
    page.click("#why-layer input")
    page.locator("ul[role=listbox] li", has_text="4").click()
    page.wait_for_selector("#why-curve h3:has-text('Layer 4:')")
    page.locator("#drop input[type=number]").fill("0")
    page.locator("#drop input[type=number]").press("Enter")
    page.wait_for_selector("#why-curve h3:has-text('Layer 4: nobody leaves by score')")
