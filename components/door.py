"""What stands in front of every page: who comes in, whose page they get, and which files may leave or arrive.

Each person has a page of their own, built on their own part of the workspace: what a handler of one page can reach is
theirs, so no request, however it is made, reaches what is somebody else's.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from gradio.data_classes import _StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.hub_login import hub_name
from components.pages import Page, Pages, visitor
from components.requests import API, bounded, close_to_other_sites, is_used, longest_call, require_own_site
from components.theme import ASSETS
from components.uploads import require_room_to_send
from studio.errors import RefusedError, ResourceError, TooLongError
from studio.logins import OAUTH_VARIABLE, Entry, Passwords

COOKIE_DAYS = 30
WRONG_S = 0.5
"""How long a wrong password is thought about."""
LONGEST_LOGIN = 4096
"""Bytes of a name and a password."""
FREE = ("/favicon.ico", "/manifest.json", "/pwa_icon", "/robots.txt", "/health", "/gradio_api/startup-events")
"""What anybody may ask for: it says nothing about anybody. Browsers fetch the manifest of a page without its cookie."""
_HUB_LOGIN = ("/login/huggingface", "/login/callback")
_LOGIN_OVER = {
    "what": "You are not logged in any more.",
    "remedy": "The login has ended, or the studio was started again. What you chose last is kept until you are back.",
    "button": "Log in again",
}
_VISIT_OVER = {
    "what": "This visit has ended.",
    "remedy": "The studio was started again, or nobody has used this page for long. Nothing of the visit is kept.",
    "button": "Begin anew",
}
"""What assets/connection.js says on an open page whose requests are those of nobody."""
_NO_COOKIE = "This page knows you by a cookie, and your browser sends none. Allow it, and open the page again."


@dataclass
class Door:
    """ASGI middleware in front of gradio; `rest` answers what belongs to no page: a lobby, or the one open page."""

    app: ASGIApp
    entry: Entry
    pages: Pages
    mark: str = field(default_factory=lambda: f"espalier-{secrets.token_hex(4)}")
    """Name of the cookie: two apps on one machine share all others."""
    _inside: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Token of the cookie → (person, until when), of those with a password."""
    _key: bytes = field(default_factory=secrets.token_bytes, repr=False)
    """Signs what browsers keep; another app, or the next start, does not know it."""

    def __post_init__(self) -> None:
        self._passwords = Passwords(self.entry.people)
        close_to_other_sites()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer: ASGIApp
        headers = Headers(scope=scope)
        try:
            require_own_site(headers, local=self.entry.is_open)
            answer = await self._answer(scope, receive)
            if not (isinstance(answer, Response) or scope["method"] in ("GET", "HEAD") or _is_upload(scope["path"])):
                receive = await bounded(headers, receive, longest_call())
        except RefusedError as error:
            answer = PlainTextResponse(str(error), 403)
        except TooLongError as error:
            answer = PlainTextResponse(str(error), 413, {"Connection": "close"})
        except ResourceError as error:
            answer = PlainTextResponse(str(error), 503)
        await answer(scope, receive, _plainly(send) if scope["path"].startswith(f"{API}file") else send)

    async def _answer(self, scope: Scope, receive: Receive) -> ASGIApp:
        """Who answers this request. Raises `RefusedError` where nobody does."""
        request, path = Request(scope, receive), scope["path"].rstrip("/") or "/"
        if self.entry.is_open:
            answer = _guarded(scope, self.pages.only, self.app)
        elif path in FREE or (self.entry.hub_users and path in _HUB_LOGIN):
            answer = self.app
        elif path == "/login" and request.method == "POST" and self.entry.people:
            answer = await self._login(request)
        elif path == "/logout":
            answer = self._logout(request)
        elif (person := self._person(request)) is None:
            answer = await self._outside(request, path)
        else:
            page = await self.pages.of(person, _address(request))
            answer = _guarded(scope, page, page.app)
        return answer

    def _person(self, request: Request) -> str | None:
        """Whose request this is; None where nobody has come in with it."""
        token = request.cookies.get(self.mark, "")
        person, until = self._inside.get(token, (None, 0.0))
        if person is not None and time.time() < until:
            return person
        if self.entry.public and (known := self._told(token)):
            return visitor(known)
        if self.entry.hub_users and (name := hub_name(request)) and name.lower() in self.entry.hub_users:
            return f"{name.lower()} on the Hub"
        return None

    async def _outside(self, request: Request, path: str) -> Response:
        """What somebody gets who has not come in."""
        if path != "/" or request.method not in ("GET", "HEAD"):
            return JSONResponse(
                {"detail": "Not authenticated", **(_VISIT_OVER if self.entry.public else _LOGIN_OVER)}, 401
            )
        if not self.entry.public:
            return HTMLResponse(_login_page(self.entry, hub_name(request) if self.entry.hub_users else None))
        if "visit" in request.query_params:
            return PlainTextResponse(_NO_COOKIE, 403)
        self.pages.leaving(_address(request))
        # A program that knows nothing of cookies does not come back, so it costs no page.
        again = request.url.include_query_params(visit="1").query
        response = HTMLResponse(f"<meta http-equiv='refresh' content='0;url=./?{escape(again)}'>Espalier opens …")
        # All that is known of a visitor stands in the cookie: it costs nothing to give away many.
        self._give(request, response, self.mark, self._signed(secrets.token_hex(16)))
        return response

    async def _login(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_LOGIN:
                return JSONResponse({"detail": "That is too long for a name and a password."}, 413)
        form = await Request(request.scope, _replayed(body)).form()
        user, password = str(form.get("username", "")).strip(), str(form.get("password", ""))
        known, address = self._known(request, user), _address(request)
        if wait := self._passwords.wait_s(user, address, known):
            detail = f"Too many wrong passwords. Try again in {wait:.0f} s."
            return JSONResponse({"detail": detail}, 429, {"Retry-After": f"{wait:.0f}"})
        if not self._passwords.right(user, password, address, known):
            await asyncio.sleep(WRONG_S)
            return JSONResponse({"detail": "There is no such name, or it has another password."}, 400)
        response = JSONResponse({"success": True})
        now = time.time()
        while self._inside and next(iter(self._inside.values()))[1] <= now:  # the oldest stand first
            del self._inside[next(iter(self._inside))]
        token = secrets.token_urlsafe(32)
        self._inside[token] = (user, now + COOKIE_DAYS * 86400)
        self._give(request, response, self.mark, token)
        self._give(request, response, self._known_mark, self._signed(secrets.token_hex(16), user))
        return response

    def _give(self, request: Request, response: Response, name: str, value: str) -> None:
        """Have `response` give a browser the cookie `name`."""
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
        # A Space is shown in a frame of another site, where only a cookie with `SameSite=None` is sent.
        site: Literal["none", "lax"] = "none" if secure and self.pages.in_frame else "lax"
        response.set_cookie(name, value, COOKIE_DAYS * 86400, httponly=True, secure=secure, samesite=site)

    @property
    def _known_mark(self) -> str:
        """Name of the cookie of a browser that somebody has logged in with; it stays when they log out."""
        return f"{self.mark}-known"

    def _known(self, request: Request, user: str) -> str:
        """Which browser this is, if `user` has logged in with it before; else nothing."""
        return self._told(request.cookies.get(self._known_mark, ""), user)

    def _signed(self, token: str, user: str = "") -> str:
        """A cookie that tells `token`, and that it was given to `user`."""
        return f"{token}.{hmac.new(self._key, f'{token} {user}'.encode(), 'sha256').hexdigest()}"

    def _told(self, cookie: str, user: str = "") -> str:
        """What `_signed` put into a cookie; nothing where it was not this app, or for somebody else."""
        token = cookie.partition(".")[0]
        return token if hmac.compare_digest(self._signed(token, user).encode(), cookie.encode()) else ""

    def _logout(self, request: Request) -> Response:
        self._inside.pop(request.cookies.get(self.mark, ""), None)
        if self.entry.hub_users:
            request.session.pop("oauth_info", None)
        response = RedirectResponse("./", 303)
        response.delete_cookie(self.mark)
        return response


def _guarded(scope: Scope, page: Page, app: ASGIApp) -> ASGIApp:
    """`app` where this request to `page` may be answered; else raises `RefusedError`."""
    path: str = scope["path"]
    if not is_used(path):
        return PlainTextResponse("There is nothing here.", 404)
    if _is_upload(path):
        page.workspace.access.require_upload()
        require_room_to_send(page.workspace, Headers(scope=scope))
    for start in (f"{API}file=", f"{API}file/"):
        if path.startswith(start):
            wanted = path.removeprefix(start)
            ours = wanted in map(str, _StaticFiles.all_paths) or wanted in page.blocks.upload_file_set
            if not ours:
                page.workspace.finished(wanted)
    return app


def _is_upload(path: str) -> bool:
    """Whether files come this way; gradio bounds each of them itself, and keeps none of them in memory."""
    return path.rstrip("/") == f"{API}upload"


def _address(request: Request) -> str:
    """Where a request comes from, as a proxy tells it that may (`FORWARDED_ALLOW_IPS`)."""
    return request.client.host if request.client else ""


def _plainly(send: Send) -> Send:
    """A file is what its ending says, whatever a browser would make of its content."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
        await send(message)

    return sending


def _replayed(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _login_page(entry: Entry, stranger: str | None) -> str:
    """The form, the way over the Hub, or both; `stranger` has come that way and may not enter."""
    page = (ASSETS / "login.html").read_text(encoding="utf-8")
    for part, shown in (("PASSWORD", bool(entry.people)), ("HUB", bool(entry.hub_users))):
        if not shown:
            page = re.sub(f"<!--{part}-->.*<!--/{part}-->", "", page, flags=re.DOTALL)
    if stranger is None:
        return page
    why = f"{escape(stranger)} may not enter here: whoever runs this page has to name you in"
    said = f"<p class='wrong'>{why} <code>{OAUTH_VARIABLE}</code>. <a href='logout'>Log out</a></p>"
    return page.replace("<!--STRANGER-->", said)
