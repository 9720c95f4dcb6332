"""Measuring from the command line: a task made, a model asked, the table exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def mmlu_rows(path: Path) -> Path:
    rows = [
        {"question": f"{n}?", "options": ["one", "two", "N/A"], "answer": "B", "answer_index": 1, "category": klass}
        for klass in ("law", "math")
        for n in range(3)
    ]
    path.write_text("".join(json.dumps({**row, "question_id": n}) + "\n" for n, row in enumerate(rows)))
    return path


def test_from_a_benchmarks_file_to_a_table(verb: Run, gguf: Path, drop_map: Path, tmp_path: Path) -> None:
    task = tmp_path / "mmlu-pro.jsonl"
    made = verb("tasks", "convert", "mmlu-pro", mmlu_rows(tmp_path / "test.jsonl"), "--out", task, "--json").json
    assert made["questions"] == 6
    assert verb("tasks", "show", task, "--per-category", 2, "--json").json["categories"] == {"law": 2, "math": 2}

    other = tmp_path / "other.gguf"
    verb("prune", gguf, "--map", drop_map, "--out", other)
    asked = ("evaluate", other, "--task", task, "--against", gguf, "--per-category", 1, "--configuration", "greedy")
    outcome = verb(*asked, "--json").json
    assert outcome["comparison"]["questions"] == 2 and outcome["comparison"]["p"] == 1.0
    assert "no evidence of a loss" in outcome["says"]
    assert outcome["model"]["values"]["accuracy"]["unit"] == "share"
    assert "no evidence of a loss" in verb(*asked).out  # read, and not measured again

    assert len(verb("results", "--sort", "bytes", "--json").json["rows"]) == 2
    exported = tmp_path / "results.csv"
    verb("results", "--against", "tiny.gguf", "--sort", "model", "--export", exported)
    rows = list(csv.DictReader(exported.open()))
    assert [row["model"] for row in rows] == ["other.gguf", "tiny.gguf"]
    assert rows[0]["mmlu-pro accuracy against tiny.gguf p"] == "1.0"
    assert "results.csv exists already" in verb("results", "--export", exported).mistake


def test_mistakes_are_sentences(verb: Run, gguf: Path, checkpoint: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"question": "?", "answer": "x", "optons": []}\n')
    assert '"optons" is no field of a question' in verb("evaluate", gguf, "--task", wrong).mistake
    assert "There is no task file" in verb("evaluate", gguf, "--task", tmp_path / "no.jsonl").mistake
    right = tmp_path / "right.jsonl"
    right.write_text('{"question": "?", "answer": "x"}\n')
    assert (
        "There is no configuration 'hot'" in verb("evaluate", gguf, "--task", right, "--configuration", "hot").mistake
    )
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    assert "text.gguf" in verb("evaluate", text, "--task", right).mistake
    assert "cannot be sorted" in verb("results", "--sort", "colour").mistake
    assert verb("results").out == "Nothing has been measured yet.\n"
    assert "tasks" in verb("tasks", "convert", "gsm8k", wrong, "--out", right).mistake
