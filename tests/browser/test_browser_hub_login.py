"""A login at the Hub, as on a Space: who may enter. The Hub is out of reach; what it would say is signed as gradio
signs it, and gradio is what reads it."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.browser.conftest import App, running_app

SECRET = "of the space"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
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
        }.items():
            patched.setenv(name, value)
        with running_app(tmp_path_factory.mktemp("space") / "workspace") as started:
            patched.undo()
            yield started


def cookie_of(name: str, *, secret: str = SECRET, left_s: float = 60.0) -> dict[str, str]:
    """What the browser of `name` sends after a login at the Hub."""
    from itsdangerous import TimestampSigner

    info = {"oauth_info": {"expires_at": time.time() + left_s, "userinfo": {"preferred_username": name}}}
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
