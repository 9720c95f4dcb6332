"""Who may enter the page: people with passwords, or people whom the Hub knows."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import InputError

VARIABLE = "ESPALIER_AUTH"
OAUTH_VARIABLE = "ESPALIER_OAUTH_USERS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

FREE_TRIES = 5
"""Wrong passwords for one name from one address, or from everywhere ten times as many, before it has to wait."""
FIRST_WAIT_S, LONGEST_WAIT_S = 30.0, 3600.0
"""The wait doubles with every further wrong password."""
REMEMBERED = 10_000
"""Addresses and names whose wrong passwords are counted: more are forgotten, the oldest first."""


def people_of(text: str, said_where: str) -> dict[str, str]:
    """User → password, of lines USER:PASSWORD. `InputError` for a line that is none, or a name that comes twice."""
    people: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        user, _, password = line.strip().partition(":")
        if not line.strip():
            continue
        if not user or not password:  # the line is not shown: it may be a password
            raise InputError(f"{said_where}, line {number}, is not of the form USER:PASSWORD.", "Give one a line.")
        if user != user.strip() or password != password.strip():
            raise InputError(f"{said_where}, line {number}, has a blank beside its colon.", "Write USER:PASSWORD.")
        if user in people:
            raise InputError(f"{said_where}, line {number}: there is a password for {user!r} already.", "Remove one.")
        people[user] = password
    return people


def read_people(file: Path) -> dict[str, str]:
    """`people_of` a file that nobody else can read; `InputError` where others can, or where it names nobody."""
    try:
        others = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The logins cannot be read from {file}: {error}.") from error
    if others:
        raise InputError(f"Others can read the passwords in {file}.", f"Say `chmod 600 {file}`, and change them.")
    people = people_of(text, str(file))
    if not people:
        raise InputError(f"{file} names nobody.", "Write USER:PASSWORD, one a line.")
    return people


@dataclass(frozen=True)
class Entry:
    """How the page is entered; without people, Hub and `public` it is that of the one person at this machine."""

    people: Mapping[str, str] = field(default_factory=dict, repr=False)
    """User → password."""
    hub_users: frozenset[str] = frozenset()
    """Names on the Hub, in lower case, that may enter with a login there."""
    public: bool = False

    @property
    def is_open(self) -> bool:
        """Whether there is one page, without a login."""
        return not (self.people or self.hub_users or self.public)


def entry_of(host: str, *, file: Path | None = None, public: bool = False) -> Entry:
    """What the flags and the environment say of logins. Raises `InputError` where others could reach a page without.

    On a Space with OAuth (`hf_oauth: true`), its owner may enter, and whom `ESPALIER_OAUTH_USERS` names.
    """
    told = os.environ.get(VARIABLE, "")
    people = people_of(told, VARIABLE)
    if file is not None:
        if people:
            raise InputError(f"Logins are given by {VARIABLE} and by --auth-file.", "Choose one of them.")
        people = read_people(file)
    on_space = os.environ.get("SYSTEM") == "spaces"  # as gradio asks it
    space, oauth = os.environ.get("SPACE_ID", ""), on_space and os.environ.get("OAUTH_CLIENT_ID", "")
    named = os.environ.get(OAUTH_VARIABLE, "").replace(",", " ").split()
    hub_users = frozenset(name.lower() for name in [space.partition("/")[0], *named] if name) if space and oauth else ()
    if public and (people or hub_users):
        raise InputError("The page is to be open to everybody (--public) and to have logins.", "Choose one of them.")
    if not (public or people or hub_users or host in LOOPBACK):
        raise InputError(
            f"Others can reach {host}, and the page has no login.",
            f"Set {VARIABLE}=USER:PASSWORD, give --auth-file FILE, or say --public for the demo, read-only.",
        )
    return Entry(people, frozenset(hub_users), public)


@dataclass
class Passwords:
    """Compares passwords in constant time, and makes whoever guesses wait."""

    people: Mapping[str, str] = field(repr=False)
    now: Callable[[], float] = time.monotonic
    _wrong: dict[str, tuple[int, float]] = field(default_factory=dict, repr=False)
    """Name, and where from → (wrong passwords in a row, when that may be tried again)."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _nobody: str = field(default_factory=secrets.token_hex, repr=False)

    def wait_s(self, user: str, address: str, browser: str = "") -> float:
        """Seconds until `user` may try again from `address`, or from a `browser` that they have logged in with before.

        Such a browser waits for its own wrong passwords only: nobody locks its owner out.
        """
        with self._lock:
            until = max(self._wrong.get(key, (0, 0.0))[1] for key, _ in _keys(user, address, browser))
        return max(0.0, until - self.now())

    def right(self, user: str, password: str, address: str, browser: str = "") -> bool:
        """Whether this is the password of `user`; counted where it is not. Not asked while they have to wait."""
        known = self.people.get(user, self._nobody)
        same = hmac.compare_digest(_digest(known), _digest(password)) and user in self.people
        with self._lock:
            for key, free in _keys(user, address, browser):
                count = 0 if same else self._wrong.pop(key, (0, 0.0))[0] + 1
                beyond = count - free
                wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(beyond, 20)) if beyond >= 0 else 0.0
                self._wrong.pop(key, None)
                if count:
                    self._wrong[key] = (count, self.now() + wait)
            kept = {_everywhere(name) for name in self.people}  # nobody has it forgotten with made-up names
            while len(self._wrong) > REMEMBERED + len(kept):
                del self._wrong[next(key for key in self._wrong if key not in kept)]
        return same


def _keys(user: str, address: str, browser: str) -> list[tuple[str, int]]:
    """What wrong passwords are counted by, and how many of them cost nothing.

    Not by address alone: behind a proxy that is everybody's, and one name more or less is no secret.
    """
    if browser:
        return [(f"{_everywhere(user)} in browser {browser}", FREE_TRIES)]
    return [(f"{_everywhere(user)} from {address}", FREE_TRIES), (_everywhere(user), 10 * FREE_TRIES)]


def _everywhere(user: str) -> str:
    return f"name {_digest(user).hex()}"


def _digest(text: str) -> bytes:
    """Of one length, whatever the text's is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
