"""What a visitor's jobs may take: each bound is really reached."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from studio.access import VISITOR, Access
from studio.errors import RefusedError
from studio.jobs import runner
from studio.jobs.store import Job, JobStore
from studio.jobs.tasks import TASKS
from studio.workspace import Workspace
from tests.patience import eventually

Until = Callable[..., Job]
PRETENDING = replace(VISITOR, kinds=cast("frozenset[str]", VISITOR.kinds) | {"pretend"})
"""A visitor whose jobs may be the ones that tests pretend."""


@pytest.fixture
def visits(store: JobStore) -> Iterator[Callable[[Access], JobStore]]:
    """The jobs of a visitor who may do so much, in a part of the workspace of `store`."""
    opened: list[JobStore] = []

    def visit(access: Access) -> JobStore:
        opened.append(JobStore(Workspace.open(store.workspace.root).of("visitor 0123", access)))
        return opened[-1]

    yield visit
    for theirs in opened:
        for job in theirs.list():
            runner.cancel(theirs, job.id)
        theirs.close()


@pytest.mark.parametrize("mood", ["good", "stubborn", "children"])
def test_a_job_ends_when_it_has_run_as_long_as_it_may(
    mood: str,
    visits: Callable[[Access], JobStore],
    until: Until,
    partials: Callable[[], list[Path]],
    gone: Callable[[int], bool],
) -> None:
    theirs = visits(replace(PRETENDING, job_s=1.0))
    begin = time.monotonic()
    asked = {"name": "endless", "seconds": 300.0, "steps": 300, "mood": mood}
    job = until(theirs, runner.start(theirs, "pretend", asked).id, lambda job: job.status == "running")
    ended = until(theirs, job.id, lambda job: job.is_finished, 30.0)
    assert (ended.status, ended.error) == ("failed", "It took longer than the 1 s that a job may take here.")
    assert time.monotonic() - begin < 20.0
    assert eventually(lambda: gone(job.pid or 0), 30)
    assert not partials()
    if mood == "children":
        child, loner = map(int, (theirs.workspace.artifacts / "children.txt").read_text().split())
        assert eventually(lambda: gone(child) and gone(loner), 30)


def test_a_job_that_keeps_to_its_time_is_left_alone(visits: Callable[[Access], JobStore], until: Until) -> None:
    theirs = visits(replace(PRETENDING, job_s=20.0))
    job = until(theirs, runner.start(theirs, "pretend", {"name": "quick"}).id, lambda job: job.is_finished)
    assert job.status == "done" and job.limit_s == 20.0


def test_the_time_of_a_visitor_is_in_every_record(visits: Callable[[Access], JobStore]) -> None:
    theirs = visits(VISITOR)
    theirs.closing = True
    job = runner.start(theirs, "similarity", {"reference": "demo"})
    assert job.limit_s == VISITOR.job_s == 180.0


def test_a_visitor_waits_for_so_many_jobs_and_somebody_else_is_not_in_their_way(
    visits: Callable[[Access], JobStore], store: JobStore
) -> None:
    theirs, hers = visits(VISITOR), JobStore(store.workspace.of("visitor 4567", VISITOR))
    theirs.closing = hers.closing = True
    asked = {"reference": "demo"}
    for _ in range(VISITOR.waiting or 0):
        runner.start(theirs, "similarity", asked)
    with pytest.raises(RefusedError, match="2 unfinished jobs at most"):
        runner.start(theirs, "similarity", asked)
    failed = theirs.update(theirs.list()[0].id, status="failed")
    runner.start(theirs, "similarity", asked)
    with pytest.raises(RefusedError, match="2 unfinished jobs at most"):
        runner.retry(theirs, failed.id)
    assert runner.start(hers, "similarity", asked).status == "queued"
    hers.close()


def test_a_visitor_whose_files_take_all_they_may_starts_no_job(visits: Callable[[Access], JobStore]) -> None:
    theirs = visits(VISITOR)
    theirs.closing = True
    most = VISITOR.disk_bytes or 0
    file = theirs.workspace.artifacts / "large.bin"
    with file.open("wb") as taken:
        os.posix_fallocate(taken.fileno(), 0, most - (8 << 20))
    runner.start(theirs, "similarity", {"reference": "demo"})
    with file.open("r+b") as taken:
        os.posix_fallocate(taken.fileno(), 0, most + (1 << 20))
    with pytest.raises(RefusedError, match=r"take 256 MiB at most, and these take 25[67]"):
        runner.start(theirs, "similarity", {"reference": "demo"})


@pytest.mark.parametrize("kind", sorted(TASKS.keys() - (VISITOR.kinds or set())))
def test_no_other_kind_of_job_starts(kind: str, visits: Callable[[Access], JobStore]) -> None:
    theirs = visits(VISITOR)
    with pytest.raises(RefusedError, match="no job of the kind"):
        runner.start(theirs, kind, {})
    assert theirs.list() == []
