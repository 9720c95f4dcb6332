"""The chat station alone in a real browser: Enter sends, both sides answer, and nothing a model says runs as code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page

from components.chat import ChatModel, ChatSources, chat_station
from components.chat_view import chat_messages
from studio.serve.client import Delta
from studio.serve.conversation import Conversation
from studio.serve.pool import ServerPool
from tests.serve.serve_models import tiny_gguf_once

HOSTILE = """
<script>window.hacked = "script"</script><img src="data:," onerror="window.hacked = 'image'">
<a id="link" href="javascript:window.hacked = 'link'">press</a> <svg onload="window.hacked = 'svg'"></svg>
<iframe srcdoc="<script>parent.hacked = 'frame'</script>"></iframe> [press](javascript:window.hacked='markdown')
<p onclick="window.hacked = 'click'" id="paragraph">the end</p>
"""


@pytest.fixture
def page(tmp_path: Path, browser: Browser) -> Iterator[Page]:
    """The station on its own; a hostile answer is there already."""
    pool = ServerPool(tmp_path / "logs")
    tiny = tiny_gguf_once()
    sources = ChatSources(
        pool,
        reference=lambda: ChatModel("tiny", tiny),
        prepare=lambda: iter([tiny]),
        candidates=lambda: {"pruned": tiny},
        examples={"code": ["Reverse a string."]},
    )
    hostile = Conversation().asked("Attack!", ["reference"]).heard("reference", Delta(HOSTILE))
    with gr.Blocks() as blocks:
        station = chat_station(sources)
        station.sides["reference"].chat.value = (
            station.sides["reference"].chat.postprocess(chat_messages(hostile, "reference")).model_dump()
        )
        blocks.load(
            station.refresh, [station.candidate, gr.State("tiny"), *station.refresh_inputs[2:]], station.refresh_outputs
        )
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(60_000)
    page.goto(address)
    yield page
    page.close()
    blocks.close()
    pool.close()


def test_what_a_model_says_never_runs_as_code(page: Page) -> None:
    answer = page.locator("#chat-reference")
    answer.get_by_text("the end").click()
    for link in answer.locator("a").all():
        link.click(timeout=2000, no_wait_after=True)
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None
    assert answer.locator("script, iframe, [onerror], [onclick], [onload], a[href^='javascript']").count() == 0


def test_enter_asks_both_and_the_columns_stack_on_a_phone(page: Page) -> None:
    page.get_by_role("button", name="Code").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('Reverse')")
    page.get_by_text("Settings of the answers").click()
    page.get_by_label("number input for Most tokens").fill("32")
    page.get_by_label("number input for Most tokens").press("Tab")
    page.locator("#prompt textarea").press("Enter")
    for side in ("reference", "candidate"):
        page.locator(f"#stats-{side}").get_by_text(
            re.compile(r"\d+ tokens")
        ).wait_for()  # 32, unless it had ended sooner
    left, right = (page.locator(f"#chat-{side}").bounding_box() for side in ("reference", "candidate"))
    assert left and right and right["y"] >= left["y"] + left["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.input_value("#prompt textarea") == ""
