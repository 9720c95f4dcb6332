"""Who may enter, and what guessing costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from studio.errors import InputError
from studio.logins import FIRST_WAIT_S, FREE_TRIES, LONGEST_WAIT_S, REMEMBERED, Passwords, entry_of
from tests.loops import run_apart


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESPALIER_AUTH", "ESPALIER_OAUTH_USERS", "SPACE_ID", "OAUTH_CLIENT_ID", "SYSTEM"):
        monkeypatch.delenv(name, raising=False)


def test_a_page_that_others_can_reach_needs_a_login_or_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry_of("127.0.0.1").is_open
    with pytest.raises(InputError, match=r"no login.*--auth-file.*--public"):
        entry_of("0.0.0.0")
    assert entry_of("0.0.0.0", public=True).public
    monkeypatch.setenv("ESPALIER_AUTH", "me:secret:with:colons\nyou:two")
    assert entry_of("0.0.0.0").people == {"me": "secret:with:colons", "you": "two"}
    assert not entry_of("127.0.0.1").is_open
    with pytest.raises(InputError, match="Choose one"):
        entry_of("0.0.0.0", public=True)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("me:one\nsecret", "line 2"),
        ("me:", "line 1"),
        ("a:b\na:c", "already"),
        ("me :secret", "line 1, has a blank beside its colon"),
        ("you:one\nme: secret", "line 2, has a blank beside its colon"),
    ],
)
def test_a_wrong_line_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, told: str, words: str) -> None:
    monkeypatch.setenv("ESPALIER_AUTH", told)
    with pytest.raises(InputError, match=words) as caught:
        entry_of("127.0.0.1")
    assert "secret" not in str(caught.value)


def test_a_file_of_passwords_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    file.write_text("me:one\n\nyou:two\n")
    file.chmod(0o640)
    with pytest.raises(InputError, match=r"Others can read.*chmod 600"):
        entry_of("0.0.0.0", file=file)
    file.chmod(0o600)
    assert set(entry_of("0.0.0.0", file=file).people) == {"me", "you"}
    file.write_text("\n")
    with pytest.raises(InputError, match="names nobody"):
        entry_of("0.0.0.0", file=file)
    with pytest.raises(InputError, match="cannot be read"):
        entry_of("0.0.0.0", file=tmp_path / "nowhere")


def test_on_a_space_its_owner_and_the_named_may_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "Owner/studio")
    with pytest.raises(InputError, match="no login"):
        entry_of("0.0.0.0")
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "id")
    monkeypatch.setenv("ESPALIER_OAUTH_USERS", "Friend, other")
    assert entry_of("0.0.0.0").hub_users == {"owner", "friend", "other"}


def test_whoever_guesses_waits_longer_and_longer() -> None:
    now = 1000.0
    passwords = Passwords({"me": "right"}, now=lambda: now)
    for _ in range(FREE_TRIES - 1):
        assert not passwords.right("me", "wrong", "here")
    assert passwords.wait_s("me", "here") == 0
    waits = []
    for _ in range(12):
        assert not passwords.right("me", "wrong", "here")
        waits.append(passwords.wait_s("me", "here"))
        now += waits[-1]
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert max(waits) == LONGEST_WAIT_S
    assert passwords.wait_s("me", "elsewhere") == 0, "a person is not locked out by somebody else's guesses"
    assert passwords.right("me", "right", "elsewhere")
    assert passwords.right("me", "right", "here") and passwords.wait_s("me", "here") == 0


def test_many_addresses_that_guess_one_name_wait_too() -> None:
    passwords = Passwords({"me": "right"}, now=lambda: 0.0)
    for number in range(10 * FREE_TRIES):
        assert not passwords.right("me", "wrong", f"address {number}")
    assert passwords.wait_s("me", "a new one") > 0
    assert passwords.wait_s("you", "a new one") == 0


def test_what_is_counted_stays_small() -> None:
    passwords = Passwords({}, now=lambda: 0.0)
    for number in range(REMEMBERED + 10):
        assert not passwords.right(f"name {number}", "", f"{number}")
    assert len(passwords._wrong) <= REMEMBERED


def test_one_name_is_not_locked_out_by_wrong_passwords_for_others() -> None:
    passwords = Passwords({"me": "right"}, now=lambda: 0.0)
    for number in range(FREE_TRIES):
        assert not passwords.right(f"random {number}", "wrong", "the proxy")
    assert passwords.wait_s("me", "the proxy") == 0 and passwords.right("me", "right", "the proxy")


def test_a_browser_that_somebody_has_logged_in_with_waits_for_its_own_mistakes_only() -> None:
    passwords = Passwords({"me": "right"}, now=lambda: 0.0)
    for number in range(10 * FREE_TRIES):
        assert not passwords.right("me", "wrong", f"address {number}")
    assert passwords.wait_s("me", "a new one") > 0
    assert passwords.wait_s("me", "a new one", "mine") == 0
    for _ in range(FREE_TRIES):
        assert not passwords.right("me", "wrong", "here", "mine")
    assert passwords.wait_s("me", "here", "mine") > 0


def test_made_up_names_do_not_have_the_guesses_for_a_real_one_forgotten() -> None:
    passwords = Passwords({"me": "right"}, now=lambda: 0.0)
    for number in range(10 * FREE_TRIES):
        assert not passwords.right("me", "wrong", f"address {number}")
    for number in range(REMEMBERED):
        passwords.right(f"random {number}", "", "here")
    assert passwords.wait_s("me", "a new one") > 0


def test_on_a_space_its_proxies_are_believed_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    app.prepare(app.flags([]), entry_of("127.0.0.1"))
    assert "FORWARDED_ALLOW_IPS" not in os.environ
    monkeypatch.setenv("SPACE_ID", "owner/studio")
    app.prepare(app.flags([]), entry_of("127.0.0.1"))
    believed = os.environ["FORWARDED_ALLOW_IPS"]
    monkeypatch.delenv("FORWARDED_ALLOW_IPS")

    def seen(proxy: str, said: str) -> str:
        found: list[str] = []

        async def app(scope: Any, *_: Any) -> None:
            found.append(scope["client"][0])

        scope = {"type": "http", "client": (proxy, 1), "headers": [(b"x-forwarded-for", said.encode())]}
        run_apart(lambda: ProxyHeadersMiddleware(app, believed)(scope, None, None))  # type: ignore[arg-type]
        return found[0]

    assert seen("10.1.2.3", "198.51.100.7") == "198.51.100.7"
    assert seen("10.1.2.3", "192.0.2.66, 198.51.100.7, 10.9.9.9") == "198.51.100.7", "the first is made up"
    assert seen("203.0.113.5", "198.51.100.7") == "203.0.113.5"
