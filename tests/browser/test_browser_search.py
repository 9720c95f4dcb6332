"""A search runs as a job, is found again after a reload, goes on after it was cancelled, and its points are opened."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.patience import PATIENCE_S

OpenPage = Callable[..., Page]
LONG = PATIENCE_S * 1000
DRAWN = "Number(document.querySelector('#search-plot .points').dataset.drawn || 0)"


def open_panel(page: Page) -> None:
    page.locator("#search > button").click()
    page.wait_for_selector("#search-status :is(.notice, p)")


def ask(page: Page, seconds: int) -> None:
    page.locator("#search-shares").get_by_label("25 %").uncheck()
    page.locator("#search-budget input").fill(str(seconds))
    page.locator("#search-prompts > button").click()
    page.locator("#search-per-class input[type=number]").fill("2")
    page.locator("#search-per-class input[type=number]").press("Tab")
    page.click("#search-start")
    page.wait_for_selector("#search-status .job-line")


def test_a_search_from_its_start_to_a_recipe_of_it(open_page: OpenPage) -> None:
    page = open_page()
    open_panel(page)
    ask(page, 20)
    page.wait_for_function(f"{DRAWN} >= 2")
    page.click("#search-cancel")
    expect(page.locator("#search-status")).to_contain_text("Cancelled after", timeout=LONG)
    page.click("#search-again")
    page.wait_for_selector("#search-status .job-line")
    page.wait_for_timeout(1500)  # gradio complains where the answer to a click is broken off by leaving the page
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    open_panel(page)
    expect(page.locator("#search-status code")).to_be_visible(timeout=LONG)
    page.wait_for_function(f"{DRAWN} >= 5")  # the fixed criteria at least

    page.locator("#search-list .numbers summary").click()
    chosen = page.locator("#search-list .numbers button", has_text="frequency").first
    chosen.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#drop input[type=number]")).to_have_value("16", timeout=LONG)
    page.locator("#steps > button").click()
    expect(page.locator("#steps-list")).to_contain_text("found by search: frequency", timeout=LONG)
    expect(page.locator("#search-list [aria-current]").first).to_contain_text("frequency", timeout=LONG)

    page.locator("#search-plot").scroll_into_view_if_needed()
    place = page.evaluate(
        """() => {
          const plot = document.querySelector('#search-plot .points'), box = plot.getBoundingClientRect();
          const trace = plot._fullData.find((one) => one.name === 'Fixed criterion');
          const {xaxis, yaxis} = plot._fullLayout, at = trace.customdata.length - 1;
          return [box.left + xaxis._offset + xaxis.d2p(trace.x[at]), box.top + yaxis._offset + yaxis.d2p(trace.y[at]),
                  trace.hovertext[at]];
        }"""
    )
    page.mouse.move(place[0], place[1])
    page.mouse.click(place[0], place[1])
    label = place[2].removeprefix("<b>").partition("</b>")[0]
    expect(page.locator("#steps-list [aria-current]")).to_contain_text(f"found by search: {label}", timeout=LONG)


def test_what_cannot_be_searched_is_said_beside_the_button(open_page: OpenPage) -> None:
    page = open_page()
    open_panel(page)
    page.locator("#search-counts input, #search-counts textarea").first.fill("31")
    page.click("#search-start")
    expect(page.locator("#search-problem")).to_contain_text("at most 28", timeout=LONG)
