"""A model is measured from the page, and the analysis is there to be chosen."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.patience import PATIENCE_S

LONG = PATIENCE_S * 1000


def test_a_model_is_measured_on_the_page(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.locator("#measure > button").click()
    for klass in ("Logic", "Science", "Creative"):
        page.locator("#measure-classes").get_by_label(klass).uncheck()
    number = page.locator("#measure input[type=number]").first
    number.fill("2")
    number.press("Tab")
    page.locator("#measure-show button, button#measure-show").first.click()
    seen = page.locator("#measure-seen")
    expect(seen).to_contain_text("What the model will see: 4 prompts", timeout=LONG)
    seen.locator("details").first.locator("summary").click()
    expect(seen.locator("pre").first).to_contain_text("<|turn>")
    page.locator("#measure-name input, #measure-name textarea").fill("two-of-each")
    page.locator("#measure-start button, button#measure-start").first.click()
    expect(page.locator("#measure-job")).to_contain_text("done", timeout=LONG)
    page.locator("#analysis input").click()
    page.get_by_role("option", name="two-of-each").click()
    expect(page.locator("#analysis-facts")).to_contain_text("math, code", timeout=LONG)
