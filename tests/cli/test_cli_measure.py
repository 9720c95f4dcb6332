"""The verb that measures a map before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_a_map_is_measured_without_building_anything(
    verb: Run, checkpoint: Path, prompts: Path, drop_map: Path, contributions: Path
) -> None:
    asked = ("measure", checkpoint, "--prompts", prompts, "--max-tokens", 60)
    told = verb(*asked, "--map", drop_map, "--json").json
    assert told["dropped"] == 3 and set(told["classes"]) == {"math", "code"} and told["warning"] == ""
    assert told["overall"]["kl_mean"] > 0 and told["overall"]["tokens"] > 4
    made = verb(*asked, "--contributions", contributions, "--preset", "98e-v4", "--drop", 3, "--json").json
    assert made["map_hash"] == told["map_hash"] and made["classes"] == told["classes"]
    assert "those of the analysis" in made["warning"]
    shown = verb(*asked, "--map", drop_map).out
    assert "3 of 8 experts dropped" in shown and "KL mean" in shown and "\n  all " in shown


def test_what_is_missing_or_too_much_is_said(verb: Run, checkpoint: Path, drop_map: Path, gguf: Path) -> None:
    assert "no map to measure" in verb("measure", checkpoint).mistake
    assert "a recipe too" in verb("measure", checkpoint, "--map", drop_map, "--drop", 3).mistake
    assert "before it is built" in verb("measure", gguf, "--map", drop_map).mistake
