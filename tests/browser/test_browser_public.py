"""`--public`: the demo for everybody, each visitor alone, and nothing that a visitor should not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from studio.access import VISITOR
from studio.workspace import Workspace
from tests.browser.conftest import App, running_app
from tests.browser.direct import called, downloaded, uploaded
from tests.patience import PATIENCE_S


@pytest.fixture(scope="module")
def public_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with running_app(tmp_path_factory.mktemp("public") / "workspace", "--public") as started:
        yield started


def visitor(browser: Browser, app: App) -> Page:
    page = browser.new_context(viewport={"width": 1440, "height": 1000}).new_page()
    page.context.set_default_timeout(PATIENCE_S * 1000)
    page.goto(app.url)
    page.wait_for_selector(".plot[data-drawn]")
    return page


@pytest.fixture(scope="module")
def page(browser: Browser, public_app: App) -> Iterator[Page]:
    opened = visitor(browser, public_app)
    yield opened
    opened.context.close()


def test_what_is_switched_off_says_why(page: Page) -> None:
    assert "An open demo" in page.locator(".whose").inner_text()
    page.get_by_text("Use another analysis").click()
    page.locator("#load :text('open to everybody')").first.wait_for()
    box = page.locator("#analysis-upload").bounding_box()
    assert box and box["height"] < 80, "a line, and not a box into which nothing can be put"
    page.get_by_text("Look at a model on the Hub").click()
    assert page.locator("#hub-name textarea, #hub-name input").first.is_disabled()
    page.get_by_text("Measure this model on prompts").click()
    page.get_by_text("it makes no analysis").wait_for()
    assert page.locator("#measure-start").is_disabled()


def test_what_is_switched_off_is_refused_to_direct_requests(page: Page, public_app: App) -> None:
    url = public_app.url
    sent = uploaded(page, url, "recipe.json", b'{"drop": 8}')
    assert sent.status == 403 and "open to everybody" in sent.text()
    assert "open to everybody" in called(page, url, "hub-look", "click", ["openai/gpt-oss-20b"])
    for path in ("http://127.0.0.1:9/recipe.json", "https://example.org/a.json", "/etc/passwd", "assets/demo-model"):
        file: dict[str, Any] = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        assert "error" in called(page, url, "choice-upload", "upload", [None, file])
        assert downloaded(page, url, path)[0] in (403, 404)
    assert "error" in called(page, url, "analysis", "input", [None, "/etc/passwd"])


def test_a_job_that_is_not_for_visitors_is_refused_by_the_store_itself(page: Page, public_app: App) -> None:
    from studio.errors import RefusedError
    from studio.jobs import runner
    from studio.jobs.store import JobStore

    (part,) = [one for one in Workspace.open(public_app.workspace).parts().values() if one.person]
    store = JobStore(Workspace.open(public_app.workspace).of(part.person, VISITOR))
    for kind, told in (
        ("publish", {"artifact": "artifacts/a", "repo": "me/a"}),
        ("analyze", {"reference": "demo", "name": "mine", "prompts": ["builtin"]}),
        ("search", {"reference": "demo", "prompts": ["hf:me/data"]}),
    ):
        with pytest.raises(RefusedError, match="open to everybody"):
            runner.start(store, kind, told)
    assert store.list() == []


def test_visitors_do_not_see_each_other(browser: Browser, page: Page, public_app: App) -> None:
    page.locator("#prompt textarea").fill("3 + 4 = ?")
    page.click("#send")
    page.wait_for_function("/[1-9][0-9]* tokens?/.test(document.querySelector('#stats-A').innerText)")
    other = visitor(browser, public_app)
    assert "3 + 4" not in other.locator("#chat-A").inner_text()
    assert page.context.cookies()[0]["value"] != other.context.cookies()[0]["value"]
    page.reload()
    page.wait_for_selector(".plot[data-drawn]")
    page.get_by_text("3 + 4 = ?").first.wait_for()
    other.context.close()


def test_a_program_without_cookies_makes_no_page(browser: Browser, public_app: App) -> None:
    import httpx

    before = len(Workspace.open(public_app.workspace).parts())
    for _ in range(5):
        assert httpx.get(public_app.url).status_code == 200
        assert httpx.get(f"{public_app.url}?visit=1").status_code == 403
    assert len(Workspace.open(public_app.workspace).parts()) == before
