"""The job that asks a model: refused before the work where it can be, and told by its result."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.errors import InputError
from studio.evaluate.results import Result
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.jobs.tasks import check
from studio.workspace import Workspace
from tests.patience import eventually
from tests.serve.serve_models import is_model_server, limit_context, tiny_gguf_once


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


@pytest.fixture
def long_work(store: JobStore) -> dict[str, Any]:
    """Parameters of a job of some seconds: the questions fill the context but for some two hundred tokens."""
    limit_context(Path(shutil.copy(tiny_gguf_once(), store.workspace.references / "tiny.gguf")), 2048)
    rows = [{"id": str(n), "question": f"{n} {'word ' * 350}", "answer": "x"} for n in range(7)]
    task = store.workspace.prompts / "long.jsonl"
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parameters = {"model": "tiny.gguf", "task": "prompts/long.jsonl", "per_category": None, "slots": 2}
    return {**parameters, "configuration": "greedy"}


def test_a_cancelled_job_leaves_no_server_and_no_answers(
    store: JobStore, long_work: dict[str, Any], until: Callable[..., Job], partials: Callable[[], list[Path]]
) -> None:
    started = runner.start(store, "evaluate", long_work)
    job = until(store, started.id, lambda one: one.unit == "questions" and one.done >= 1)
    assert job.pid is not None and job.total == 7
    servers = [child for child in psutil.Process(job.pid).children() if is_model_server(child)]
    assert len(servers) == 1
    assert runner.cancel(store, started.id).status == "cancelled"
    assert eventually(lambda: not any(is_model_server(server) for server in servers), 5)
    assert not partials() and not list(store.workspace.measures.iterdir())


def test_a_job_that_was_killed_goes_on_with_the_next_question(
    store: JobStore, long_work: dict[str, Any], until: Callable[..., Job], partials: Callable[[], list[Path]]
) -> None:
    started = runner.start(store, "evaluate", long_work)
    job = until(store, started.id, lambda one: one.unit == "questions" and one.done >= 2)
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    assert until(store, started.id, lambda one: one.is_finished).status == "failed"
    kept = next(store.workspace.measures.glob(".*/answers.jsonl")).read_text().splitlines()
    assert len(kept) >= 2
    again = runner.retry(store, started.id)
    done = until(store, again.id, lambda one: one.is_finished)
    assert done.status == "done" and done.result is not None, done.error
    (told,) = done.result["results"]  # type: ignore[misc]
    result = Result.read(store.workspace.root / told["path"])  # type: ignore[call-overload,index,operator]
    assert len(result.answers) == 7 and json.loads(kept[0]) in [one.model_dump() for one in result.answers]
    assert not partials()
