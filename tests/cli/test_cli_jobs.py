"""The verbs for jobs, on jobs that the engine started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.workspace import Workspace
from tests.cli.tiny_gemma import LAYERS

Run = Callable[..., Any]
MAP = json.dumps({str(layer): [0] for layer in range(LAYERS)})


@pytest.fixture
def store(own_workspace: Path, checkpoint: Path) -> JobStore:
    workspace = Workspace.open(own_workspace)
    (workspace.references / "tiny").symlink_to(checkpoint)
    return JobStore(workspace)


def wait(verb: Run, job_id: str) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = verb("jobs", "show", job_id, "--json").json
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def test_no_jobs_are_no_error(verb: Run) -> None:
    assert verb("jobs", "list").out == "There are no jobs.\n"
    assert verb("jobs", "list", "--json").json == {"jobs": []}


def test_a_finished_build_is_shown_with_its_files_and_hashes(verb: Run, store: JobStore) -> None:
    parameters = {"reference": "tiny", "map": MAP, "name": "mine", "outputs": ["safetensors"]}
    job = wait(verb, runner.start(store, "build", parameters).id)
    assert job["status"] == "done", job
    text = verb("jobs", "show", job["id"]).out
    for file in job["result"]["files"]:
        assert str(store.workspace.root / file["path"]) in text and file["sha256"] in text
    listed = verb("jobs", "list")
    assert "done" in listed.out and "Build mine: safetensors" in listed.out
    assert "is done" in verb("jobs", "resume", job["id"]).mistake


def test_a_queued_job_is_cancelled_and_resumed_as_a_job_of_its_own(command: Run, verb: Run, store: JobStore) -> None:
    job = store.add("prune", "Prune tiny", {"reference": "tiny", "map": MAP, "name": "slim"})
    assert verb("jobs", "cancel", job.id, "--json").json["status"] == "cancelled"
    again = command("jobs", "resume", job.id, "--json").json
    assert again["retry_of"] == job.id and again["id"] != job.id
    assert wait(verb, again["id"])["status"] == "done", "it goes on after the command has ended"
    assert (store.workspace.artifacts / "slim/safetensors/model.safetensors").is_file()


def test_a_failed_job_shows_its_reason_and_the_end_of_its_log(verb: Run, store: JobStore) -> None:
    job = store.add("build", "Build x", {})
    store.log_path(job.id).write_text("first line\nlast line\n")
    store.finish(job.id, "failed", when=("queued",), error="The expert 7 is missing.")
    text = verb("jobs", "show", job.id).out
    assert "The expert 7 is missing." in text and "last line" in text
