"""In pieces, in one process or on a cluster that loses a node: the result is that of one pass, to the last bit."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.contributions.analyze import analyze
from studio.contributions.executor import Local, Worker, collect_with
from studio.contributions.observation import Request
from studio.contributions.prompts import Prompt
from studio.errors import InputError
from studio.families import shape_of_config
from tests.contributions.tiny import tiny_model, tiny_tokenizer
from tests.families.tiny_models import save


def ask(number: int, answer: str | None = "Yes, indeed.") -> Prompt:
    return Prompt(f"{number}", "ab"[number % 2], ({"role": "user", "content": f"why {'so ' * number}?"},), answer)


PROMPTS = [ask(number, answer=None if number % 5 == 0 else "Because.") for number in range(24)]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(tiny_model(), tmp_path_factory.mktemp("executor") / "tiny")
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def request_(model_dir: Path) -> Request:
    shape = shape_of_config(tiny_model().config.to_dict())
    return Request(model_dir, PROMPTS, shape, "auto", 4096, 4, False)


@pytest.fixture(scope="module")
def expected(request_: Request) -> str:
    """The hash of what `collect` gives."""
    from studio.contributions.collector import collect
    from studio.contributions.observation import load

    model, tokenizer = load(request_, "cpu")
    return collect(model, tokenizer, PROMPTS, batch_tokens=200, **request_.options).content_hash


def test_pieces_in_this_process_give_what_one_pass_gives(request_: Request, expected: str, tmp_path: Path) -> None:
    found = collect_with(Local(Worker(request_, "cpu")), request_, batch_tokens=200, checkpoint=tmp_path)
    assert found.content_hash == expected
    pieces = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
    assert pieces == {"answers", "sums"}


def test_pieces_that_are_known_are_not_made_again(request_: Request, expected: str, tmp_path: Path) -> None:
    collect_with(Local(Worker(request_, "cpu")), request_, batch_tokens=200, checkpoint=tmp_path)
    worker = Worker(request_, "cpu")
    facts = worker.facts()

    class Idle:
        def facts(self) -> Any:
            return facts

        def run(self, kind: Any, inputs: Any) -> Iterator[Any]:
            assert not inputs
            return iter(())

    assert collect_with(Idle(), request_, batch_tokens=200, checkpoint=tmp_path).content_hash == expected


def test_without_ray_the_command_that_installs_it_is_named(
    model_dir: Path, prompt_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = importlib.import_module

    def without_ray(name: str, *arguments: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return load(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", without_ray)
    prompts = prompt_file({"class": "talk", "prompt": "and?", "answer": "yes"})
    with pytest.raises(InputError, match="pip install ray"):
        analyze(model_dir, prompts, tmp_path / "out.safetensors", ray="auto")
    with pytest.raises(InputError, match="layered"):
        analyze(model_dir, prompts, tmp_path / "out.safetensors", ray="auto", mode="layered")
    assert not (tmp_path / "out.safetensors").exists()


NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 80 << 20}
"""Loopback, and not 127.0.0.1, which Ray would turn into an address that others can reach."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, without dashboard and usage statistics, that nobody else can reach."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray")
    cluster_utils = importlib.import_module("ray.cluster_utils")
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


@pytest.mark.timeout(240)
def test_a_cluster_that_loses_a_node_gives_the_same_to_the_last_bit(
    cluster: Any, request_: Request, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    from studio.contributions.ray_executor import ray_executor

    second = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    killed: list[psutil.Process] = []

    def kill_in_the_middle(done: int, total: int, unit: str = "", message: str = "") -> None:
        if not killed and message == "observing the experts":
            raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
            killed.extend(raylet.children(recursive=True))  # its workers end with the machine
            cluster.remove_node(second, allow_graceful=False)
            for process in killed:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    with ray_executor(cluster.address, request_) as executor:
        found = collect_with(executor, request_, batch_tokens=200, progress=kill_in_the_middle)
        left = len(executor._workers)
    assert found.content_hash == expected
    assert killed
    assert left == 1
    assert "its part is made again" in caplog.text


@pytest.mark.timeout(240)
def test_an_analysis_on_a_cluster_saves_what_one_here_saves(
    cluster: Any, model_dir: Path, prompt_file: Any, tmp_path: Path
) -> None:
    prompts = prompt_file(*({"class": "talk", "prompt": f"and {number}?", "answer": "yes"} for number in range(9)))
    analyze(model_dir, prompts, tmp_path / "here.safetensors")
    analyze(model_dir, prompts, tmp_path / "there.safetensors", ray=cluster.address)
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(InputError, match=r"holds no config\.json"):
        analyze(tmp_path, prompts, tmp_path / "other.safetensors", ray=cluster.address)
