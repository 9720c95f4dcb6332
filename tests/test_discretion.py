"""Logs tell no secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.discretion import HIDDEN, discreet
from studio.jobs import worker
from studio.jobs.store import JobStore
from studio.jobs.tasks import Similarity
from studio.workspace import Workspace

TOKEN, PASSWORD = "hf_thisOpensNothingAtAll", "correct horse: battery"  # pragma: allowlist secret
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def told_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("ESPALIER_AUTH", f"ann:{PASSWORD}\nbob:abc")


def test_tokens_and_passwords_are_taken_out_and_nothing_else() -> None:
    assert discreet(f"Bearer {TOKEN}, ann, {PASSWORD}, abc") == f"Bearer {HIDDEN}, ann, {HIDDEN}, abc"


def test_an_uncaught_traceback_a_print_and_a_log_line_tell_nothing() -> None:
    script = (
        "import logging, os, sys; from studio.discretion import be_discreet; be_discreet(); logging.basicConfig()\n"
        "token = os.environ['HF_TOKEN']; print(token); logging.warning('with %s', token)\n"
        "raise RuntimeError(f'401 for Bearer {token}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert TOKEN not in done.stdout + done.stderr and done.stderr.count(HIDDEN) == 2 and done.stdout.strip() == HIDDEN


def test_the_record_of_a_job_that_fails_with_a_secret_does_not_have_it(
    own_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError(f"401 for Bearer {TOKEN}")

    monkeypatch.setattr(Similarity, "run", fails)
    store = JobStore(Workspace.open(own_workspace))
    job = store.add("similarity", "Compare", {"reference": "demo"})
    status, outcome = worker.attempt(job, store.workspace, lambda *_: None)  # type: ignore[arg-type]
    assert status == "failed" and TOKEN not in outcome["error"] and HIDDEN in outcome["error"]
