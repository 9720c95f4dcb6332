"""The verbs about finished files: how far one is from its reference, and where it runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of its own."""
    monkeypatch.setenv("ESPALIER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_file_is_compared_with_its_reference_on_prompts_and_the_result_is_kept(
    gguf: Path, prompts: Path, home: Path, tmp_path: Path, verb: Run
) -> None:
    other = Path(shutil.copy(gguf, tmp_path / "same.gguf"))
    given = ["diverge", other, "--against", gguf, "--prompts", prompts, "--continuation", 4, "--threads", 1]
    found = verb(*given, "--json").json
    assert found["overall"]["kl_mean"] == 0 and found["overall"]["same_top"] == 1
    scored = [one["tokens"] for one in found["by_class"].values()]
    assert len(scored) > 1 and sum(scored) == found["overall"]["tokens"]
    kept = json.loads(Path(found["result"]).read_text())
    assert Path(found["result"]).parent == home / "measures" and kept["kind"] == "divergence"
    assert "KL divergence 0.0000" in verb(*given).out


def test_a_text_and_prompts_are_not_compared_at_once(gguf: Path, prompts: Path, home: Path, verb: Run) -> None:
    told = verb("diverge", gguf, "--against", gguf, "--text", prompts, "--prompts", "builtin").mistake
    assert "--text or --prompts, not both" in told


def test_where_a_model_runs_is_said_and_may_be_decided(gguf: Path, home: Path, verb: Run) -> None:
    room = ["--ram-gib", 4, "--context", 64]
    (alone,) = verb("fits", gguf, "--gpu-gib", 0, *room, "--json").json["files"]
    assert (alone["kind"], alone["gpu_layers"]) == ("RAM", 0)
    pair = verb("fits", gguf, "--with", gguf, "--gpu-gib", 12, *room, "--json").json
    assert pair["together"] and [one["kind"] for one in pair["files"]] == ["card", "card"]
    (decided,) = verb("fits", gguf, "--gpu-gib", 12, "--cpu-moe-layers", 1, *room, "--json").json["files"]
    assert (decided["kind"], decided["cpu_moe_layers"]) == ("experts in RAM", 1)
    assert "--n-cpu-moe 1" in verb("fits", gguf, "--gpu-gib", 12, "--cpu-moe-layers", 1, *room).out


def test_a_file_without_a_model_is_refused(home: Path, tmp_path: Path, verb: Run) -> None:
    (tmp_path / "text.gguf").write_text("This is no model.")
    assert "not a GGUF file" in verb("fits", tmp_path / "text.gguf").mistake
    assert "not a GGUF file" in verb("diverge", tmp_path / "text.gguf", "--against", tmp_path / "text.gguf").mistake
