"""The verbs that look at what is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.tiny_gemma import EXPERTS, LAYERS

Run = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def test_insights_are_sentences_and_tables(verb: Run) -> None:
    demo = ROOT / "assets/demo-contributions.safetensors"
    told = verb("insights", demo, "--against", demo, "--json").json
    assert [one["layer"] for one in told["layers"]] == list(range(6))
    assert told["overlap"]["math"]["math"] == told["top"] == 8 and len(told["specialists"]) == 10
    assert told["rank_correlation"] == {str(layer): 1.0 for layer in range(6)}
    text = verb("insights", demo).out
    for one in told["findings"].values():
        assert f"{one['title']}.\n{one['text']}\n" in text
    assert "Of the 8 strongest  math  logic  code  science  creative\n" in text


def test_insights_of_an_import_say_what_is_not_known(verb: Run, contributions: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"0": {"tokens": [1, 2, 0]}}))
    told = verb("insights", tmp_path / "a.json", "--json").json
    assert told["overlap"] is None and told["enough_questions"] is None and told["unused"] == [[0, 2]]
    assert "another grid" in verb("insights", tmp_path / "a.json", "--against", contributions).mistake


def test_similarity_of_a_model(verb: Run, checkpoint: Path) -> None:
    told = verb("similarity", checkpoint, "--layers", 2, "--pairs", 5, "--json").json
    assert len(told["layers"]) == 2 and all(one["pairs"] == 5 for one in told["layers"])
    text = verb("similarity", checkpoint, "--layers", LAYERS, "--pairs", 99).out
    assert f"Among {LAYERS * EXPERTS * (EXPERTS - 1) // 2} pairs in {LAYERS} layers" in text
    assert text.count(" and ") > LAYERS
