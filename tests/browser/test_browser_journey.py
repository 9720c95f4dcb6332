"""The whole way: from first paint to the answers of the reference and of a model that was just made from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page

OpenPage = Callable[..., Page]
BUILD_MS = 300_000
ANSWER_MS = 120_000


def test_from_first_paint_to_two_answers(open_page: OpenPage, app: Any) -> None:
    page = open_page()

    # See: what does each expert do for code?
    page.click("#map-class input")
    page.locator("ul[role=listbox] li", has_text="Code").first.click()
    page.wait_for_function("document.querySelector('.plot-title').innerText.includes('contribute to code')")

    # Choose: half of the experts go, code counts three times.
    layers, experts = page.evaluate(
        "(({layers, experts}) => [layers.length, experts])(document.querySelector('.plot').layout.meta)"
    )
    page.locator("#drop input[type=number]").fill(str(experts // 2))
    page.locator("#drop input[type=number]").press("Enter")
    page.wait_for_function(f"document.querySelector('.plot').dataset.dropped === '{layers * (experts // 2)}'")
    page.locator("#weights .weight", has_text="Code").locator("input[type=number]").fill("3")
    page.wait_for_function(
        f"document.querySelector('#meaning').innerText.includes('{experts - experts // 2} of {experts}')"
    )
    name = page.input_value("#build-name input, #build-name textarea")
    assert name.endswith(f"-{experts - experts // 2}e")

    # Build: a Q4_K_M, with a progress bar, to a file with a hash.
    page.click("#build-start")
    page.wait_for_selector("#job-panel [role=progressbar]")
    page.wait_for_selector(f"#job-panel:has-text('Build {name}:') .badge.done", timeout=BUILD_MS)
    assert page.locator("#job-panel tr", has_text=f"{name}-Q4_K_M.gguf").locator(".hash").count() == 1
    assert (app.workspace / f"artifacts/{name}/gguf/{name}-Q4_K_M.gguf").exists()

    # Talk: the same question to both.
    page.wait_for_function(f"document.querySelector('#model-B input')?.value.includes('{name}')")
    page.locator("#prompt textarea").fill("2 + 3 = ?")
    page.click("#send")
    for side in "AB":
        done = f"/[1-9][0-9]* tokens?/.test(document.querySelector('#stats-{side}').innerText)"
        page.wait_for_function(done, timeout=ANSWER_MS)
        assert page.locator(f"#chat-{side} .bot, #chat-{side} [data-testid=bot]").last.inner_text().strip()
    page.wait_for_function("!document.querySelector('#send').disabled")
