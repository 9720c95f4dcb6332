"""Models side by side: at the same time where they fit, else in turn, and none takes another down."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from studio.errors import (
    Cancelled,
    EspalierError,
    FormatError,
    InputError,
    ProcessError,
    ResourceError,
    UnsupportedError,
)
from studio.locks import process_name
from studio.serve.client import ChatStream, Delta, Sampler
from studio.serve.columns import Columns, Event, Status
from studio.serve.memory import MEMORY_VARIABLE, model_need
from studio.serve.pool import ServerPool
from studio.serve.served import GgufModel, Request
from studio.serve.server import ModelServer
from tests.patience import eventually
from tests.serve.serve_models import ENDLESS, is_model_server

SIDES = ("reference", "candidate")
SHORT = Sampler(max_tokens=30, seed=5)
LONG = Sampler(max_tokens=ENDLESS)


def hello(sampler: Sampler, *columns: str) -> dict[str, Request]:
    """The same question to `columns`, or to both of a pair."""
    return dict.fromkeys(columns or SIDES, Request([{"role": "user", "content": "Hello"}], sampler))


def pair_of(pool: ServerPool, reference: Path, candidate: Path) -> Columns:
    return Columns(pool, {"reference": GgufModel(reference), "candidate": GgufModel(candidate)})


def alone(pool: ServerPool, reference: Path) -> Columns:
    return Columns(pool, {"reference": GgufModel(reference)})


@pytest.fixture
def pair(pool: ServerPool, tiny_gguf: Path, other_gguf: Path) -> Columns:
    return pair_of(pool, tiny_gguf, other_gguf)


def texts(events: list[tuple[str, Event]]) -> dict[str, str]:
    return {side: "".join(e.text for s, e in events if s == side and isinstance(e, Delta)) for side in SIDES}


def children() -> list[psutil.Process]:
    """The model servers of this process."""
    return [child for child in psutil.Process().children() if is_model_server(child)]


def room_for_one(monkeypatch: pytest.MonkeyPatch, model: Path, pool: ServerPool, times: float = 1.5) -> None:
    need = model_need(model, pool.loading.context, pool.slots).memory
    monkeypatch.setenv(MEMORY_VARIABLE, str(int(need * times)))


def test_both_sides_stream_at_the_same_time(pair: Columns) -> None:
    assert pair.fit().together and "at the same time" in pair.fit().reason
    list(pair.stream(hello(SHORT)))  # load both
    sides = [side for side, event in pair.stream(hello(Sampler(max_tokens=800))) if isinstance(event, Delta)]
    first = {side: sides.index(side) for side in SIDES}
    last = {side: len(sides) - 1 - sides[::-1].index(side) for side in SIDES}
    assert first["reference"] < last["candidate"] and first["candidate"] < last["reference"]
    assert sum(before != after for before, after in pairwise(sides)) > 2


def test_the_same_weights_sampler_and_seed_say_the_same_on_both_sides(pair: Columns) -> None:
    said = texts(list(pair.stream(hello(SHORT))))
    assert said["reference"] == said["candidate"] != ""


def test_each_side_ends_with_its_timing(pair: Columns) -> None:
    last = {side: event for side, event in pair.stream(hello(SHORT)) if isinstance(event, Delta) and event.done}
    assert set(last) == set(SIDES)
    assert all(delta.timing is not None and delta.timing.tokens == 30 for delta in last.values())


def test_one_side_alone_works(pool: ServerPool, tiny_gguf: Path) -> None:
    one = alone(pool, tiny_gguf)
    assert one.fit().together
    assert {side for side, _ in one.stream(hello(SHORT))} == {"reference"}


def test_where_memory_is_short_they_answer_in_turn_and_this_is_known_before(
    pair: Columns, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for_one(monkeypatch, tiny_gguf, pair.pool)
    fit = pair.fit()
    assert not fit.together and "in turn" in fit.reason and not children()
    order = []
    for side, event in pair.stream(hello(SHORT)):
        if isinstance(event, Delta):
            order.append(side)
            assert len(children()) <= 1  # none where this loop lags behind the change of turns
    assert order == sorted(order, reverse=True) and set(order) == set(SIDES)
    stream = pair.stream(hello(SHORT))
    events = list(stream)
    waiting, first = events[0], next(side for side, event in events if isinstance(event, Delta))
    assert waiting == ("reference", Status("Waiting for another column …"))
    assert not stream.together and first == "candidate", "the model that is there already goes first"


def test_a_model_that_fits_nowhere_is_refused_before_anything_starts(
    pair: Columns, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for_one(monkeypatch, tiny_gguf, pair.pool, times=0.5)
    errors = [event for _, event in pair.stream(hello(SHORT)) if isinstance(event, EspalierError)]
    assert [type(error) for error in errors] == [ResourceError] * 2 and "tiny.gguf needs" in str(errors[0])
    assert not children()


def test_stop_ends_both_sides(pair: Columns) -> None:
    stream = pair.stream(hello(LONG))
    assert isinstance(next(stream)[1], Status)
    while not all(pair.pool.loaded(model) for model in pair.models.values()):
        stream.collect(0.05)
    threading.Timer(0.3, stream.stop).start()
    last = {side: event for side, event in stream if isinstance(event, Delta) and event.done}
    assert {side: delta.finish for side, delta in last.items()} == dict.fromkeys(SIDES, "stopped")
    assert texts(list(pair.stream(hello(SHORT))))["candidate"]  # and both can be asked again


def test_one_column_is_stopped_and_the_others_go_on(pair: Columns) -> None:
    stream = pair.stream(hello(Sampler(max_tokens=600), "reference") | hello(LONG, "candidate"))
    events = []
    while not all(pair.pool.loaded(model) for model in pair.models.values()):
        events += stream.collect(0.02)
    stream.stop("candidate")
    events += [*stream]
    last = {side: event for side, event in events if isinstance(event, Delta) and event.done}
    assert {side: delta.finish for side, delta in last.items()} == {"reference": "length", "candidate": "stopped"}


def test_four_columns_of_two_files_share_two_servers(pool: ServerPool, tiny_gguf: Path, other_gguf: Path) -> None:
    files = {"A": tiny_gguf, "B": other_gguf, "C": tiny_gguf, "D": other_gguf}
    columns = Columns(pool, {column: GgufModel(path) for column, path in files.items()})
    events = list(columns.stream(hello(SHORT, *files)))
    answers = {column: "".join(e.text for c, e in events if c == column and isinstance(e, Delta)) for column in files}
    assert len(set(answers.values())) == 1 and answers["A"]
    assert len(children()) == 2 and columns.fit().together


def test_another_kind_of_model_is_served_like_a_file(pool: ServerPool, tiny_gguf: Path) -> None:
    class Shouting(GgufModel):
        """A model with something of its own in each question."""

        def ask(self, server: ModelServer, request: Request) -> ChatStream:
            assert request.probabilities
            return server.stream([{"role": "user", "content": "AAAA"}], request.sampler)

    request = Request([{"role": "user", "content": "Hello"}], SHORT, probabilities=True)
    said = list(Columns(pool, {"A": Shouting(tiny_gguf)}).stream({"A": request}))
    plain = list(Columns(pool, {"A": GgufModel(tiny_gguf)}).stream({"A": request}))
    texts_of = [[event.text for _, event in events if isinstance(event, Delta)] for events in (said, plain)]
    assert texts_of[0] != texts_of[1] and all(texts_of) and len(children()) == 1


def test_stop_does_not_wait_for_a_model_that_is_loading(pool: ServerPool, tmp_path: Path, tiny_gguf: Path) -> None:
    stream = alone(pool, tiny_gguf).stream(hello(LONG))
    started = time.monotonic()
    stream.stop()
    assert [event.finish for _, event in stream if isinstance(event, Delta)] == ["stopped"]
    assert time.monotonic() - started < 1


def test_a_side_that_dies_is_reported_and_the_other_goes_on_and_it_can_be_restarted(
    pair: Columns, other_gguf: Path
) -> None:
    list(pair.stream(hello(SHORT)))
    with pair.pool.lease(other_gguf, 1) as server:
        doomed = server.pid
    os.kill(doomed, signal.SIGSTOP)  # or it might be through before it dies
    stream = pair.stream(hello(Sampler(max_tokens=600)))
    next(stream)
    os.kill(doomed, signal.SIGKILL)
    events = list(stream)
    (error,) = [event for side, event in events if isinstance(event, ProcessError)]
    assert "other.gguf failed" in error.what and error.log_tail
    assert [e.finish for s, e in events if s == "reference" and isinstance(e, Delta) and e.done] == ["length"]
    pair.restart("candidate")
    assert texts(list(pair.stream(hello(SHORT, "candidate"))))["candidate"]


def test_a_damaged_file_silences_its_own_side_alone(pool: ServerPool, tiny_gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny_gguf.read_bytes()[:3_000_000])
    events = list(pair_of(pool, tiny_gguf, damaged).stream(hello(SHORT)))
    assert [type(event) for side, event in events if side == "candidate"][-1] is FormatError
    assert texts(events)["reference"]


def test_a_file_without_a_language_model_is_refused_by_name(pool: ServerPool, tmp_path: Path) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "imatrix.gguf", "imatrix")
    writer.add_tensor("blk.0.ffn_up.weight.in_sum2", np.ones((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with (
        pytest.raises(UnsupportedError, match=r"imatrix\.gguf holds no language model"),
        pool.lease(tmp_path / "imatrix.gguf", 1),
    ):
        pass
    with pytest.raises(InputError, match=r"nothing\.gguf cannot be read"), pool.lease(tmp_path / "nothing.gguf", 1):
        pass


def test_sessions_share_one_server_and_more_questions_than_slots_queue(pool: ServerPool, tiny_gguf: Path) -> None:
    answers: list[str] = []

    def ask(seed: int) -> None:
        stream = alone(pool, tiny_gguf).stream(hello(Sampler(max_tokens=40, seed=seed)))
        answers.append(texts(list(stream))["reference"])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 5 and all(answers) and len(children()) == 1


def test_the_server_that_nobody_asked_for_longest_makes_room(tiny_gguf: Path, tmp_path: Path) -> None:
    pool = ServerPool(tmp_path / "logs", keep=2)
    files = [Path(shutil.copy(tiny_gguf, tmp_path / f"model-{number}.gguf")) for number in range(3)]
    try:
        for path in [files[0], files[1], files[0], files[2]]:
            with pool.lease(path, 1) as server:
                assert server.alive
        assert [pool.loaded(path) for path in files] == [True, False, True]
    finally:
        pool.close()
    assert not children()


def test_closing_while_a_model_loads_leaves_no_child(pool: ServerPool, tiny_gguf: Path) -> None:
    refused: list[Exception] = []

    def ask() -> None:
        try:
            with pool.lease(tiny_gguf, 1):
                pass
        except Cancelled as error:
            refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not children():
        time.sleep(0.005)
    pool.close()
    thread.join()
    assert refused and not children()


def test_a_file_that_was_built_again_is_another_model(pool: ServerPool, tiny_gguf: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_gguf, tmp_path / "model.gguf"))
    with pool.lease(path, 1) as server:
        first = server.pid
    with pool.lease(path, 1) as server:
        assert server.pid == first
    os.utime(path, ns=(1, 1))
    with pool.lease(path, 1) as server:
        assert server.pid != first
    assert len(children()) == 1


def test_a_server_that_nobody_asks_gives_its_memory_back(tiny_gguf: Path, tmp_path: Path) -> None:
    pool = ServerPool(tmp_path / "logs", idle_s=0.5)
    try:
        with pool.lease(tiny_gguf, 1):
            time.sleep(1)  # idle is who has no user, however long it takes
            assert pool.loaded(tiny_gguf)
        assert eventually(lambda: not pool.loaded(tiny_gguf) and not children())
    finally:
        pool.close()


def test_another_number_of_threads_restarts_only_a_server_that_nobody_uses(pool: ServerPool, tiny_gguf: Path) -> None:
    with pool.lease(tiny_gguf, 1) as alone, pool.lease(tiny_gguf, 2) as shared:
        assert alone is shared
    with pool.lease(tiny_gguf, 2) as restarted:
        assert restarted.pid != alone.pid


def test_logs_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    numbers = (process_name(4194301), process_name(), "0123abcd.4194301", "0123abcd.4194302")
    gone, mine, theirs, old = (tmp_path / f"model-{number}.log" for number in numbers)
    for log in (gone, mine, theirs, old):
        log.touch()
    os.utime(old, (0, 0))
    ServerPool(tmp_path)
    assert not gone.exists() and not old.exists()
    assert mine.exists() and theirs.exists(), "the process of another container has no number here"
