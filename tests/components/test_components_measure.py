"""What the page asks of a measurement, and what it shows of prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.measure import Asked, parameters, seen_html
from studio.contributions.prompt_preview import Lengths, PromptPreview, SeenPrompt
from studio.errors import InputError
from studio.jobs.analyze import Analyze
from studio.workspace import Workspace

PLAIN = Asked(("math", "code"), 3, None, "", "", "", "given", False, False, "auto", "auto", " mine ")


def test_ticked_classes_files_and_data_sets_become_one_job(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    file = tmp_path / "own.jsonl"
    file.write_text('{"class": "math", "prompt": "2 + 2?", "answer": "4"}\n')
    asked = replace(PLAIN, files=[str(file)], dataset="hf:someone/set", columns="prompt=question class=subject")
    told = parameters(workspace, "demo", asked)
    assert told["prompts"] == ["builtin:math,code", "prompts/own.jsonl", "hf:someone/set"]
    assert told["columns"] == {"prompt": "question", "class": "subject"}
    assert told["name"] == "mine"
    assert (workspace.prompts / "own.jsonl").read_bytes() == file.read_bytes()
    task = Analyze(**{**told, "prompts": told["prompts"][:2], "columns": {}})
    assert dict(task.calibration(workspace).classes) == {"math": 3, "code": 3}


def test_another_file_of_the_same_name_replaces_none_that_a_job_may_read(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    files = []
    for number in (1, 2):
        file = tmp_path / str(number) / "own.jsonl"
        file.parent.mkdir()
        file.write_text(f'{{"class": "math", "prompt": "{number}?"}}\n')
        files.append(file)
    both = parameters(workspace, "demo", replace(PLAIN, files=[str(file) for file in files]))["prompts"][1:]
    assert both[0] == "prompts/own.jsonl" and both[1] != both[0]
    assert [(workspace.root / name).read_bytes() for name in both] == [file.read_bytes() for file in files]
    assert parameters(workspace, "demo", replace(PLAIN, files=[str(files[1])]))["prompts"][1:] == both[1:]
    assert len(list(workspace.prompts.iterdir())) == 2


def test_nothing_to_measure_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prompts to measure on"):
        parameters(Workspace.open(tmp_path), "demo", replace(PLAIN, classes=()))
    with pytest.raises(InputError, match="no model to measure"):
        parameters(Workspace.open(tmp_path), "", PLAIN)
    with pytest.raises(InputError, match="is not KEY=COLUMN"):
        parameters(Workspace.open(tmp_path), "demo", replace(PLAIN, columns="question"))


def test_a_job_reads_no_prompts_outside_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    workspace = Workspace.open(tmp_path / "workspace")
    task = Analyze(reference="demo", name="n", prompts=(str(tmp_path / "secret.jsonl"),))
    with pytest.raises(InputError, match="outside the workspace"):
        task.calibration(workspace)


def test_prompts_are_shown_as_text_and_empty_columns_are_left_out() -> None:
    prompt = SeenPrompt("<id>", "math", "<bos><b>2 + 2</b>", "4", "", 7, 1, 0, 0)
    lengths = Lengths(prompts=1, shortest=8, median=8, longest=8, total=8, cut=0, open=0)
    html = seen_html(PromptPreview((prompt,), {"math": lengths}))
    assert "&lt;bos&gt;&lt;b&gt;2 + 2" in html and "<mark>4</mark>" in html and "<b>" not in html
    assert "Cut" not in html and "Answered by" not in html
    assert "Answered by" in seen_html(PromptPreview((prompt,), {"math": replace(lengths, open=1)}))
