"""Two logins on one server, in browsers and by requests that no page would make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page

from studio.contributions import file
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.jobs.task import ASSETS
from studio.recipes.apply import make_map
from studio.recipes.recipe import Recipe
from studio.shelf import Shelf
from studio.workspace import Workspace
from tests.browser.conftest import App, running_app
from tests.browser.direct import called, downloaded, uploaded
from tests.browser.test_browser_chat import PEOPLE, page_of
from tests.patience import PATIENCE_S, job_once

SECRET = "ann's own recipe"


@pytest.fixture(scope="module")
def app_for_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app with two logins, said in a file."""
    folder = tmp_path_factory.mktemp("people")
    logins = folder / "logins"
    logins.write_text("".join(f"{user}:{password}\n" for user, password in PEOPLE.items()), encoding="utf-8")
    logins.chmod(0o600)
    with running_app(folder / "workspace", "--auth-file", str(logins)) as started:
        yield started


@pytest.fixture(scope="module")
def ann(browser: Browser, app_for_two: App) -> Iterator[Page]:
    page = page_of(browser, app_for_two, "ann")
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def bob(browser: Browser, app_for_two: App) -> Iterator[Page]:
    page = page_of(browser, app_for_two, "bob")
    yield page
    page.context.close()


@pytest.fixture(scope="module")
def hers(app_for_two: App, ann: Page) -> JobStore:
    """The jobs of ann, who has entered."""
    return JobStore(Workspace.open(app_for_two.workspace).of("ann"))


@pytest.fixture(scope="module")
def built(hers: JobStore) -> Job:
    """What ann has built: a small checkpoint of the demo."""
    contributions = file.load(ASSETS / "demo-contributions.safetensors")
    drop = make_map(contributions, Recipe(drop=8))
    (hers.workspace.maps / "small.json").write_text(drop.to_json(), encoding="utf-8")
    told = {"reference": "demo", "map": "maps/small.json", "name": "anns-model", "outputs": ["safetensors"]}
    return over(hers, runner.start(hers, "build", told))


def over(store: JobStore, job: Job) -> Job:
    job = job_once(store, job.id, lambda job: job.is_finished)
    assert job.status == "done", job
    return job


def test_ann_downloads_what_she_built_and_bob_neither_sees_nor_gets_it(
    ann: Page, bob: Page, built: Job, hers: JobStore, app_for_two: App
) -> None:
    ann.locator("#job-panel a", has_text="model").first.wait_for()
    for entry in built.files:
        path = str(hers.workspace.root / str(entry["path"]))
        assert downloaded(ann, app_for_two.url, path)[0] == 200
        assert downloaded(bob, app_for_two.url, path)[0] == 403
    assert "Nothing has been built yet" in bob.locator("#job-panel").inner_text()
    assert "anns-model" not in bob.content()


def test_bob_neither_reads_nor_cancels_a_job_of_anns(bob: Page, hers: JobStore, app_for_two: App) -> None:
    told = {"reference": "demo", "contributions": str(ASSETS / "demo-contributions.safetensors"), "name": "long"}
    job = runner.start(hers, "search", {**told, "drops": [8], "budget": 60.0, "prompts": ["builtin:math"]})
    said = called(bob, app_for_two.url, "job-cancel", "click", [job.id])
    assert "long" not in said and "demo-heldout" not in said
    assert hers.get(job.id).status in ("queued", "running")
    looked = called(bob, app_for_two.url, "job", "input", [job.id, ""])
    assert "Search" not in looked
    runner.cancel(hers, job.id)


def test_recipes_uploads_and_conversations_are_everybodys_own(
    ann: Page, bob: Page, hers: JobStore, app_for_two: App
) -> None:
    Shelf(hers.workspace.recipes).save(SECRET, Recipe(drop=4))
    sent = uploaded(ann, app_for_two.url, "hers.json", b'{"drop": 8}').json()[0]
    data = [None, {"path": sent, "meta": {"_type": "gradio.FileData"}}]
    assert downloaded(ann, app_for_two.url, sent)[0] == 200
    assert downloaded(bob, app_for_two.url, sent)[0] == 403
    assert "error" in called(bob, app_for_two.url, "choice-upload", "upload", data)
    for page, is_hers in ((ann, True), (bob, False)):
        page.reload()
        page.wait_for_selector(".plot[data-drawn]")
        page.locator("#shelf-saved input").click()
        names = page.locator("ul[role=listbox] li")
        assert names.filter(has_text=SECRET).count() == is_hers
        page.keyboard.press("Escape")
    ours = {part.person for part in Workspace.open(app_for_two.workspace).parts().values() if part.person}
    assert ours == set(PEOPLE)


def test_downloads_are_files_of_finished_artifacts_and_nothing_else(
    ann: Page, built: Job, hers: JobStore, app_for_two: App, tmp_path: Path
) -> None:
    artifacts = hers.workspace.artifacts
    made = hers.workspace.root / str(built.files[0]["path"])
    partial = artifacts / ".anns-model.partial-1.0-1" / made.name
    unfinished = artifacts / "unfinished" / made.name
    for path in (partial, unfinished):
        path.parent.mkdir()
        path.write_bytes(b"half")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    link = made.parent / "link.txt"
    link.symlink_to(tmp_path / "secret")
    climbing = f"{made.parent}/../../../{hers.workspace.root.name}/person.json"
    refused = [
        str(partial),
        str(unfinished),
        str(link),
        str(hers.workspace.root / "person.json"),
        str(hers.log_path(built.id)),
        climbing,
        quote(climbing),
        climbing.replace("..", "%2e%2e"),
        climbing.replace("..", "%252e%252e"),
        climbing.replace("/..", "%2f.."),
        f"{made}/../{made.name}",
        f"/{made}",
        f"{made}%00.txt",
        "app.py",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "https://example.org/",
    ]
    for path in refused:
        status, text = downloaded(ann, app_for_two.url, path)
        assert status in (400, 403, 404), (path, status)
        assert "secret" not in text and "name" not in text
    assert ann.request.get(f"{app_for_two.url}gradio_api/file/{link}").status == 403
    link.unlink()


def test_who_has_not_entered_gets_the_form_and_nothing_behind_it(browser: Browser, app_for_two: App) -> None:
    page = browser.new_context().new_page()
    page.context.set_default_timeout(PATIENCE_S * 1000)
    page.goto(app_for_two.url)
    page.get_by_role("button", name="Log in").wait_for()
    for path in ("config", "gradio_api/info", "gradio_api/file=/etc/passwd", "gradio_api/queue/data?session_hash=a"):
        assert page.request.get(f"{app_for_two.url}{path}").status == 401
    page.fill("#username", "ann")
    page.fill("#password", "wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("another password").wait_for()
    for _ in range(5):
        answer = page.request.post(f"{app_for_two.url}login", form={"username": "ann", "password": "wrong"})
    answer = page.request.post(f"{app_for_two.url}login", form={"username": "ann", "password": PEOPLE["ann"]})
    assert answer.status == 429 and "Try again in" in answer.text()
    page.context.close()


def test_who_logs_out_is_out(browser: Browser, bob: Page, app_for_two: App) -> None:
    bob.locator(".whose a").click()
    bob.get_by_role("button", name="Log in").wait_for()
    assert bob.request.get(f"{app_for_two.url}config").status == 401
