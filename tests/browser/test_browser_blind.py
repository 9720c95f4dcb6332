"""A blind session on the real page, with the current map before it is built; and votes are for who cast them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import App, running_app
from tests.browser.test_browser_chat import PEOPLE, page_of

OpenPage = Callable[..., Page]
SECRETS = ("Reference", "demo-model", "virtual", "tokens/s", "MiB", "first token", "torch")


@pytest.fixture(scope="module")
def app_for_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with two logins."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ESPALIER_AUTH", "\n".join(f"{user}:{password}" for user, password in PEOPLE.items()))
        with running_app(tmp_path_factory.mktemp("two") / "workspace") as started:
            patched.undo()  # other apps of this run have no login
            yield started


def choose_the_map(page: Page, column: str = "B") -> None:
    page.wait_for_function("document.querySelector('#model-A input')?.value.includes('demo')")
    page.locator(f"#model-{column} input").click()
    page.locator("ul[role=listbox] li", has_text="The current map (virtual)").click()
    page.locator(f"#column-{column}").get_by_text("Not built").wait_for()


def ask(page: Page, question: str) -> None:
    page.locator("#prompt textarea").fill(question)
    page.locator("#prompt textarea").press("Enter")


def votes_of(app: App) -> list[list[str]]:
    """The choices of each person."""
    files = sorted((app.workspace / "people").glob("*/votes/*.jsonl"))
    return [[json.loads(line)["choice"] for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


@pytest.fixture
def two_people(browser: Browser, app_for_two: App) -> Iterator[list[Page]]:
    """A page for each login."""
    pages = [page_of(browser, app_for_two, user) for user in PEOPLE]
    yield pages
    for page in pages:
        page.context.close()


def test_a_blind_session_of_two_people_on_one_server(two_people: list[Page], app_for_two: App) -> None:
    ann, bob = two_people
    for page in (ann, bob):
        choose_the_map(page)
        page.locator("#blind input").check()
        page.locator("#ballot").get_by_text("drawn anew").wait_for()
        assert not page.locator("#model-A").is_visible() and not page.locator("#add-column").is_visible()
    for number, key in enumerate(("1", "4"), 1):
        ask(ann, f"{number} + 4 = ?")
        ann.locator("#ballot .ballot").wait_for()
        assert ann.locator("#ballot .ballot").evaluate("ballot => ballot === document.activeElement")
        sealed = ann.inner_html("#talk .chat-columns") + ann.inner_html("#ballot") + ann.inner_html("#parting")
        assert not [secret for secret in SECRETS if secret in sealed]
        assert ann.inner_text("#stats-A") == ann.inner_text("#stats-B")
        with ann.expect_download() as saving:
            ann.click("#save-json")
        saved = saving.value.path().read_text(encoding="utf-8")
        assert not [secret for secret in (*SECRETS, "gguf", 'seats": ["') if secret in saved]
        ann.keyboard.press(key)
        ann.locator("#tally").get_by_text(f"Your {number} blind vote").wait_for()
        told = ann.locator("#column-A .chat-heading").inner_text(), ann.locator("#column-B .chat-heading").inner_text()
        assert sorted("virtual" in heading for heading in told) == [False, True]
        assert ann.locator("#stats-A").get_by_text("tokens/s").is_visible()
    ask(bob, "9 - 2 = ?")
    bob.locator("#ballot .ballot").wait_for()
    assert "blind vote" not in bob.inner_text("#talk") and "+ 4" not in bob.inner_text("#talk")
    # A reload in the middle shows the same answers, still without names.
    said = bob.inner_text("#chat-A")
    bob.reload()
    bob.locator("#ballot .ballot").wait_for()
    bob.wait_for_function("said => document.querySelector('#chat-A').innerText === said", arg=said)
    assert bob.locator("#blind input").is_checked()
    assert not [secret for secret in SECRETS if secret in bob.inner_html("#talk .chat-columns")]
    bob.get_by_role("button", name="The same", exact=True).click()
    bob.locator("#tally").get_by_text("Your 1 blind vote").wait_for()
    assert sorted(votes_of(app_for_two)) == [["better", "both bad"], ["same"]]
    bob.locator("#blind input").uncheck()
    bob.locator("#model-A").wait_for()
    assert bob.inner_text("#tally") == "" and "9 - 2" in bob.inner_text("#talk")


def test_the_current_map_answers_and_shows_which_experts_fired(open_page: OpenPage) -> None:
    page = open_page()
    choose_the_map(page)
    page.get_by_text("Settings of the answers").click()
    page.get_by_label("Compare token by token").check()
    ask(page, "17 + 8 = ?")
    finding = page.locator("#routing").get_by_text(re.compile(r"B: of [\d,]+ routings for this answer, the reference"))
    finding.wait_for()
    page.wait_for_function("!document.querySelector('#send').disabled")
    page.locator("#stats-B").get_by_text("tokens/s").wait_for()
    assert page.locator("#routing .share").count() == 6
    assert page.locator("#routing img").evaluate("image => image.complete && image.naturalWidth > 0")
    passes = int(re.findall(r"(\d+) tokens, each routed", page.inner_text("#routing"))[0])
    total = int(re.findall(r"of ([\d,]+) routings", finding.inner_text())[0].replace(",", ""))
    assert total == passes * 6 * 4
    page.locator("#parting section").nth(1).locator("[data-index='0']").click()
    page.locator("#parting .likely").nth(1).wait_for()
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1440, "height": 900})
    # The column follows the map: nothing dropped, nothing missed.
    dropped = page.get_by_label("number input for Experts to drop in every layer")
    dropped.fill("0")
    dropped.press("Tab")
    page.locator("#meaning").get_by_text("32 of 32").first.wait_for()
    page.click("#again-same")
    page.locator("#routing").get_by_text("the map drops no expert").wait_for()
    page.wait_for_function("!document.querySelector('#send').disabled")
    page.click("#clear")
    page.wait_for_function("document.querySelector('#routing').innerText.trim() === ''")


def test_settings_memory_and_routing_are_there_after_a_reload(open_page: OpenPage) -> None:
    page = open_page()
    choose_the_map(page)
    page.click("#chat-memory > button")
    page.locator("#chat-memory-table").get_by_text("Keys and values").wait_for()
    context = page.locator("#chat-context input")
    context.fill("3")
    context.press("Tab")
    page.locator("#talk .notice.error").get_by_text("“Tokens of a conversation” cannot be 3").wait_for()
    context.fill("2048")
    context.press("Tab")
    page.locator("#chat-order label", has_text="In turn").click()
    page.wait_for_function("!document.querySelector('#talk .notice.error')")
    ask(page, "17 + 8 = ?")
    page.locator("#routing .routing").wait_for()
    page.wait_for_function("!document.querySelector('#send').disabled")
    page.locator("#stats-B").get_by_text("tokens/s").wait_for()
    routed = page.inner_text("#routing")
    page.reload()
    page.locator("#routing .routing").wait_for()
    assert page.inner_text("#routing") == routed
    page.click("#chat-memory > button")
    page.wait_for_function("document.querySelector('#chat-context input')?.value === '2048'")
    page.locator("#chat-order label.selected", has_text="In turn").wait_for()
