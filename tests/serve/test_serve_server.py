"""One server in its own process: what it says, who may ask it, and that it never stays behind."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from studio.errors import InputError, ProcessError
from studio.serve.client import TOP, ChatStream, Delta, Sampler, request_body, sampler_of
from studio.serve.server import ModelServer
from tests.patience import PATIENCE_S, eventually, is_gone
from tests.serve.serve_models import ENDLESS, is_model_server

ROOT = Path(__file__).parents[2]
HELLO = [{"role": "user", "content": "Hello"}]
LONG = Sampler(max_tokens=ENDLESS)


def collected(stream: ChatStream) -> tuple[str, str, Delta]:
    """(text, reasoning, last delta)."""
    deltas = list(stream)
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), deltas[-1]


def get(server: ModelServer, path: str, key: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    return response.status, response.read()


def busy(server: ModelServer) -> bool:
    status, body = get(server, "/slots", server._api_key)
    assert status == 200
    return any(slot["is_processing"] for slot in json.loads(body))


def test_an_answer_streams_piece_by_piece_with_its_timing(server: ModelServer) -> None:
    deltas = list(server.stream(HELLO, Sampler(max_tokens=40, seed=3)))
    assert len([delta for delta in deltas if delta.text]) > 10
    last = deltas[-1]
    assert last.done and last.finish == "length" and last.timing is not None
    assert last.timing.tokens == 40 and last.timing.prompt_tokens > 5
    assert last.timing.tokens_per_s > 0 and 0 < last.timing.first_token_s < 60


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(server: ModelServer) -> None:
    question = [{"role": "user", "content": "Tell me why pear trees matter to gardens in long winters."}]

    def answer(seed: int) -> str:
        return collected(server.stream(question, Sampler(max_tokens=150, seed=seed)))[0]

    first = [answer(seed) for seed in range(6)]
    assert first == [answer(seed) for seed in range(6)]
    assert len(set(first)) == 6


def test_a_thought_comes_apart_from_the_answer_and_keeps_to_its_budget(server: ModelServer) -> None:
    sampler = Sampler(max_tokens=60, reasoning_budget=12, seed=1)
    text, thought, last = collected(server.stream(HELLO, sampler, thinking=True))
    assert 0 < len(thought) <= 12 * 4 and len(text) > len(thought)
    assert "channel" not in text + thought and last.timing is not None and last.timing.tokens == 60


def test_without_thinking_there_is_no_thought(server: ModelServer) -> None:
    text, thought, _ = collected(server.stream(HELLO, Sampler(max_tokens=20), thinking=False))
    assert text and not thought


def test_stop_ends_the_answer_here_and_on_the_server(server: ModelServer) -> None:
    stream = server.stream(HELLO, LONG)
    for _ in range(5):
        next(stream)
    assert busy(server)
    stream.stop()
    last = list(stream)[-1]
    assert last.done and last.finish == "stopped" and last.timing is not None and last.timing.tokens < ENDLESS
    assert eventually(lambda: not busy(server), 10)


def test_stop_before_the_first_token_needs_no_token_to_take_effect(server: ModelServer) -> None:
    question = [{"role": "user", "content": "word " * 320}]
    waiting = [server.stream(question, LONG) for _ in range(4)]  # two slots: two of them wait
    threads = [threading.Thread(target=collected, args=(stream,)) for stream in waiting]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    for stream in waiting:
        stream.stop()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert eventually(lambda: not busy(server), 10)
    waiting[0].stop()  # once more does no harm


def test_a_stream_that_was_stopped_before_it_began_asks_nothing(server: ModelServer) -> None:
    stream = server.stream(HELLO, LONG)
    stream.stop()
    assert [(delta.done, delta.finish) for delta in stream] == [(True, "stopped")]


def test_a_conversation_that_is_too_long_is_refused_with_both_numbers(server: ModelServer) -> None:
    with pytest.raises(InputError, match=r"has \d{5,} tokens, and the model is open for 32768.*Clear"):
        list(server.stream([{"role": "user", "content": "word " * 40_000}], Sampler()))


def test_each_token_comes_with_what_else_was_likely_before_sampling_where_that_is_asked_for(
    server: ModelServer,
) -> None:
    sampler = Sampler(max_tokens=20, temperature=1, top_k=1, seed=4)
    plain = [token for delta in server.stream(HELLO, sampler) for token in delta.pieces]
    assert len(plain) == 20 and all(token.id is None and token.top == () for token in plain)
    tokens = [token for delta in server.stream(HELLO, sampler, probabilities=True) for token in delta.tokens]
    assert [token.text for token in tokens] == [token.text for token in plain]
    for token in tokens:
        assert len(token.top) == TOP and token.id == token.top[0].id  # top-k 1 takes the likeliest …
        shares = [math.exp(one.logprob) for one in token.top]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1  # … of all tokens


def test_tokens_of_a_thought_are_told_from_those_of_the_answer(server: ModelServer) -> None:
    sampler = Sampler(max_tokens=30, reasoning_budget=8, seed=1)
    tokens = [token for delta in server.stream(HELLO, sampler, thinking=True) for token in delta.pieces]
    kinds = [token.thought for token in tokens]
    assert kinds == sorted(kinds, reverse=True) and True in kinds and False in kinds


def test_a_server_that_stops_answering_is_given_up_with_a_sentence(server: ModelServer) -> None:
    body = request_body(HELLO, LONG, False)
    stream = ChatStream(server.port, server._api_key, body, ProcessError, silence_s=1)
    next(stream)
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(ProcessError, match="it has said nothing for 1 seconds"):
        list(stream)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"seed": None}, {"max_tokens": 0}, {"top_k": 1.5}, {"heat": 1}]
)
def test_a_sampler_out_of_range_names_its_field(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong)).replace("_", " ")):
        sampler_of(**wrong)


def test_a_wrong_key_is_refused(server: ModelServer) -> None:
    assert get(server, "/slots", "guess")[0] == get(server, "/v1/models", "")[0] == 401
    stream = ChatStream(server.port, "guess", request_body(HELLO, Sampler(), False), ProcessError)
    with pytest.raises(ProcessError, match=r"401.*Invalid API Key"):
        list(stream)


def test_it_listens_on_the_loopback_alone(server: ModelServer) -> None:
    listening = [c.laddr for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", server.port)]


def test_the_key_shows_in_no_list_of_processes_and_no_log(server: ModelServer) -> None:
    child = psutil.Process(server.pid)
    assert server._api_key not in " ".join([*child.cmdline(), *child.environ().values()])
    assert server._api_key not in server.log.read_text()


def test_a_server_that_dies_in_an_answer_is_reported_with_its_log(server: ModelServer) -> None:
    stream = server.stream(HELLO, LONG)
    next(stream)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ProcessError, match=r"tiny\.gguf failed: its process was killed .*Restart") as caught:
        list(stream)
    assert "tiny.gguf" in caught.value.log_tail and not server.alive
    with pytest.raises(ProcessError, match="killed"):
        list(server.stream(HELLO, Sampler()))


def test_a_polite_signal_ends_it_too(server: ModelServer) -> None:
    os.kill(server.pid, signal.SIGTERM)
    assert eventually(lambda: not server.alive)


def test_a_truncated_file_is_reported_with_the_log(tiny_gguf: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_gguf.read_bytes()[:2_000_000])
    with pytest.raises(ProcessError, match=r"broken\.gguf could not be loaded: its process ended") as caught:
        ModelServer.start(broken, log=tmp_path / "log")
    assert "broken.gguf" in caught.value.log_tail


def test_a_load_that_hangs_is_given_up(tmp_path: Path) -> None:
    hanging = tmp_path / "hanging.gguf"
    os.mkfifo(hanging)  # opening it waits for a writer, for ever
    started = time.monotonic()
    with pytest.raises(ProcessError, match=r"was not loaded within 1\.5 s"):
        ModelServer.start(hanging, log=tmp_path / "log", timeout_s=1.5)
    assert time.monotonic() - started < 10
    assert not [child for child in psutil.Process().children() if is_model_server(child)]


def test_it_survives_the_thread_that_started_it(tiny_gguf: Path, tmp_path: Path) -> None:
    started: list[ModelServer] = []
    thread = threading.Thread(
        target=lambda: started.append(ModelServer.start(tiny_gguf, log=tmp_path / "log", threads=1))
    )
    thread.start()
    thread.join()
    time.sleep(0.3)
    try:
        assert collected(started[0].stream(HELLO, Sampler(max_tokens=5)))[2].finish == "length"
    finally:
        started[0].stop()


PARENT = """
import sys, threading
from pathlib import Path
import psutil
from studio.serve.server import ModelServer
model, log, moment = sys.argv[1:]
threading.Thread(target=lambda: ModelServer.start(Path(model), log=Path(log), threads=1), daemon=True).start()
awaited = b"listening" if moment == "loaded" else b"loading model"
while not Path(log).exists() or awaited not in Path(log).read_bytes():
    threading.Event().wait(0.02)
print(psutil.Process().children()[0].pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("moment", ["loaded", "loading"])
def test_no_child_outlives_a_parent_that_was_killed(tiny_gguf: Path, tmp_path: Path, moment: str) -> None:
    model = tiny_gguf
    if moment == "loading":
        model = tmp_path / "hanging.gguf"
        os.mkfifo(model)
    command = [sys.executable, "-c", PARENT, str(model), str(tmp_path / "log"), moment]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    parent.wait()
    assert eventually(lambda: is_gone(child.pid))


def test_a_child_ends_with_its_stdin_where_the_kernel_gives_no_help(tiny_gguf: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "studio.serve.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    assert child.stdin and child.stdout
    settings = {"model": str(tiny_gguf), "context": 256, "slots": 1, "threads": 1, "api_key": "key"}
    child.stdin.write(json.dumps(settings).encode() + b"\n")
    child.stdin.flush()
    assert json.loads(child.stdout.readline())["port"] > 0
    child.stdin.close()
    assert child.wait(timeout=PATIENCE_S) == 1


def test_no_child_outlives_an_app_that_ends(tiny_gguf: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from studio.serve.server import ModelServer\n"
        "print(ModelServer.start(Path(sys.argv[1]), log=Path(sys.argv[2]), threads=1).pid)"
    )
    command = [sys.executable, "-c", script, str(tiny_gguf), str(tmp_path / "log")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert eventually(lambda: is_gone(int(result.stdout)))
