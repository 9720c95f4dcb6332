"""What an open page says when the studio answers it no longer."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.browser.conftest import running_app
from tests.browser.test_browser_chat import PEOPLE, page_of
from tests.patience import PATIENCE_S


def test_a_lost_connection_and_an_ended_login_are_said_with_a_button_that_mends_them(
    browser: Browser, tmp_path: Path
) -> None:
    logins = tmp_path / "logins"
    logins.write_text("".join(f"{user}:{password}\n" for user, password in PEOPLE.items()), encoding="utf-8")
    logins.chmod(0o600)
    with running_app(tmp_path / "workspace", "--auth-file", str(logins)) as app:
        page = page_of(browser, app, "ann")
        said = page.locator(".cut-off")
        assert said.count() == 0
        page.context.set_offline(True)
        expect(said).to_contain_text("The studio does not answer.")
        page.context.set_offline(False)
        expect(said).to_have_count(0)
        page.wait_for_selector(".gradio-container:not([inert]) .plot[data-drawn]")

        page.context.clear_cookies()
        expect(said).to_contain_text("You are not logged in any more.")
        said.get_by_role("button", name="Log in again").click()
        page.wait_for_selector("input[type=password]")
        page.context.close()


def test_a_visit_that_has_ended_begins_anew(browser: Browser, tmp_path: Path) -> None:
    with running_app(tmp_path / "workspace", "--public") as app:
        page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
        page.context.set_default_timeout(PATIENCE_S * 1000)
        page.goto(app.url)
        page.wait_for_selector(".gradio-container:not([inert]) .plot[data-drawn]")
        page.context.clear_cookies()
        said = page.locator(".cut-off")
        expect(said).to_contain_text("This visit has ended.")
        box = said.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
        said.get_by_role("button").click()
        page.wait_for_selector(".gradio-container:not([inert]) .plot[data-drawn]")
        page.context.close()
