"""Which requests are answered at all: those of the page itself, by the ways that it uses, and of a bounded size.

A browser sends a request to wherever any page tells it to, with the cookies of whoever sits there. So it is the server
that has to ask which page a request comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from gradio.route_utils import CustomCORSMiddleware
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from studio.errors import RefusedError, TooLongError
from studio.limits import PROMPT

API = "/gradio_api/"
PAGE = ("", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/pwa_icon", "/robots.txt", "/health")
"""The page, and what stands beside it."""
SCRIPTS = ("/assets/", "/static/", "/svelte/", "/pwa_icon/")
"""Folders of gradio's that hold what the page is made of."""
CALLS = (
    "info",
    "theme.css",
    "startup-events",
    "app_id",
    "upload",
    "upload_progress",
    "queue/join",
    "queue/data",
    "queue/status",
    "cancel",
    "reset",
)
"""What the page and gradio's own client ask of `API`, word for word."""
NAMED_CALLS = ("file=", "file/", "heartbeat/", "run/", "api/", "call/")
"""The same, with a name after it. Gradio answers more: it takes recordings and edits of its own source, fetches
addresses, hands out what was streamed, and shows who used the page. None of that is needed here."""
LONGEST_CALL = 16 << 20
"""Bytes of a request that is no upload: a page sends little but what somebody wrote."""
BYTES_A_CHARACTER = 16
"""Of a prompt as long as it may be: four in UTF-8, and what is sent may hold it more than once."""
_PORTS = {"http": 80, "https": 443}


def close_to_other_sites() -> None:
    """Have gradio tell no browser that a page of another site may read what it answers.

    It would, to every site, with cookies, wherever the studio is not called localhost; and it tells so before the door
    is asked.
    """
    CustomCORSMiddleware.is_valid_origin = _never  # type: ignore[assignment, method-assign]  # gradio has no setting


def require_own_site(headers: Mapping[str, str], *, local: bool) -> None:
    """Raise `RefusedError` for a request that a page of another site had a browser send.

    Browsers say in `Origin` which site a request comes from, but for those that only show or fetch something. It has to
    be the one asked for, whose name a proxy tells in `X-Forwarded-Host`: only a proxy, or a program, can say that, as
    browsers ask before they send it for another site, and are told no (`close_to_other_sites`). The port may be another
    one, for many a proxy leaves it away. A program sends no `Origin`.

    Where the page is `local`, of the one person at this machine, nobody is asked who they are. So the port has to
    be right too, or pages of other servers on this machine could send requests; and the studio has to be asked for by a
    name of this machine, or a site could have its own name lead here (DNS rebinding).
    """
    host = headers.get("host", "")
    if local and not _is_loopback(host):
        raise RefusedError(
            f"This studio is open to this machine alone, and answers at 127.0.0.1 and localhost, not at {host!r}.",
            "Give it a login to use it under another name: `ESPALIER_AUTH=USER:PASSWORD`, or `--auth-file FILE`.",
        )
    origin = headers.get("origin")
    if origin is None:
        return
    here = [host, *headers.get("x-forwarded-host", "").split(",")]
    if not any(_same(origin, name.strip(), ports=local) for name in here):
        raise RefusedError(
            f"This request comes from a page of {origin}, and the studio answers its own page only.",
            "Behind a proxy, have it pass on the header Host, or X-Forwarded-Host.",
        )


def is_used(path: str) -> bool:
    """Whether the page, or gradio's client, asks for `path`; everything else is not there."""
    if not path.startswith(API):
        return path.rstrip("/") in PAGE or path.startswith(SCRIPTS)
    call = path.removeprefix(API)
    return call.rstrip("/") in CALLS or call.startswith(NAMED_CALLS)


def longest_call() -> int:
    """Bytes that a request may have which is no upload."""
    return max(LONGEST_CALL, BYTES_A_CHARACTER * (PROMPT.value or 0))


async def bounded(headers: Mapping[str, str], receive: Receive, most: int) -> Receive:
    """`receive`, the body already read. Raises `TooLongError` for one of more than `most` bytes, which is not kept."""
    told = headers.get("content-length", "")
    if told.isdigit() and int(told) > most:
        raise _too_long(most)
    messages: list[Message] = []
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise _too_long(most)
        messages.append(message)
        more = message["type"] == "http.request" and message.get("more_body", False)
    coming = iter(messages)

    async def again() -> Message:
        message = next(coming, None)
        return await receive() if message is None else message

    return again


def _too_long(most: int) -> TooLongError:
    return TooLongError(f"This request has more than {most >> 20} MiB, and no more are taken.", "Send less at a time.")


def _is_loopback(host: str) -> bool:
    """Whether a `Host` is a name of this machine that nobody else can give to theirs."""
    found = _split(f"//{host}")
    name = (found.hostname if found else None) or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _same(origin: str, host: str, *, ports: bool) -> bool:
    """Whether a page of `origin`, an address without a path, is one of `host`, a name with or without a port."""
    theirs = _split(origin)
    ours = _split(f"{theirs.scheme}://{host}") if theirs else None
    if not (theirs and ours and theirs.hostname and theirs.hostname == ours.hostname):
        return False
    usual = _PORTS.get(theirs.scheme)
    return not ports or (theirs.port or usual) == (ours.port or usual)


def _split(address: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        found = urlsplit(address)
        _ = found.port, found.hostname
    except ValueError:
        return None
    return found


def _never(_: CustomCORSMiddleware, request_headers: Headers) -> bool:
    return False
