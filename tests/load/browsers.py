"""People in real browsers: each has a context of their own, with their own login."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from playwright.async_api import Browser, Error, Page, async_playwright

from tests.chromium import SWITCHES
from tests.load.app import PASSWORD, login
from tests.load.plan import Action, Stay, actions, mark, one_after_the_other, paced
from tests.load.record import LOST_S, Record

_FRAMES = """
const frame = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => new Error().stack.includes('/statustracker-')
  ? setTimeout(() => draw(performance.now()), 100) : frame(draw);
"""
"""Gradio's indicator that a page loads goes on asking for sixty frames a second when it is gone, on every page of every
app: up to a tenth of a core each, which people on machines of their own do not take from each other."""
_HAS_INDICATOR = "performance.getEntriesByType('resource').some((one) => one.name.includes('/statustracker-'))"
_MOVE = """async ([value, patience]) => {
  const slider = document.querySelector('#drop input[type=range]');
  const plot = document.querySelector('.plot');
  const before = plot.dataset.drawn;
  const start = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event('input', { bubbles: true }));
  while (plot.dataset.drawn === before && performance.now() - start < patience)
    await new Promise((next) => setTimeout(next, 5));
  return plot.dataset.drawn === before ? null : (performance.now() - start) / 1000;
}"""
"""From the moved slider to the map drawn anew, in seconds; null when it never was."""

_FIRST_TOKEN = """async ([asked, patience]) => {
  const start = performance.now();
  const all = () => [...document.querySelectorAll('#chat-A .user')].filter((one) => one.innerText.includes(asked));
  const before = all().length;
  document.querySelector('#send').click();
  const answered = () => {
    const questions = all(), answers = [...document.querySelectorAll('#chat-A .bot')];
    const last = answers.at(-1), question = questions.at(-1);
    return questions.length > before && last && last.innerText.trim()
      && (question.compareDocumentPosition(last) & Node.DOCUMENT_POSITION_FOLLOWING);
  };
  while (!answered() && performance.now() - start < patience)
    await new Promise((next) => setTimeout(next, 20));
  return answered() ? (performance.now() - start) / 1000 : null;
}"""
"""From the click on Send to the first words of an answer below the question, in seconds; null without."""


_CHAT_STATE = """() => JSON.stringify({
  said: [...document.querySelectorAll('#chat-A .user, #chat-A .bot')].map((one) => one.innerText.slice(0, 60)),
  box: document.querySelector('#prompt textarea').value,
  send: document.querySelector('#send').disabled,
  stats: document.querySelector('#stats-A')?.innerText,
  problem: document.querySelector('#problem-A')?.innerText,
})"""
"""What the chat shows where no answer came."""


class Person:
    """Somebody with a browser, who acts until their stay is over."""

    def __init__(self, number: int, url: str, record: Record) -> None:
        self.number, self.url, self.record = number, url, record
        self.leaving = False

    async def live(self, browser: Browser, seed: int, stay: Stay) -> None:
        """Log in, then act as `plan.actions` says. What fails is a complaint, and the person goes on."""
        context = await browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(LOST_S * 1000)
        await context.add_init_script(_FRAMES)
        page = await context.new_page()
        self._listen(page)
        try:
            form = {"username": login(self.number), "password": PASSWORD}
            answer = await context.request.post(f"{self.url}login", form=form)
            if not answer.ok:
                self.record.complain(self.number, f"the login was answered with {answer.status}")
            await self._open(page.goto, page, self.url)
            if not await page.evaluate(_HAS_INDICATOR):
                self.record.complain(self.number, "gradio's indicator is not where _FRAMES looks for it")
            async for action in paced(actions(seed, self.number), stay):
                await self._act(page, action)
            await self._look(page)
        except Error as error:
            self.record.complain(self.number, str(error).splitlines()[0])
        self.leaving = True
        await context.close()

    def _listen(self, page: Page) -> None:
        """Whatever fails in the background."""

        def complain(what: str) -> None:
            if not self.leaving:
                self.record.complain(self.number, what)

        page.on("console", lambda said: complain(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: complain(f"script: {error}"))
        page.on("response", lambda got: complain(f"{got.status} {got.url}") if got.status >= 500 else None)

    async def _open(self, load: Callable[..., Any], page: Page, *where: str) -> None:
        began = time.monotonic()
        await load(*where)
        await page.wait_for_selector(".plot[data-drawn]")
        await page.wait_for_function("document.querySelector('#model-A input')?.value.includes('demo')")
        await page.wait_for_function("!document.querySelector('.gradio-container').inert")
        self.record.took("opening", time.monotonic() - began)

    async def _act(self, page: Page, action: Action) -> None:
        try:
            if action.kind == "drop":
                await self._drop(page, action.value)
            elif action.kind == "preset":
                await page.click(f"#preset label:has-text('{action.value}')")
            elif action.kind == "chat":
                await self._ask(page, action.value)
            else:
                await self._look(page)
                self.leaving = True  # a reload breaks off what is under way, and the console says so
                try:
                    await self._open(page.reload, page)
                finally:
                    self.leaving = False
        except Error as error:
            self.record.complain(self.number, f"{action.kind}: {str(error).splitlines()[0]}")

    async def _drop(self, page: Page, count: str) -> None:
        if await page.input_value("#drop input[type=range]") == count:  # it was there before a reload
            return
        seconds = await page.evaluate(_MOVE, [count, LOST_S * 1000])
        self._measured("preview", seconds, f"the map did not follow to {count}")

    async def _ask(self, page: Page, question: str) -> None:
        await page.wait_for_function("!document.querySelector('#send').disabled")
        await page.locator("#prompt textarea").fill(question)
        seconds = await page.evaluate(_FIRST_TOKEN, [question, LOST_S * 1000])
        state = "" if seconds else await page.evaluate(_CHAT_STATE)
        self._measured("first token", seconds, f"no answer to {question!r}: {state}")

    def _measured(self, kind: str, seconds: float | None, otherwise: str) -> None:
        if seconds is None:
            self.record.complain(self.number, otherwise)
        else:
            self.record.took(kind, seconds)

    async def _look(self, page: Page) -> None:
        """Nobody else's words may be here, and no error."""
        text = await page.inner_text("body")
        for other in range(100):
            if other != self.number and mark(other) in text:
                self.record.complain(self.number, f"sees a conversation of person {other}")
        for problem in await page.locator(".notice.error:visible, .toast-body.error:visible").all_inner_texts():
            self.record.complain(self.number, f"the page says: {problem!r}")


async def live(url: str, people: int, seed: int, stay: Stay, record: Record, *, processes: int) -> None:
    """All people, each for their stay, spread over a few Chromium processes."""
    program = shutil.which(os.environ.get("ESPALIER_CHROMIUM", "chromium"))
    async with async_playwright() as playwright:
        launch = playwright.chromium.launch
        browsers = [await launch(executable_path=program, args=SWITCHES) for _ in range(processes)]
        lives = (
            partial(Person(number, url, record).live, browsers[number % processes], seed, stay)
            for number in range(people)
        )
        await one_after_the_other(lives, stay.apart_s)
        for browser in browsers:
            await browser.close()
