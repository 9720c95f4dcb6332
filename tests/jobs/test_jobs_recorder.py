"""Progress on its way into the store, with a clock that the test turns."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import Cancelled
from studio.jobs.interrupt import Interrupt
from studio.jobs.recorder import Estimate, Recorder
from studio.jobs.store import Job, JobStore
from tests.patience import eventually


class CountingStore(JobStore):
    writes = 0

    def update(self, job_id: str, **changes: object) -> Job:  # type: ignore[override]
        self.writes += 1
        return super().update(job_id, **changes)  # type: ignore[arg-type]


@pytest.fixture
def running(store: JobStore) -> Job:
    return store.update(store.add("pretend", "A thing", {}).id, status="running")


def test_at_most_five_writes_a_second_reach_the_store(store: JobStore, running: Job) -> None:
    counting = CountingStore(store.workspace)
    begin = time.monotonic()
    with Recorder(counting, running.id, Interrupt()) as recorder:
        step = 0
        while time.monotonic() - begin < 1.5:
            recorder(step, 10**9, "steps")
            step += 1
    assert step > 1000 and 1 <= counting.writes <= 8
    assert recorder.latest["done"] == step - 1, "what was not written is not lost"


def test_the_last_word_before_a_long_silence_is_seen(store: JobStore, running: Job) -> None:
    with Recorder(store, running.id, Interrupt()) as recorder:
        recorder(1, 10, "steps", "first")
        recorder(2, 10, "steps", "now something long")
        assert eventually(lambda: store.get(running.id).message == "now something long"), store.get(running.id)
    assert store.get(running.id).done == 2


def test_progress_never_falls_within_one_total(store: JobStore, running: Job) -> None:
    recorder = Recorder(store, running.id, Interrupt())
    for done, shown in [(10, 10), (7, 10), (250, 100)]:
        recorder(done, 100, "bytes")
        recorder.write()
        assert store.get(running.id).done == shown


def test_progress_of_a_finished_job_is_ignored(store: JobStore, running: Job) -> None:
    store.finish(running.id, "cancelled")
    recorder = Recorder(store, running.id, Interrupt())
    recorder(5, 10, "steps")
    recorder.write()
    assert store.get(running.id).done == 0


def test_work_goes_on_when_progress_cannot_be_written(store: JobStore) -> None:
    with Recorder(store, "no-such-job", Interrupt()) as recorder:
        recorder(1, 10, "steps")
        time.sleep(0.5)
        recorder(2, 10, "steps")


@given(speed=st.floats(1e-4, 1.0), tick=st.floats(0.05, 3.0))
def test_steady_work_is_estimated_exactly(speed: float, tick: float) -> None:
    estimate, now, fraction = Estimate(0.0), 0.0, 0.0
    while fraction < 1.0 and now < 60:
        left = estimate.seconds_left(now, fraction)
        if left is not None:
            assert left == pytest.approx((1.0 - fraction) / speed, rel=1e-6, abs=1e-6)
        now, fraction = now + tick, fraction + speed * tick


def test_the_estimate_follows_a_change_of_speed() -> None:
    estimate = Estimate(0.0)
    for second in range(100):
        estimate.seconds_left(second, second * 0.005)  # half in 100 s
    for second in range(25):
        left = estimate.seconds_left(100 + second, 0.5 + second * 0.01)  # the rest in 50 s
    assert left == pytest.approx(26, abs=2)


def test_loading_before_the_work_does_not_count_as_slowness() -> None:
    estimate = Estimate(0.0)
    assert estimate.seconds_left(1000.0, 0.0) is None
    assert estimate.seconds_left(1010.0, 0.5) == pytest.approx(10.0)


def test_nothing_is_promised_while_nothing_moves() -> None:
    estimate = Estimate(0.0)
    estimate.seconds_left(1.0, 0.25)
    assert [estimate.seconds_left(1.0 + second, 0.25) for second in (30, 60)] == [None, None]


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    before = signal.getsignal(signal.SIGTERM)
    interrupt = Interrupt()
    interrupt.install()
    yield interrupt
    signal.signal(signal.SIGTERM, before)


def test_a_signal_is_raised_once_and_then_told_again_when_asked(interrupt: Interrupt) -> None:
    with pytest.raises(Cancelled):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # clearing up is left in peace
    with pytest.raises(Cancelled):
        interrupt.check()


def test_a_signal_after_the_work_changes_nothing(interrupt: Interrupt) -> None:
    interrupt.close()
    os.kill(os.getpid(), signal.SIGTERM)
    interrupt.check()
