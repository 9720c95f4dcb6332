"""Who comes to a page that is open to everybody: how many at a time, and what is left of them."""

from __future__ import annotations

import secrets
import threading
import time

import anyio
import anyio.to_thread
import gradio as gr
import httpx
import pytest

from components import pages as module
from components.page import Studio
from components.pages import IDLE_S, Page, Pages, sweep_visitors, visitor
from studio.access import VISITOR
from studio.errors import ResourceError
from studio.logins import Entry
from studio.workspace import Workspace
from tests.components.test_components_door import WITH_LOGIN, app_of, client, page_of, pages_of, studio_of
from tests.loops import run_apart

PUBLIC = Entry(public=True)


def parts_of(workspace: Workspace) -> set[str]:
    return {part.person for part in workspace.parts().values() if part.person}


def test_a_login_that_is_called_like_a_visitor_keeps_its_files(workspace: Workspace) -> None:
    workspace.of("visitor 1 who has a login")
    workspace.of(visitor(secrets.token_hex(16)), VISITOR)
    sweep_visitors(workspace)
    assert parts_of(workspace) == {"visitor 1 who has a login"}


def test_an_app_that_ends_leaves_nothing_of_its_visitors(workspace: Workspace) -> None:
    async def come() -> None:
        pages = pages_of(workspace, PUBLIC)
        await pages.of(visitor(secrets.token_hex(16)))
        assert len(parts_of(workspace)) == 1
        pages.leave()
        assert parts_of(workspace) == set()

    run_apart(come)


def test_no_more_than_so_many_visitors_have_a_page_and_nobody_takes_all_places(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_VISITORS", 3)

    async def come() -> None:
        pages = pages_of(workspace, PUBLIC)
        app = app_of(pages, PUBLIC)
        greedy = [client(app, "http://studio.test") for _ in range(5)]
        for one in greedy:  # all cookies first
            assert (await one.get("/")).status_code == 200
        opened = [(await one.get("/config")).status_code for one in greedy]
        assert opened == [200, 200, 200, 503, 503] and len(parts_of(workspace)) == 3
        assert (await client(app, "http://studio.test").get("/")).status_code == 503
        others = [client(app, "http://studio.test", f"198.51.100.{number}") for number in range(3)]
        answers: list[httpx.Response] = []
        for one in others:
            answers += [await one.get("/"), await one.get("/config")]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 503, 401]
        assert len(parts_of(workspace)) == 3
        again = [(await one.get("/config")).status_code for one in greedy]
        assert again == [503, 503, 200, 503, 503], "who had most places has one left"
        assert [(await one.get("/config")).status_code for one in others[:2]] == [200, 200]

    run_apart(come)


def test_many_who_come_at_once_find_room_where_others_have_left(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_VISITORS", 5)

    async def come() -> None:
        pages = Pages(workspace, studio_of, page_of, visitors=True)
        idle = time.monotonic() - IDLE_S - 1
        for number in range(5):
            studio = studio_of(workspace.of(f"idle {number}", VISITOR))
            kept = Page(page_of(studio), app_of(pages, WITH_LOGIN), studio.library.workspace, studio.sessions)
            kept.used_at = idle if number < 4 else time.monotonic()
            pages._open[f"idle {number}"] = kept
        found: list[Page] = []

        async def one(name: str) -> None:
            found.append(await pages.of(name))

        names = [visitor(secrets.token_hex(16)) for _ in range(2)]
        async with anyio.create_task_group() as group:
            for name in (*names, *names):
                group.start_soon(one, name)
        assert len(found) == 4 and len({id(page) for page in found}) == 2
        assert len(pages._open) <= 5
        with pytest.raises(ResourceError, match="people are here"):
            while True:
                await pages.of(visitor(secrets.token_hex(16)))

    run_apart(come)


def test_who_has_a_page_does_not_wait_while_another_is_built(workspace: Workspace) -> None:
    async def come() -> None:
        pages = pages_of(workspace, WITH_LOGIN)
        hers = await pages.of("ann")
        async with pages._building:  # somebody's page is being built
            with anyio.fail_after(5):
                assert await pages.of("ann") is hers

    run_apart(come)


def test_cookies_of_visitors_are_not_kept_and_cannot_be_made_up(workspace: Workspace) -> None:
    async def come() -> None:
        pages = pages_of(workspace, PUBLIC)
        app = app_of(pages, PUBLIC)
        one = client(app, "http://studio.test")
        await one.get("/")
        ((name, value),) = one.cookies.items()
        token, _, signature = value.partition(".")
        for made_up in (f"{secrets.token_hex(16)}.{signature}", token, f"{token}.", "", f"{token}.{signature}é"):
            asked = client(app, "http://studio.test")
            answer = await asked.get("/config", headers=[(b"Cookie", f"{name}={made_up}".encode())])
            assert answer.status_code == 401
        assert parts_of(workspace) == set()

    run_apart(come)


def test_nobody_is_locked_out_by_an_other_at_the_same_address(workspace: Workspace) -> None:
    async def come() -> None:
        app = app_of(pages_of(workspace, WITH_LOGIN), WITH_LOGIN)
        ann, other = (client(app, "http://studio.test") for _ in range(2))

        async def log_in(who: httpx.AsyncClient, name: str, password: str) -> int:
            return (await who.post("/login", data={"username": name, "password": password})).status_code

        assert await log_in(ann, "ann", "one") == 200
        assert (await ann.get("/logout")).status_code == 303 and (await ann.get("/config")).status_code == 401
        for name in [*(f"random {number}" for number in range(5)), *["ann"] * 5]:
            assert await log_in(other, name, "wrong") == 400
        assert await log_in(other, "ann", "one") == 429
        assert await log_in(other, "bob", "two") == 200
        assert await log_in(ann, "ann", "one") == 200, "her browser is known"
        known = {name: value for name, value in ann.cookies.items() if name.endswith("-known")}
        bob = client(app, "http://studio.test")
        bob.cookies.update(known)
        for _ in range(5):
            assert await log_in(bob, "bob", "wrong") == 400, "but as hers alone"
        third = client(app, "http://studio.test")
        assert await log_in(third, "bob", "two") == 429

    run_apart(come)


def test_what_one_person_is_answered_does_not_get_onto_the_page_that_is_built_for_another(workspace: Workspace) -> None:
    begun, answered = threading.Event(), threading.Event()

    def build(studio: Studio) -> gr.Blocks:
        if studio.library.workspace.person == "ann":
            with gr.Blocks(analytics_enabled=False) as page:
                shown, more = gr.HTML(), gr.Accordion()
                gr.Button().click(
                    lambda: {shown: gr.HTML("ann's"), more: gr.Accordion(label="ann's")},
                    None,
                    [shown, more],
                    api_name="say",
                )
            return page
        with gr.Blocks(analytics_enabled=False) as page:
            begun.set()
            assert answered.wait(60)
        return page

    async def come() -> None:
        pages = Pages(workspace, studio_of, build)
        app = app_of(pages, WITH_LOGIN)
        ann, bob = (client(app, "http://studio.test") for _ in range(2))
        for browser, (user, password) in zip((ann, bob), WITH_LOGIN.people.items(), strict=True):
            await browser.post("/login", data={"username": user, "password": password})
        await ann.get("/config")
        async with anyio.create_task_group() as group:
            group.start_soon(pages.of, "bob")
            await anyio.to_thread.run_sync(begun.wait)
            said = await ann.post("/gradio_api/run/say", json={"data": []})
            answered.set()
        assert said.status_code == 200 and "ann's" in said.text
        page = await bob.get("/config")
        assert page.status_code == 200 and "ann's" not in page.text and page.json()["components"] == []

    run_apart(come)
