"""A login at the Hub, as on a Space: who may enter. The Hub is out of reach; what it would say is signed as gradio
signs it, and gradio is what reads it."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect

from studio.checkpoints.reference import open_reference
from studio.jobs.task import reference_path
from studio.jobs.tasks import check
from studio.progress import silent
from studio.workspace import Workspace
from tests.browser.conftest import App, running_app
from tests.patience import PATIENCE_S
from tests.publish.hub_stand_in import Hub, start

SECRET = "of the space"


FRIENDS = "hf_oauth_aLoginThatMustNotBeWrittenAnywhere"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """A stand-in that only the friend's login opens."""
    hub = Hub(token=FRIENDS)
    server = start(hub)
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[App]:
    pytest.importorskip("authlib", reason="a login at the Hub needs gradio[oauth]")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {
            "SYSTEM": "spaces",
            "SPACE_ID": "owner/studio",
            "OAUTH_CLIENT_ID": "id",
            "OAUTH_CLIENT_SECRET": SECRET,
            "OAUTH_SCOPES": "openid profile",
            "OPENID_PROVIDER_URL": "http://127.0.0.1:9",
            "ESPALIER_OAUTH_USERS": "friend",
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_ofTheSpaceOpensNothing",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # the stand-in speaks Git LFS
        }.items():
            patched.setenv(name, value)
        root = tmp_path_factory.mktemp("space") / "workspace"
        friends = Workspace.open(root).of("friend on the Hub")
        shape = open_reference(reference_path(friends, "demo")).shape
        drop = json.dumps({layer: list(range(24, 32)) for layer in shape.layer_ids})
        (friends.maps / "last.json").write_text(drop)
        told = {"reference": "demo", "map": "maps/last.json", "name": "small", "outputs": ["gguf"], "tiers": ["Q4_K_M"]}
        check("build", told, friends).run(friends, silent)
        with running_app(root) as started:
            patched.undo()
            yield started


def cookie_of(name: str, *, secret: str = SECRET, left_s: float = 60.0, **told: str) -> dict[str, str]:
    """What the browser of `name` sends after a login at the Hub, which has `told` more."""
    from itsdangerous import TimestampSigner

    login = {"expires_at": time.time() + left_s, "userinfo": {"preferred_username": name}, **told}
    info = {"oauth_info": login}
    key = hashlib.sha256(f"{secret}-v4".encode()).hexdigest()
    signed = TimestampSigner(key).sign(base64.b64encode(json.dumps(info).encode()))
    return {"Cookie": f"session={signed.decode()}"}


def test_the_owner_and_the_named_enter_and_nobody_else(space: App) -> None:
    for name in ("owner", "Friend"):
        answer = httpx.get(f"{space.url}config", headers=cookie_of(name), timeout=120)
        assert answer.status_code == 200 and answer.json()["username"] == f"{name.lower()} on the Hub"
    outside = (
        cookie_of("stranger"),
        cookie_of("owner", secret="guessed"),
        cookie_of("owner", left_s=-1),
        {"Cookie": "session=rubbish"},
        {},
    )
    for headers in outside:
        assert httpx.get(f"{space.url}config", headers=headers).status_code == 401
        assert "Log in with Hugging Face" in httpx.get(space.url, headers=headers).text
    told = httpx.get(space.url, headers=cookie_of("<b>stranger")).text
    assert "&lt;b&gt;stranger may not enter here" in told and "ESPALIER_OAUTH_USERS" in told


def test_a_password_opens_nothing_where_none_was_given(space: App) -> None:
    assert httpx.post(f"{space.url}login", data={"username": "owner", "password": ""}).status_code == 401


def test_whoever_logged_in_publishes_with_their_login_and_it_is_written_nowhere(
    space: App, hub: Hub, browser: Browser
) -> None:
    cookie = cookie_of("friend", left_s=3600, access_token=FRIENDS, scope="openid profile contribute-repos")["Cookie"]
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    name, _, value = cookie.partition("=")
    context.add_cookies([{"name": name, "value": value, "url": space.url}])
    page = context.new_page()
    page.context.set_default_timeout(PATIENCE_S * 1000)
    page.goto(space.url)
    page.wait_for_selector("#card-preview img")
    expect(page.locator("#publish-missing")).to_contain_text("your own login at the Hub")
    page.fill("#publish-repository input, #publish-repository textarea", "friend/small")
    page.click("#publish-send")
    page.wait_for_selector("#publish-uploads .badge.done, #publish-uploads .badge.failed, #publish-said .notice.error")
    assert page.locator("#publish-uploads .badge.done").count() == 1, page.inner_text("#publish")
    assert FRIENDS not in page.content()
    context.close()
    (repository,) = hub.repositories.values()
    assert repository.private and any(file.endswith(".gguf") for file in repository.files)
    searched = ["grep", "--recursive", "--files-with-matches", "--text", FRIENDS, str(space.workspace.parent)]
    assert subprocess.run(searched, capture_output=True, text=True, check=False).stdout == ""
