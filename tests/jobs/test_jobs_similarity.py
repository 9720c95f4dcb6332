"""Comparing experts as a job: a process of its own, with the result in its record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import EspalierError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from tests.quantize.quantize_experts import weights, write_checkpoint


def test_the_result_is_in_the_record_of_the_job(store: JobStore, until: Callable[..., Job]) -> None:
    write_checkpoint(store.workspace.references / "pear", weights())
    started = runner.start(store, "similarity", {"reference": "pear", "layers": 1, "pairs": 3})
    job = until(store, started.id, lambda one: one.is_finished)
    assert job.status == "done" and job.unit == "pairs" and job.title == "Compare experts of pear"
    assert job.result is not None and "Among 3 pairs in 1 layers" in str(job.result["says"])
    (layer,) = job.result["layers"]  # type: ignore[misc]
    assert layer["pairs"] == 3 and len(layer["experts"]) == 2  # type: ignore[call-overload,index]


@pytest.mark.parametrize("parameters", [{"reference": "plum"}, {"reference": "pear", "pairs": 0}, {}])
def test_what_cannot_work_is_said_before_it_starts(store: JobStore, parameters: dict, tmp_path: Path) -> None:
    write_checkpoint(store.workspace.references / "pear", weights())
    with pytest.raises(EspalierError):
        runner.start(store, "similarity", parameters)
    assert store.list() == []
