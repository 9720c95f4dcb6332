"""The door, with gradio behind it: which requests are answered, whoever sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import gradio as gr
import httpx
import pytest
from gradio.routes import App
from starlette.middleware import Middleware

from components.door import Door
from components.library import Library
from components.page import Studio
from components.pages import Pages
from components.requests import LONGEST_CALL, is_used
from components.sessions import Sessions
from components.state import StudioState
from studio.jobs.store import JobStore
from studio.logins import Entry
from studio.workspace import Workspace
from tests.loops import run_apart

OPEN, PUBLIC = Entry(), Entry(public=True)
WITH_LOGIN = Entry({"ann": "one", "bob": "two"})
LONG = b" " * (LONGEST_CALL + 1)


def studio_of(workspace: Workspace) -> Studio:
    library = Library(workspace)
    return Studio(library, JobStore(workspace), StudioState.opening("", None, None), Sessions(library))


def page_of(_: Studio) -> gr.Blocks:
    """A page that says what it is told."""
    with gr.Blocks(analytics_enabled=False) as page:
        said, heard = gr.Textbox(), gr.Textbox()
        said.submit(lambda text: text, said, heard, api_name="say")
    return page


def pages_of(workspace: Workspace, entry: Entry) -> Pages:
    return Pages(workspace, studio_of, page_of, visitors=entry.public)


def app_of(pages: Pages, entry: Entry) -> App:
    behind = pages.alone(studio_of(pages.workspace)) if entry.is_open else gr.Blocks(analytics_enabled=False)
    return App.create_app(behind.queue(), app_kwargs={"middleware": [Middleware(Door, entry=entry, pages=pages)]})


def client(app: App, url: str, address: str = "192.0.2.1") -> httpx.AsyncClient:
    """A browser that asks for `url`."""
    transport = httpx.ASGITransport(app, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url=url, timeout=60)


def entered(workspace: Workspace, entry: Entry, url: str) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """A browser that has come in."""

    @asynccontextmanager
    async def browser() -> AsyncIterator[httpx.AsyncClient]:
        async with client(app_of(pages_of(workspace, entry), entry), url) as one:
            if entry.people:
                said = await one.post("/login", data={"username": "ann", "password": "one"})
                assert said.status_code == 200, said.text
            if entry.public:
                await one.get("/")
            yield one

    return browser()


def test_the_page_of_this_machine_does_not_answer_under_the_name_of_some_site(workspace: Workspace) -> None:
    async def ask() -> None:
        async with entered(workspace, OPEN, "http://127.0.0.1:7860") as one:
            for host in ("evil.test:7860", "127.0.0.1.evil.test", "192.0.2.7:7860", "localhost.evil.test", "[", ""):
                headers = {"Host": host, "Origin": f"http://{host}", "X-Forwarded-Host": "127.0.0.1:7860"}
                for path in ("/config", "/", "/gradio_api/info"):
                    answer = await one.get(path, headers=headers)
                    assert answer.status_code == 403 and "ESPALIER_AUTH" in answer.text

    run_apart(ask)


def test_the_page_of_this_machine_answers_at_any_port_and_a_program_too(workspace: Workspace) -> None:
    async def ask() -> None:
        async with entered(workspace, OPEN, "http://127.0.0.1:7860") as one:
            for host in ("127.0.0.1:7860", "localhost", "localhost:18080", "[::1]:9", "127.0.0.2", "a.localhost"):
                for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
                    assert (await one.get("/config", headers=headers)).status_code == 200
                    said = await one.post("/gradio_api/run/say", json={"data": ["3 + 4"]}, headers=headers)
                    assert said.status_code == 200 and said.json()["data"] == ["3 + 4"]

    run_apart(ask)


FOREIGN = ["http://evil.test", "http://wiki.corp.test", "https://127.0.0.1.evil.test", "null", "http://[", "file://"]


@pytest.mark.parametrize(
    ("entry", "url", "origins"),
    [
        (OPEN, "http://127.0.0.1:7860", [*FOREIGN, "http://127.0.0.1:8888", "http://localhost:7860"]),
        (WITH_LOGIN, "http://studio.corp.test:7860", FOREIGN),
        (PUBLIC, "https://studio.corp.test", FOREIGN),
    ],
)
def test_no_page_of_another_site_reads_or_sends_anything(
    workspace: Workspace, entry: Entry, url: str, origins: list[str]
) -> None:
    async def ask() -> None:
        async with entered(workspace, entry, url) as one:
            for origin in origins:
                headers = {"Origin": origin}
                answers = [
                    await one.get("/config", headers=headers),
                    await one.post("/gradio_api/queue/join", json={"data": []}, headers=headers),
                    await one.post("/gradio_api/upload", files={"files": b"some"}, headers=headers),
                    await one.post("/login", data={"username": "ann", "password": "one"}, headers=headers),
                ]
                assert {answer.status_code for answer in answers} == {403}, origin
                asked = {**headers, "Access-Control-Request-Method": "POST"}
                asked["Access-Control-Request-Headers"] = "x-forwarded-host"
                answers.append(await one.options("/gradio_api/queue/join", headers=asked))
                assert not any("access-control-allow-origin" in answer.headers for answer in answers)
            assert (await one.get("/config")).status_code == 200

    run_apart(ask)


PROXIES: list[tuple[str, dict[str, str], str]] = [
    ("studio.corp.test", {}, "https://studio.corp.test"),
    ("studio.corp.test:80", {}, "http://studio.corp.test:8080"),  # a port that Docker maps
    ("studio.corp.test", {}, "http://studio.corp.test:8080"),  # a proxy that leaves the port away
    ("127.0.0.1:7860", {"X-Forwarded-Host": "studio.corp.test"}, "https://studio.corp.test"),
    ("10.0.0.3:7860", {"X-Forwarded-Host": "studio.corp.test, inner"}, "https://Studio.corp.test"),
    ("owner-studio.hf.space", {"Referer": "https://huggingface.co/"}, "https://owner-studio.hf.space"),
    ("[2001:db8::1]:7860", {}, "http://[2001:db8::1]:7860"),
]


def test_behind_a_proxy_and_on_a_space_the_page_answers_itself(workspace: Workspace) -> None:
    async def ask() -> None:
        async with entered(workspace, WITH_LOGIN, "http://studio.corp.test") as one:
            cookies = "; ".join(f"{name}={value}" for name, value in one.cookies.items())
            for host, more, origin in PROXIES:
                headers = {"Host": host, "Origin": origin, "Cookie": cookies, **more}
                said = await one.post("/gradio_api/run/say", json={"data": ["3 + 4"]}, headers=headers)
                assert said.status_code == 200 and said.json()["data"] == ["3 + 4"], host

    run_apart(ask)


@pytest.mark.parametrize("entry", [OPEN, WITH_LOGIN, PUBLIC])
def test_what_gradio_could_do_beyond_the_page_is_not_there(workspace: Workspace, entry: Entry) -> None:
    async def ask() -> None:
        async with entered(workspace, entry, "http://localhost:7860") as one:
            for path in (
                "process_recording",
                "component_server",
                "vibe-edit",
                "undo-vibe-edit",
                "vibe-code/",
                "vibe-starter-queries/",
                "stream/a",
                "stream/a/close",
                "run-history/connect",
                "profiling/clear",
            ):
                sent = await one.post(f"/gradio_api/{path}", files={"video": b"some"})
                assert sent.status_code == 404, path
            for path in (
                "/gradio_api/proxy=https://example.org/",
                "/gradio_api/deep_link?session_hash=a",
                "/gradio_api/runs",
                "/gradio_api/vibe-code",
                "/gradio_api/dev/reload",
                "/gradio_api/token",
                "/gradio_api/openapi.json",
                "/gradio_api/stream/a/b/1/playlist.m3u8",
                "/gradio_api/profiling/traces",
                "/gradio_api/custom_component/1/client/component/x",
                "/monitoring",
                "/monitoring/summary",
                "/docs",
                "/gradio_api/../monitoring",
            ):
                assert (await one.get(path)).status_code == 404, path

    run_apart(ask)


def test_every_way_of_gradios_is_there_or_is_left_out_on_purpose() -> None:
    """A newer gradio may answer more: whoever installs it says here what is not needed."""
    needless = (
        *(
            "/user",
            "/login",
            "/logout",
            "/login_check",
            "/token",
            "/openapi.json",
            "/dev/reload",
            "/proxy=",
            "/deep_link",
        ),
        *("/custom_component/", "/component_server", "/process_recording", "/stream/", "/vibe-", "/undo-vibe-edit"),
        *("/monitoring", "/profiling/", "/run-history/", "/runs"),
    )
    app = App.create_app(gr.Blocks(analytics_enabled=False))
    paths = {str(getattr(route, "path", "")) for route in app.routes}
    left = {path.removeprefix("/gradio_api") for path in paths if not is_used(path)}
    assert {path for path in left if not path.startswith(needless)} == set()


@pytest.mark.parametrize("entry", [OPEN, WITH_LOGIN, PUBLIC])
def test_a_request_that_is_too_long_is_refused_before_it_is_kept(workspace: Workspace, entry: Entry) -> None:
    async def ask() -> None:
        async with entered(workspace, entry, "http://localhost:7860") as one:
            sent = 0

            async def endless() -> AsyncIterator[bytes]:
                nonlocal sent
                while True:
                    sent += 1 << 20
                    yield b" " * (1 << 20)

            for content in (LONG, endless()):
                told = {"content-type": "application/json"}
                answer = await one.post("/gradio_api/queue/join", content=content, headers=told)
                assert answer.status_code == 413 and "16 MiB" in answer.text
            assert sent <= LONGEST_CALL + (2 << 20)

    run_apart(ask)
