"""The job that asks a model: refused before the work where it can be, and told by its result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from studio.errors import InputError
from studio.evaluate.results import Result
from studio.jobs.tasks import check
from studio.workspace import Workspace
from tests.serve.serve_models import tiny_gguf_once


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Workspace, dict[str, Any]]:
    """A workspace with an artifact, a reference and a task; and the parameters that bring them together."""
    workspace = Workspace.open(tmp_path / "home")
    folder = workspace.artifacts / "tiny-8e" / "gguf"
    folder.mkdir(parents=True)
    shutil.copy(tiny_gguf_once(), folder / "tiny-8e.gguf")
    shutil.copy(tiny_gguf_once(), workspace.references / "tiny.gguf")
    (workspace.prompts / "task.jsonl").write_text('{"question": "Who?", "options": ["I", "you"], "answer": "A"}\n')
    parameters = {
        "model": "artifacts/tiny-8e/gguf/tiny-8e.gguf",
        "task": "prompts/task.jsonl",
        "against": "tiny.gguf",
        "configuration": "greedy",
    }
    return workspace, parameters


def test_it_measures_both_and_says_what_that_means(asked: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, parameters = asked
    seen: list[tuple[int, int, str]] = []
    task = check("evaluate", parameters, workspace)
    assert task.title() == "Ask tiny-8e.gguf the questions of task"
    told: Any = task.run(workspace, lambda done, total, unit="", message="": seen.append((done, total, unit)))
    assert seen[-1] == (2, 2, "questions")
    assert told["says"].endswith("None of 1 answers differs in being right: no evidence of a loss.")
    reference, candidate = (Result.read(workspace.root / one["path"]) for one in told["results"])
    assert (reference.model.name, candidate.model.name) == ("tiny.gguf", "tiny-8e.gguf")
    assert told["results"][1]["path"].startswith("artifacts/tiny-8e/measures/task-task-")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "artifacts/none.gguf"}, "There is no model"),
        ({"model": "prompts/task.jsonl"}, "task.jsonl"),
        ({"task": "prompts/none.jsonl"}, "There is no file"),
        ({"task": "/etc/passwd"}, "outside the workspace"),
        ({"configuration": "hot"}, "There is no configuration 'hot'"),
        ({"per_category": 0}, "per_category"),
        ({"against": "../x.gguf"}, "outside the workspace"),
    ],
)
def test_what_can_be_known_is_refused_before_the_work(
    change: dict[str, Any], words: str, asked: tuple[Workspace, dict[str, Any]]
) -> None:
    workspace, parameters = asked
    with pytest.raises(InputError, match=words):
        check("evaluate", {**parameters, **change}, workspace)


def test_without_a_task_it_is_the_demos(asked: tuple[Workspace, dict[str, Any]]) -> None:
    workspace, _ = asked
    task: Any = check("evaluate", {"model": "demo"}, workspace)
    assert len(task.questions(workspace).questions) == 100
