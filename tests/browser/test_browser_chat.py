"""The chat on the real page: what was said is there after a reload, and only for who said it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import App, running_app
from tests.patience import PATIENCE_S

OpenPage = Callable[..., Page]
PEOPLE = {"ann": "one", "bob": "two"}


@pytest.fixture(scope="module")
def app_for_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with two logins."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ESPALIER_AUTH", "\n".join(f"{user}:{password}" for user, password in PEOPLE.items()))
        with running_app(tmp_path_factory.mktemp("two") / "workspace") as started:
            patched.undo()  # other apps of this run have no login
            yield started


def page_of(browser: Browser, app: App, user: str) -> Page:
    """The page in a browser of `user`'s own, logged in."""
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.context.set_default_timeout(PATIENCE_S * 1000)
    page.goto(app.url)
    page.locator("input[type=text], textarea, input:not([type])").first.fill(user)
    page.locator("input[type=password]").fill(PEOPLE[user])
    page.get_by_role("button", name=re.compile("log ?in", re.IGNORECASE)).click()
    page.wait_for_selector(".plot[data-drawn]")
    page.wait_for_function("document.querySelector('#model-A input')?.value.includes('demo')")
    return page


def ask(page: Page, question: str) -> None:
    page.locator("#prompt textarea").fill(question)
    page.click("#send")
    page.wait_for_function("/[1-9][0-9]* tokens?/.test(document.querySelector('#stats-A').innerText)")
    page.wait_for_function("!document.querySelector('#send').disabled")


def test_two_people_see_their_own_conversations_only_and_find_them_again(browser: Browser, app_for_two: App) -> None:
    ann, bob = (page_of(browser, app_for_two, user) for user in PEOPLE)
    ask(ann, "3 + 4 = ?")
    ask(bob, "9 - 2 = ?")
    ann.click("#add-column")
    ann.locator("#chat-C").wait_for()
    for page, own, others in ((ann, "3 + 4", "9 - 2"), (bob, "9 - 2", "3 + 4")):
        page.reload()
        page.locator("#chat-A").get_by_text(f"{own} = ?").wait_for()
        assert others not in page.inner_text("#talk")
    assert ann.locator("#chat-C").is_visible() and not bob.locator("#chat-C").is_visible()
    stored = [
        path.read_text(encoding="utf-8") for path in (app_for_two.workspace / "people").glob("*/sessions/*.chat.json")
    ]
    assert sorted(("3 + 4" in text, "9 - 2" in text) for text in stored) == [(False, True), (True, False)]
    bob.click("#clear")
    bob.reload()
    bob.wait_for_function("document.querySelector('#model-A input')?.value.includes('demo')")
    assert "9 - 2" not in bob.inner_text("#talk")
    for page in (ann, bob):
        page.context.close()


def test_official_sampler_and_system_prompts_reach_the_answer(open_page: OpenPage, app: Any) -> None:
    page = open_page()
    page.wait_for_function("document.querySelector('#model-A input')?.value.includes('demo')")
    page.get_by_text("Settings of the answers").click()
    page.locator("#sampler input").click()
    page.locator("ul[role=listbox] li", has_text="Official for gemma4").click()
    page.wait_for_function("document.querySelector('[aria-label=\"number input for Temperature\"]').value === '1'")
    page.locator("#system textarea").fill("Answer in one word.")
    ask(page, "2 + 2 = ?")
    with page.expect_download() as saving:
        page.click("#save-markdown")
    said = saving.value.path().read_text(encoding="utf-8")
    assert "temperature 1, top-p 0.95, top-k 64, seed 0" in said and "> Answer in one word." in said
    page.click("#again-other")
    page.wait_for_function("document.querySelector('#seed input').value === '1'")
    page.wait_for_function("!document.querySelector('#send').disabled")
