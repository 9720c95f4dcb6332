"""The panel of insights, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

OpenPage = Callable[..., Page]


def open_panel(page: Page) -> None:
    assert page.locator("#insights-text section").count() == 0, "nothing is computed before somebody looks"
    page.locator("#insights button", has_text="as a whole").click()
    page.wait_for_selector("#insights-text section")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_panel_answers_and_fits(open_page: OpenPage, width: int, theme: str) -> None:
    page = open_page(width=width, query=f"?__theme={theme}")
    open_panel(page)
    told = page.inner_text("#insights-text")
    for words in ("Half of what experts give comes from", "Two classes share", "contributes most", "sure ranking"):
        assert words in told
    page.locator("#insights-text summary").click()
    assert (
        page.locator("#insights-text .numbers tbody tr").count() == page.locator("#insights-text .columns li").count()
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    curve = page.locator("#insights-text .curve svg").bounding_box()
    assert curve is not None and curve["width"] > 200 and curve["height"] > 100


def test_another_analysis_is_answered_while_the_panel_is_open(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    open_panel(page)
    layers, experts = page.evaluate(
        "(({layers, experts}) => [layers.length, experts])(document.querySelector('.plot').layout.meta)"
    )
    one_gives_all = [1.0] + [0.0] * (experts - 1)
    (tmp_path / "one.json").write_text(json.dumps({str(layer): {"tokens": one_gives_all} for layer in range(layers)}))
    page.locator("button", has_text="Use another analysis").click()
    page.set_input_files("#analysis-upload input[type=file]", tmp_path / "one.json")
    page.wait_for_function("document.querySelector('#insights-text').innerText.includes('comes from 1 of')")
    assert "are never used" in page.inner_text("#insights-text")
    assert "routed tokens, because there are no norms" in page.inner_text("#insights-text")
    assert "There is one class only" in page.inner_text("#insights-text")


def test_experts_are_compared_when_asked(open_page: OpenPage, app: Any) -> None:
    page = open_page()
    open_panel(page)
    page.click("#insights-compare")
    page.wait_for_selector("#insights-alike table")
    assert "the most alike are experts" in page.inner_text("#insights-alike")
    page.locator("#job input").click()  # among the jobs, of which another may be looked at
    page.get_by_role("option", name="Compare experts of demo").first.wait_for()
