"""The verb that searches for recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "held-out.jsonl"
    rows = [
        {"class": klass, "prompt": f"{number} {sign} 2 = ?", "answer": str(number)}
        for klass, sign in (("math", "+"), ("code", "<<"))
        for number in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_search_leaves_recipes_maps_and_a_table_and_goes_on(
    verb: Run, checkpoint: Path, contributions: Path, held_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    asked = ("search", checkpoint, "--contributions", contributions, "--prompts", held_out, "--drop", 3, "--out", out)
    told = verb(*asked, "--budget", 2, "--json").json
    labels = [row["label"] for row in told["table"]]
    assert labels[:6] == ["random", "frequency", "EAN", "REAP", "total", "max over classes"]
    assert told["points"] and all(row["unseen"]["prompts"] == 4 for row in told["table"])
    assert told["points"][0]["measurement"]["prompts"] == 4 and set(told["frontier"]) == {"all", "math", "code"}
    recipe = Recipe.from_json((out / "drop-3.recipe.json").read_bytes())
    best = min(told["points"], key=lambda point: point["kl"])
    assert json.loads(recipe.to_json()) == best["recipe"]
    assert (
        DropMap.from_json((out / "drop-3.map.json").read_bytes(), experts=8).content_hash
        == (best["measurement"]["map_hash"])
    )
    assert json.loads((out / "search.json").read_text())["frontier"] == told["frontier"]
    before = (out / "journal.jsonl").read_bytes()
    shown = verb(*asked, "--budget", 3).out
    assert (out / "journal.jsonl").read_bytes().startswith(before), "it goes on"
    assert "KL divergence on unseen prompts" in shown and "max over classes" in shown
    assert "other seed" in verb(*asked, "--budget", 2, "--seed", 1).mistake


def test_a_search_by_the_prompts_of_the_analysis_is_refused(
    verb: Run, checkpoint: Path, contributions: Path, prompts: Path, held_out: Path
) -> None:
    asked = ("search", checkpoint, "--contributions", contributions, "--out", held_out.parent / "found")
    assert "those of the analysis" in verb(*asked, "--drop", 3, "--prompts", prompts).mistake
    own = ("--prompts", held_out)
    assert "at most 6" in verb(*asked, *own, "--drop", 7).mistake
    assert "to be unseen" in verb(*asked, *own, "--drop", 3, "--unseen", held_out).mistake
    assert not (held_out.parent / "found").exists()
