"""What was built is verified, described and sent from the page: to a stand-in of the Hub, a real server here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from studio.checkpoints.reference import open_reference
from studio.jobs.task import reference_path
from studio.jobs.tasks import check
from studio.progress import silent
from studio.workspace import Workspace
from tests.browser.conftest import App, running_app
from tests.patience import PATIENCE_S
from tests.publish.hub_stand_in import TOKEN, Hub, start

OpenPage = Callable[..., Page]
LONG = PATIENCE_S * 1000


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = start(hub)
    yield hub
    hub.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def published_app(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[App]:
    """An app that was started with a token, and whose workspace has one build: a Q4_K_M of 24 of 32 experts."""
    root = tmp_path_factory.mktemp("publish") / "workspace"
    workspace = Workspace.open(root)
    shape = open_reference(reference_path(workspace, "demo")).shape
    (workspace.maps / "last.json").write_text(json.dumps({layer: list(range(24, 32)) for layer in shape.layer_ids}))
    told = {"reference": "demo", "map": "maps/last.json", "name": "small", "outputs": ["gguf"], "tiers": ["Q4_K_M"]}
    check("build", told, workspace).run(workspace, silent)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", hub.url)
        environment.setenv("HF_TOKEN", TOKEN)
        environment.setenv("HF_HUB_OFFLINE", "0")
        environment.setenv("HF_HUB_DISABLE_XET", "1")  # the stand-in speaks Git LFS
        with running_app(root) as started:
            yield started


@pytest.fixture
def opened(published_app: App, browser: Browser) -> Iterator[OpenPage]:
    """A function that opens the page and waits until the station is filled; what the console complains of fails."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_one(width: int = 1440) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.context.set_default_timeout(LONG)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        pages.append(page)
        page.goto(published_app.url)
        page.wait_for_selector("#card-preview img")
        return page

    yield open_one
    for page in pages:
        page.close()
    assert complaints == []


def card_of(app: App) -> Path:
    return app.workspace / "artifacts/small/README.md"


def until_kept(app: App, text: str) -> None:
    """Wait until what was typed lies with the artifact."""
    for _ in range(int(PATIENCE_S * 10)):
        if card_of(app).is_file() and text in card_of(app).read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"{text!r} was not kept")


def type_into_card(page: Page, text: str) -> None:
    page.locator("#card-text textarea").focus()
    page.keyboard.press("Control+End")
    page.keyboard.type(text)


def test_what_is_written_into_the_card_is_there_after_a_reload_and_generating_asks_first(
    opened: OpenPage, published_app: App
) -> None:
    page = opened()
    pictures = page.locator("#card-preview img")
    expect(pictures.first).to_have_attribute("src", re.compile("^data:image/svg"))
    assert pictures.first.evaluate("picture => picture.naturalWidth") > 100
    type_into_card(page, '\n\nMine: <img src="data:,x" onerror="document.title=\'broken\'"> and **bold words**.')
    expect(page.locator("#card-preview strong", has_text="bold words")).to_be_visible()
    until_kept(published_app, "bold words**.")
    assert page.title() == "Espalier"
    page.reload()
    page.wait_for_selector("#card-preview strong:has-text('bold words')")
    assert page.input_value("#card-text textarea").endswith("and **bold words**.")
    page.click("#card-again")
    page.wait_for_selector("#card-sure del:has-text('bold words')")
    page.click("#card-keep")
    page.wait_for_selector("#card-sure", state="hidden")
    assert "bold words" in card_of(published_app).read_text()
    page.click("#card-again")
    page.click("#card-replace")
    expect(page.locator("#card-text textarea")).not_to_have_value(re.compile("bold words"))
    assert not card_of(published_app).exists()
    page.click("#card-back")
    expect(page.locator("#card-text textarea")).to_have_value(re.compile("bold words"))
    assert "bold words" in card_of(published_app).read_text()


def test_a_base_without_a_name_on_the_hub_is_asked_for_and_goes_into_the_card(
    opened: OpenPage, published_app: App
) -> None:
    page = opened()
    name = page.locator("#card-base-name input, #card-base-name textarea")
    name.fill("not a name")
    page.click("#card-base-set")
    page.locator("#card-status").get_by_text("OWNER/NAME").wait_for()
    name.fill("acme/Big-MoE")
    page.click("#card-base-set")
    expect(page.locator("#card-base")).to_be_hidden()
    until_kept(published_app, "acme/Big-MoE")
    assert "base_model_relation: quantized" in page.input_value("#card-text textarea")


def test_a_damaged_file_is_named_and_a_whole_one_goes_to_the_hub_with_the_edited_card(
    opened: OpenPage, published_app: App, hub: Hub
) -> None:
    weights = next((published_app.workspace / "artifacts/small/gguf").glob("*.gguf"))
    page = opened(390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    page.click("#publish-verify")
    page.wait_for_selector("#publish-checks li:has-text('has other contents')")
    expect(page.locator("#publish-checks .badge")).to_have_text("not the same")
    assert weights.name in page.inner_text("#publish-checks li")
    weights.write_bytes(whole)

    type_into_card(page, "\n\nSent from the page.")
    until_kept(published_app, "Sent from the page.")
    page.click("#publish-plan")
    expect(page.locator("#publish-said .notice.error")).to_contain_text("no name")
    page.fill("#publish-repository input, #publish-repository textarea", "me/small")
    page.click("#publish-plan")
    page.wait_for_selector("#publish-planned table")
    listed = page.locator("#publish-planned td:first-child").all_inner_texts()
    assert {weights.name, "README.md", "espalier-manifest.json", "pictures/kept.svg", "params"} <= set(listed)
    assert listed[-1] == f"{len(listed) - 1} files"
    assert hub.repositories == {}, "a dry run sends nothing"

    page.click("#publish-send")
    page.wait_for_selector("#publish-uploads .badge.done")
    repository = hub.repositories["me/small"]
    assert repository.private and set(repository.files) == set(listed[:-1])
    assert repository.files[weights.name] == whole
    assert b"Sent from the page." in repository.files["README.md"]
    assert yaml.safe_load(repository.files["README.md"].decode().split("---")[1])["license"] == "apache-2.0"
    assert "me/small" in page.inner_text("#publish-uploads")
    assert not [
        path
        for path in published_app.workspace.parent.rglob("*")
        if path.is_file() and TOKEN.encode() in path.read_bytes()
    ], "the token is written nowhere"


def test_lines_to_run_it_are_copied(opened: OpenPage, published_app: App) -> None:
    page = opened()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#publish-snippets button[data-copy]").first.click()
    page.wait_for_selector("#publish-snippets button:has-text('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("llama-server --model ") and "small-Q4_K_M.gguf" in copied
    page.click("#publish-write")
    page.wait_for_selector("#publish-handed code:has-text('Modelfile')")
    written = published_app.workspace / "artifacts/small/ollama/small-Q4_K_M.Modelfile"
    assert page.locator("#publish-ollama details code").first.text_content() == written.read_text().rstrip()


def test_without_a_token_it_is_said_once_and_no_name_of_a_field_lies_over_the_head_of_the_page(
    published_app: App, browser: Browser
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("HF_TOKEN", raising=False)
        environment.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        with running_app(published_app.workspace) as started:
            page = browser.new_page(viewport={"width": 390, "height": 900})
            page.context.set_default_timeout(LONG)
            page.goto(started.url)
            page.wait_for_selector("#card-preview img")
            expect(page.locator("#publish-missing .notice.warning")).to_contain_text("HF_TOKEN is not set")
            page.fill("#publish-repository input, #publish-repository textarea", "me/small")
            page.click("#publish-send")
            expect(page.locator("#publish-missing .notice.error")).to_contain_text("HF_TOKEN is not set")
            assert page.locator("#publish-hub :text('HF_TOKEN is not set')").count() == 1
            over = page.evaluate("""() => {
                const name = document.querySelector('#quality [data-testid="block-info"]');
                name.scrollIntoView({ block: 'start' });
                scrollBy(0, -12);
                const at = name.getBoundingClientRect();
                return document.elementFromPoint(at.left + 8, at.top + at.height / 2).closest('#masthead') !== null;
            }""")
            assert over
            page.close()


def test_a_button_stays_the_same_while_jobs_go_on(opened: OpenPage) -> None:
    page = opened()
    page.click("#publish-replay")
    page.locator("#publish-checks button[data-action=cancel]").focus()
    page.evaluate(
        """() => {
          const button = document.activeElement;
          const { job } = button.closest('article').dataset;
          const own = `#publish-checks article[data-job="${job}"] [data-action=cancel]`;
          window.looks = { all: 0, others: 0 };
          const look = () => {
            const now = document.querySelector(own);
            if (!now) return; // the job is through
            looks.all += 1;
            looks.others += now !== button || document.activeElement !== button;
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    page.wait_for_function("document.querySelectorAll('#publish-checks article .badge.done').length")
    looks = page.evaluate("looks")
    assert looks["all"] and not looks["others"]
