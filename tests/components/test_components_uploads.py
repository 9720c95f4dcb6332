"""Files that a browser sends, and the room that there is for them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from components.uploads import adopted, require_room_to_send
from studio.errors import ResourceError
from studio.limits import QUOTA
from studio.workspace import Workspace
from tests.browser.conftest import running_app


def test_what_is_kept_counts_too(own_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.open(own_workspace)
    monkeypatch.setenv(QUOTA.variable, "1M")
    for name, size in (("small.jsonl", 1 << 10), ("large.jsonl", 2 << 20)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert adopted(workspace, tmp_path / "small.jsonl", workspace.prompts).is_file()
    with pytest.raises(ResourceError, match="may take"):
        adopted(workspace, tmp_path / "large.jsonl", workspace.prompts)
    assert [path.name for path in workspace.prompts.iterdir()] == ["small.jsonl"]


def test_one_that_does_not_say_how_long_it_is_may_be_the_longest(
    own_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(own_workspace)
    require_room_to_send(workspace, Headers())
    monkeypatch.setenv(QUOTA.variable, "100M")
    require_room_to_send(workspace, Headers({"content-length": str(10 << 20)}))
    with pytest.raises(ResourceError, match="may take"):
        require_room_to_send(workspace, Headers())


def test_the_page_refuses_what_the_quota_has_no_room_for_and_keeps_nothing_of_it(
    own_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(QUOTA.variable, "5M")
    with running_app(own_workspace) as app:
        address = f"{app.url}gradio_api/upload"
        small = httpx.post(address, files={"files": ("a.json", b"{}")}, timeout=60)
        assert small.status_code == 200
        large = httpx.post(address, files={"files": ("b.json", b"x" * (8 << 20))}, timeout=60)
        assert large.status_code >= 400 and "may take 5 MiB" in large.text
    assert {path.name for path in (own_workspace / "cache" / "uploads").rglob("*.json")} == {"a.json"}
