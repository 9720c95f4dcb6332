"""What somebody can send who does not use the page: the same requests, with whatever in them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import APIResponse, Page


def called(page: Page, url: str, elem_id: str, event: str, data: list[Any]) -> str:
    """What the handler of `event` at an element answers to `data`, as text; the cookies are those of `page`."""
    config = page.request.get(f"{url}config").json()
    ids = [one["id"] for one in config["components"] if one["props"].get("elem_id") == elem_id]
    (handler, *_) = [one for one in config["dependencies"] if any([id, event] in one["targets"] for id in ids)]
    body = {"fn_index": handler["id"], "data": data, "session_hash": "direct", "event_data": None}
    return page.request.post(f"{url}gradio_api/run/predict", data=body).text()


def downloaded(page: Page, url: str, path: str) -> APIResponse:
    """The answer to a download of `path`, which is sent as it is."""
    return page.request.get(f"{url}gradio_api/file={path}")


def uploaded(page: Page, url: str, name: str, content: bytes) -> APIResponse:
    """The answer to a file that is sent."""
    file: Any = {"name": name, "mimeType": "application/json", "buffer": content}
    return page.request.post(f"{url}gradio_api/upload", multipart={"files": file})
