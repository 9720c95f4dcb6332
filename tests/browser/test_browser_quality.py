"""Files are measured on the page: the real demo model, and a real Q4_K_M that was built from it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from studio.checkpoints.reference import open_reference
from studio.jobs.task import reference_path
from studio.jobs.tasks import check
from studio.progress import silent
from studio.workspace import Workspace
from tests.browser.conftest import App, running_app
from tests.patience import PATIENCE_S

OpenPage = Callable[..., Page]
LONG = PATIENCE_S * 1000
IMATRIX = Path(__file__).parents[1] / "quantize" / "demo-imatrix.gguf"


@pytest.fixture(scope="module")
def built_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """An app whose workspace has the demo model's Q4_K_M with 24 of 32 experts."""
    root = tmp_path_factory.mktemp("quality") / "workspace"
    workspace = Workspace.open(root)
    model = reference_path(workspace, "demo")
    shape = open_reference(model).shape
    rows = {layer: list(range(24, 32)) for layer in shape.layer_ids}
    (workspace.maps / "last.json").write_text(json.dumps(rows))
    told = {"reference": "demo", "map": "maps/last.json", "name": "small", "outputs": ["gguf"], "tiers": ["Q4_K_M"]}
    check("build", told, workspace).run(workspace, silent)
    with running_app(root) as started:
        yield started


@pytest.fixture
def opened(built_app: App, browser: Browser) -> Iterator[OpenPage]:
    """A function that opens the page and waits until the station is filled."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_one(width: int = 1440, scheme: str = "light") -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.context.set_default_timeout(LONG)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        pages.append(page)
        page.goto(built_app.url)
        page.wait_for_selector("#quality-models label")
        return page

    yield open_one
    for page in pages:
        page.close()
    assert complaints == []


def tick(page: Page, *names: str) -> None:
    """Tick the models whose labels begin with `names`, and no others."""
    for box in page.locator("#quality-models label").all():
        wanted = any(box.inner_text().strip().startswith(name) for name in names)
        if box.locator("input").is_checked() != wanted:
            box.click()


def ask_of_each(page: Page, count: int) -> None:
    number = page.locator("#quality-each input")
    number.fill(str(count))
    number.press("Tab")


def open_own_task(page: Page) -> None:
    page.click("#quality-own-task > button")
    page.wait_for_selector("#quality-task-file input[type=file]", state="attached")


def test_models_are_measured_compared_sorted_and_saved(opened: OpenPage) -> None:
    page = opened()
    expect(page.locator("#quality-results")).to_contain_text("Nothing has been measured yet", timeout=LONG)
    ask_of_each(page, 2)
    expect(page.locator("#quality-facts")).to_contain_text("10 of 500 questions are asked", timeout=LONG)
    page.locator("#quality button", has_text="The same as commands").click()
    expect(page.locator("#quality-command")).to_contain_text(
        "evaluate demo --task demo --per-category 2 --seed 42", timeout=LONG
    )
    page.click("#quality-start")
    expect(page.locator("#quality-jobs .badge.done")).to_have_count(2, timeout=LONG)
    rows = page.locator("#quality-results tr[data-model]")
    expect(rows).to_have_count(2, timeout=LONG)
    expect(rows.nth(0)).to_contain_text("the reference", timeout=LONG)
    expect(rows.nth(1)).to_contain_text(re.compile("evidence of a (loss|gain)"), timeout=LONG)
    expect(page.locator("#quality-figure .interval")).to_have_count(2, timeout=LONG)
    page.click("#quality-results [data-sort=bytes]")
    expect(rows.nth(0)).to_contain_text("small-Q4_K_M.gguf", timeout=LONG)
    rows.nth(0).locator("[data-opens]").click()
    details = page.locator("#quality-results tr[data-row='0']")
    expect(details).to_contain_text("Logic", timeout=LONG)
    expect(details).to_contain_text("Right when retried", timeout=LONG)
    with page.expect_download() as saving:
        page.click("#quality-results a[download='results.csv']")
    with saving.value.path().open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["small-Q4_K_M.gguf", "demo"]
    page.reload()
    expect(rows).to_have_count(2, timeout=LONG)


def test_a_run_is_found_again_after_a_reload_and_leaves_nothing_when_cancelled(
    opened: OpenPage, built_app: App
) -> None:
    page = opened()
    tick(page, "small")
    ask_of_each(page, 0)
    page.locator("#quality-seed input").fill("7")
    page.click("#quality-start")
    job = page.locator("#quality-jobs article", has=page.locator("[data-action=cancel]"))
    expect(job.locator("[role=progressbar]")).to_be_visible(timeout=LONG)
    expect(job).to_contain_text(re.compile(r"of 500 questions"), timeout=LONG)
    page.reload()
    expect(job).to_contain_text(re.compile(r"\d+ of \d+ right"), timeout=LONG)
    before = len(list((built_app.workspace / "artifacts/small/measures").glob("*.json")))
    job.locator("[data-action=cancel]").click()
    newest = page.locator("#quality-jobs article").first
    expect(newest.locator(".badge.cancelled")).to_be_visible(timeout=LONG)
    expect(newest.locator("[data-action=retry]")).to_be_visible(timeout=LONG)
    measures = built_app.workspace / "artifacts/small/measures"
    assert len(list(measures.glob("*.json"))) == before and not list(measures.glob(".*"))


def test_a_task_is_checked_when_it_is_given(opened: OpenPage, built_app: App, tmp_path: Path) -> None:
    page = opened()
    wrong, right = tmp_path / "wrong.jsonl", tmp_path / "right.jsonl"
    wrong.write_text('{"question": "?", "answer": "x"}\n{"question": "?", "anser": "x"}\n')
    rows = [
        {"id": "long", "category": "length", "question": "word " * 20_000, "answer": "x"},
        {"id": "short", "category": "sums", "question": "7 + 8 = ?", "answer": "15"},
    ]
    right.write_text("".join(json.dumps(row) + "\n" for row in rows))
    open_own_task(page)
    page.set_input_files("#quality-task-file input[type=file]", wrong)
    said = page.locator("#quality-problem .notice.error")
    expect(said).to_contain_text('wrong.jsonl, line 2: "anser" is no field of a question', timeout=LONG)
    assert not (built_app.workspace / "tasks/wrong.jsonl").exists()
    page.set_input_files("#quality-task-file input[type=file]", right)
    expect(page.locator("#quality-facts")).to_contain_text("right: 2 of 2 questions are asked", timeout=LONG)
    expect(page.locator("#quality-facts")).to_contain_text("Length", timeout=LONG)
    expect(said).to_have_count(0, timeout=LONG)
    tick(page, "small")
    page.click("#quality-start")
    row = page.locator("#quality-results tr.details", has_text="Task: right")
    expect(row).to_have_count(1, timeout=LONG)
    page.locator("#quality-results tr[data-model^=small] [data-opens]").click()
    expect(row.locator("section", has_text="Task: right").locator("dl div", has_text="Too long")).to_contain_text(
        "1", timeout=LONG
    )


def test_a_gguf_that_is_no_language_model_is_refused_before_anything_starts(opened: OpenPage, built_app: App) -> None:
    file = built_app.workspace / "artifacts/small/gguf/matrix.gguf"
    shutil.copy(IMATRIX, file)
    try:
        page = opened()
        jobs = page.locator("#quality-jobs article").count()
        tick(page, "demo", "matrix")
        page.click("#quality-start")
        expect(page.locator("#quality-problem .notice.error")).to_contain_text("matrix.gguf", timeout=LONG)
        assert page.locator("#quality-jobs article").count() == jobs
    finally:
        file.unlink()


def test_a_text_of_ones_own_is_compared_on_and_everything_fits_a_phone(opened: OpenPage, tmp_path: Path) -> None:
    page = opened(width=390, scheme="dark")
    text = tmp_path / "pears.txt"
    text.write_text("The pear tree grows flat on the wall. " * 120)
    page.locator("#quality-what label", has_text="Divergence").click()
    page.locator("#quality button", has_text="A text or prompts of your own").click()
    page.set_input_files("#quality-ground-file input[type=file]", text)
    page.wait_for_function("document.querySelector('#quality-ground input').value === 'pears.txt'")
    tick(page, "demo", "small")
    page.click("#quality-start")
    heads = page.locator("#quality-results th", has_text="Text: pears.txt")
    expect(heads).to_have_count(1, timeout=LONG)
    expect(page.locator("#quality-results thead").first).to_contain_text("Perplexity", timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('.results'))")
    steps = "[...document.querySelectorAll('.masthead nav a')]"
    assert page.evaluate(f"{steps}.every(step => step.getBoundingClientRect().right <= innerWidth)")
