"""The verb that makes room."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_clean_lists_first_and_removes_only_what_comes_back(verb: Run, own_workspace: Path) -> None:
    cached, brought = own_workspace / "cache" / "converted" / "ab.gguf", own_workspace / "prompts" / "own.jsonl"
    for path in (cached, brought):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)
    dry = verb("clean", "--dry-run")
    assert "Would remove 1 of 2 things" in dry.out and "gone for good" in dry.out and cached.exists()
    told = json.loads(verb("clean", "--json").out)
    assert told["removed"] and told["chosen"] == ["cache/converted/ab.gguf"]
    assert not cached.exists() and brought.exists()
    assert verb("clean", "prompts/other.jsonl", "--yes").code == 2
    assert verb("clean", "prompts/own.jsonl", "--yes").code == 0
    assert not brought.exists()
