"""The chat station alone in a real browser: columns on a desk and on a phone, tokens, files, and nothing that a model
says runs as code."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, expect

from components.chat import ChatModel, ChatSources, chat_station
from components.chat_parts import REFERENCE
from components.theme import STYLESHEETS, head, theme
from studio.families import family_named
from studio.serve.client import Delta, Token
from studio.serve.conversation import Column, Conversation
from studio.serve.pool import ServerPool
from studio.serve.saved import conversation_from_json
from studio.serve.served import GgufModel
from tests.patience import PATIENCE_S
from tests.serve.serve_models import tiny_gguf_once

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    ELSEWHERE_PORT = probe.getsockname()[1]

HOSTILE = """
<script>window.hacked = "script"</script><img src="data:," onerror="window.hacked = 'image'">
<a id="link" href="javascript:window.hacked = 'link'">press</a> <svg onload="window.hacked = 'svg'"></svg>
<iframe srcdoc="<script>parent.hacked = 'frame'</script>"></iframe> [press](javascript:window.hacked='markdown')
<a href="JaVaScRiPt&colon;window.hacked='entity'">press</a> [press](data:text/html,hacked)
<form action="javascript:window.hacked='form'"><button>press</button></form>
<form action="/elsewhere"><button>press</button></form><img src="ELSEWHERE/html.png">![](ELSEWHERE/markdown.png)
<math><mi xlink:href="javascript:window.hacked='math'">press</mi></math>
<div style="position: fixed; inset: 0; z-index: 99999; background: red">over</div>
<details open ontoggle="window.hacked='toggle'">d</details><style>#send { display: none !important }</style>

```html
<script>window.hacked = 'fence'</script>
```
$\\href{javascript:window.hacked='latex'}{press}$ $\\htmlData{x=1}{y}$
<p onclick="window.hacked = 'click'" id="paragraph">the end</p>
""".replace("ELSEWHERE", f"http://127.0.0.1:{ELSEWHERE_PORT}")
RICH = """**Bold** and `$code$`:

```python
def f(x):
    return x
```

$$x^2$$ so \\(y_1\\) and $z$, from $5 to $9 each.

| a | b |
|---|---|
| 1 | 2 |
"""
WIDE, PHONE = (1440, 1200), (390, 844)


@dataclass
class Station:
    """A page with nothing but the chat."""

    page: Page
    pool: ServerPool
    candidate: Path
    broken: threading.Event
    """While it is set, asking fails in a way that nobody foresaw."""


@pytest.fixture
def station(tmp_path: Path, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Station]:
    """The station on its own; `request.param` is what was said before, and the size of the window."""
    said, (width, height) = request.param
    pool = ServerPool(tmp_path / "logs")
    tiny = tiny_gguf_once()
    candidate = Path(shutil.copy(tiny, tmp_path / "pruned.gguf"))

    broken = threading.Event()

    def models() -> dict[str, ChatModel]:
        if broken.is_set():
            raise RuntimeError("nobody foresaw this")
        files = {REFERENCE: ("tiny", "Reference", tiny), "pruned": ("pruned", "Candidate", candidate)}
        return {
            key: ChatModel(name, role, path, partial(iter, [GgufModel(path)]))
            for key, (name, role, path) in files.items()
        }

    sources = ChatSources(
        pool,
        models,
        {"code": ["Reverse a string."]},
        lambda: family_named("gemma4"),
        lambda: said,
        lambda conversation: None,
    )
    gr.set_static_paths(STYLESHEETS)
    with gr.Blocks() as blocks:
        laid_out = chat_station(sources)
        blocks.load(laid_out.refresh, laid_out.inputs, laid_out.changing)
    _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, head=head(), theme=theme())
    page = browser.new_page(viewport={"width": width, "height": height})
    page.context.set_default_timeout(PATIENCE_S * 1000)
    page.goto(address)
    page.wait_for_function("document.querySelector('#model-A input')?.value.includes('tiny')")
    yield Station(page, pool, candidate, broken)
    page.close()
    blocks.close()
    pool.close()


BOTH = (Column("A", REFERENCE), Column("B", "pruned"))
DONE = Delta(done=True, finish="stop")


def said(*texts: str) -> Conversation:
    """One question, answered by A, B …"""
    conversation = Conversation(columns=BOTH).asked("Attack!", "AB"[: len(texts)])
    for column, text in zip("AB", texts, strict=False):
        conversation = conversation.heard(column, Delta(text, tokens=(Token(text),))).heard(column, DONE)
    return conversation


def ask(page: Page, prompt: str, tokens: int = 32) -> None:
    if not page.get_by_label("number input for Most tokens", exact=True).is_visible():
        page.get_by_text("Settings of the answers").click()
    field = page.get_by_label("number input for Most tokens", exact=True)
    field.fill(str(tokens))
    field.press("Tab")
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#prompt textarea").press("Enter")


def wait_for_answers(page: Page, columns: str = "AB") -> None:
    for column in columns:
        page.locator(f"#stats-{column}").get_by_text(re.compile(r"\d+ tokens")).wait_for()
    page.wait_for_function("!document.querySelector('#send').disabled")


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A server that is none of the page's business, and remembers who asked."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """Where nothing of what a model says may lead by itself."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", ELSEWHERE_PORT), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{ELSEWHERE_PORT}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("station", [(said(HOSTILE, RICH), PHONE)], indirect=True)
def test_what_a_model_says_never_runs_as_code(elsewhere: str, station: Station) -> None:
    page, answer = station.page, station.page.locator("#chat-A")
    answer.get_by_text("the end").click()
    address = page.url
    for link in answer.locator("a, button:has-text('press'), mi").all():
        if link.is_visible():
            link.dispatch_event("click")  # wherever the page has scrolled to
    page.wait_for_timeout(500)
    assert page.evaluate("window.hacked") is None and page.url == address
    forbidden = "script, iframe, [onerror], [onclick], [onload], [ontoggle], a[href^='javascript' i], a[href^='data']"
    assert answer.locator(forbidden).count() == 0
    # No style sheet of the answer hides the rest of the page, and nothing of the answer lies above it.
    assert page.evaluate(
        """() => {
          const send = document.querySelector('#send');
          send.scrollIntoView({ block: 'center' });
          const { x, y, width, height } = send.getBoundingClientRect();
          return send.contains(document.elementFromPoint(x + width / 2, y + height / 2));
        }"""
    )
    assert Elsewhere.asked == []
    assert page.locator("#parting script, #parting img, #parting form").count() == 0


@pytest.mark.parametrize("station", [(said("plain", RICH), WIDE)], indirect=True)
def test_markdown_code_tables_and_formulas_are_rendered_and_prices_are_not(station: Station) -> None:
    answer = station.page.locator("#chat-B")
    answer.locator("strong", has_text="Bold").wait_for()
    assert "    return x" in answer.locator("pre code").inner_text()
    assert answer.locator("table td").all_inner_texts() == ["1", "2"]
    assert answer.locator(".katex").count() == 3
    assert "$code$" in answer.inner_text() and "from $5 to $9 each" in answer.inner_text()


@pytest.mark.parametrize("station", [(None, PHONE)], indirect=True)
def test_enter_asks_all_and_the_columns_stack_on_a_phone(station: Station) -> None:
    page = station.page
    page.get_by_role("button", name="Code").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('Reverse')")
    ask(page, page.input_value("#prompt textarea"))
    wait_for_answers(page)
    left, right = (page.locator(f"#chat-{column}").bounding_box() for column in "AB")
    assert left and right and right["y"] >= left["y"] + left["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.input_value("#prompt textarea") == ""


@pytest.mark.parametrize("station", [(None, WIDE)], indirect=True)
def test_four_columns_stand_side_by_side_and_their_tokens_can_be_looked_at(station: Station) -> None:
    page = station.page
    for column in "CD":
        page.click("#add-column")
        page.locator(f"#chat-{column}").wait_for()
    assert page.locator("#add-column").is_disabled()
    boxes = [page.locator(f"#chat-{column}").bounding_box() for column in "ABCD"]
    assert len({box["y"] for box in boxes if box}) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#column-D").get_by_text("Its own system prompt").click()
    page.locator("#system-D textarea").fill("zzzz")
    page.get_by_text("Settings of the answers").click()
    page.get_by_label("Compare token by token").check()
    ask(page, "Hello")
    wait_for_answers(page, "ABCD")
    page.locator("#parting .parts").first.wait_for()
    first = int(page.locator("#parting .parts").first.get_attribute("data-index") or -1)
    page.locator("#parting section").nth(1).locator(f"[data-index='{first + 1}']").click()
    page.locator("#parting").get_by_text("go on from different texts").wait_for()
    pressed = page.locator("#parting [aria-pressed=true]")
    assert [one.get_attribute("data-index") for one in pressed.all()] == [str(first + 1)] * 4
    assert page.locator("#parting .likely li").count() >= 40
    page.locator("#parting section").nth(1).locator(f"[data-index='{first + 1}']").press("ArrowLeft")
    page.wait_for_function(f"document.querySelector('#parting [aria-pressed=true]').dataset.index === '{first}'")
    page.click("#remove-D")
    page.locator("#chat-D").wait_for(state="hidden")
    assert page.locator("#parting section").count() == 3


@pytest.mark.parametrize("station", [(None, WIDE)], indirect=True)
def test_a_question_is_changed_in_place_and_the_conversation_is_saved(station: Station, tmp_path: Path) -> None:
    page = station.page
    ask(page, "Hello")
    wait_for_answers(page)
    ask(page, "And then?")
    page.locator("#chat-B").get_by_text("And then?").wait_for()
    wait_for_answers(page)
    page.locator("#chat-A .user").first.hover()
    page.locator("#chat-A [aria-label='Edit' i], #chat-A [title='Edit' i]").first.click()
    page.locator("#chat-A textarea").first.fill("Good morning")
    page.locator("#chat-A [aria-label='Submit' i], #chat-A [title='Submit' i]").first.click()
    page.locator("#chat-B").get_by_text("Good morning").wait_for()
    wait_for_answers(page)
    assert page.locator("#chat-A").get_by_text("And then?").count() == 0
    files = {}
    for ending, button in (("json", "#save-json"), ("md", "#save-markdown")):
        with page.expect_download() as saving:
            page.click(button)
        assert saving.value.suggested_filename == f"conversation.{ending}"
        saving.value.save_as(tmp_path / ending)
        files[ending] = (tmp_path / ending).read_text(encoding="utf-8")
    conversation = conversation_from_json(files["json"], "the file")
    assert [turn.prompt for turn in conversation.turns] == ["Good morning"]
    origin = conversation.turns[0].answers["B"].origin
    assert origin and origin.file == "pruned.gguf" and origin.sampler.max_tokens == 32
    assert json.loads(files["json"])["columns"][1]["model"] == "pruned"
    assert "> Good morning" in files["md"] and "### pruned" in files["md"]


AT_ONCE = """(asked) => {
  const send = document.querySelector('#send'), box = document.querySelector('#prompt textarea');
  new MutationObserver(() => {
    if (send.disabled || !asked.length) return;
    box.value = asked.shift();
    box.dispatchEvent(new Event('input', { bubbles: true }));
    send.click();
  }).observe(send, { attributeFilter: ['disabled'] });
}"""
"""Asks the next question in the very moment in which Send can be pressed again."""


@pytest.mark.parametrize("station", [(None, WIDE)], indirect=True)
def test_no_question_is_lost_however_soon_it_is_asked_after_an_answer(station: Station) -> None:
    page = station.page
    page.evaluate(AT_ONCE, ["One", "Two", "Three", "Four"])
    ask(page, "Zero")
    page.wait_for_function("document.querySelectorAll('#chat-A .bot').length === 5")
    wait_for_answers(page)
    asked = [said.strip() for said in page.locator("#chat-A .user").all_inner_texts()]
    assert asked == ["Zero", "One", "Two", "Three", "Four"] and page.input_value("#prompt textarea") == ""


@pytest.mark.parametrize("station", [(None, WIDE)], indirect=True)
def test_what_is_typed_while_a_question_is_on_its_way_stays_in_the_box(station: Station) -> None:
    page = station.page
    page.route("**/queue/join*", lambda route: (page.wait_for_timeout(500), route.continue_()))
    box = page.locator("#prompt textarea")
    box.fill("The first")
    box.press("Enter")
    expect(box).to_have_value("")
    expect(page.locator("#send")).to_be_disabled()
    box.press_sequentially("The second")
    box.press("Enter")  # too soon: it stays
    wait_for_answers(page)
    assert box.input_value() == "The second" and page.locator("#chat-A .user").count() == 1
    box.press("Enter")
    page.wait_for_function("document.querySelectorAll('#chat-A .bot').length === 2")


@pytest.mark.parametrize("station", [(None, WIDE)], indirect=True)
@pytest.mark.parametrize("how", ["a mistake of ours", "a proxy"])
def test_a_question_that_fails_on_its_way_is_in_its_box_again_and_can_be_sent(station: Station, how: str) -> None:
    page = station.page
    box = page.locator("#prompt textarea")
    if how == "a proxy":
        page.route("**/queue/join*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    else:
        station.broken.set()
    box.fill("Hello?")
    with page.expect_response("**/queue/join*"):
        box.press("Enter")
    expect(box).to_have_value("Hello?")
    expect(page.locator("#send")).to_be_enabled()
    page.unroute("**/queue/join*")
    station.broken.clear()
    box.press("Enter")
    wait_for_answers(page)
    expect(page.locator("#chat-A .user")).to_have_text("Hello?")
    expect(box).to_have_value("")
    assert page.locator("#stop").is_disabled()


@pytest.mark.parametrize("station", [(None, WIDE)], indirect=True)
def test_a_server_killed_in_the_middle_of_an_answer_says_so_and_the_other_column_goes_on(station: Station) -> None:
    page = station.page
    ask(page, "Hello")
    wait_for_answers(page)
    with station.pool.lease(station.candidate, 1) as server:
        doomed = server.pid
    os.kill(doomed, signal.SIGSTOP)  # or it might be through before it dies
    ask(page, "Go on", 1500)
    page.wait_for_function("document.querySelectorAll('#chat-A .bot').length > 1")
    os.kill(doomed, signal.SIGKILL)
    page.locator("#problem-B").get_by_text("was killed").wait_for()
    page.locator("#stop-B").wait_for(state="hidden")
    page.locator("#restart-B").wait_for()  # when the other column has ended by itself
    assert "tokens/s" in page.inner_text("#stats-A")
    assert not page.locator("#problem-A").is_visible() and not page.locator("#restart-A").is_visible()
    answers = page.locator("#chat-A .bot").all_inner_texts()
    page.click("#restart-B")
    page.locator("#problem-B").wait_for(state="hidden")
    page.locator("#stats-B").get_by_text(re.compile("tokens/s")).wait_for()
    page.wait_for_function("!document.querySelector('#send').disabled")
    assert page.locator("#chat-A .bot").all_inner_texts() == answers
