"""What somebody can send who does not use the page: the same requests, with whatever in them."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import APIResponse, Page

from tests.patience import PATIENCE_S


def called(page: Page, url: str, elem_id: str, event: str, data: list[Any]) -> str:
    """What the handler of `event` at an element answers to `data`, as text; the cookies are those of `page`."""
    config = page.request.get(f"{url}config").json()
    ids = [one["id"] for one in config["components"] if one["props"].get("elem_id") == elem_id]
    (handler, *_) = [one for one in config["dependencies"] if any([id, event] in one["targets"] for id in ids)]
    body = {"fn_index": handler["id"], "data": data, "session_hash": "direct", "event_data": None}
    return page.request.post(f"{url}gradio_api/run/predict", data=body).text()


def downloaded(page: Page, url: str, path: str) -> tuple[int, str]:
    """Status and text of a download of `path`, which is sent letter by letter: a browser would tidy it up."""
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    server = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    server.request("GET", f"/gradio_api/file={path}", headers={"Cookie": cookies})
    answer = server.getresponse()
    text = answer.read(1 << 16).decode("utf-8", "replace")
    server.close()
    return answer.status, text


def uploaded(page: Page, url: str, name: str, content: bytes) -> APIResponse:
    """The answer to a file that is sent."""
    file: Any = {"name": name, "mimeType": "application/json", "buffer": content}
    return page.request.post(f"{url}gradio_api/upload", multipart={"files": file})
