"""The executor of several machines: a worker with the model on each node of a Ray cluster, or on each of its GPUs.

Each node needs Espalier and the model in the same folders as here. A worker that is lost, with its node or alone, had
one piece in work; another worker makes that again.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from studio.contributions.checkpoint import Arrays
from studio.contributions.executor import Facts, Kind, Worker, collect_with
from studio.contributions.model import Contributions
from studio.contributions.observation import Observation, Request, in_its_dtype, model_place_key
from studio.errors import InputError, ProcessError, UnsupportedError
from studio.progress import Progress

_ROUNDS = 3
"""How often workers are started, when all of them have been lost."""
_ROOT = Path(__file__).resolve().parents[2]

_log = logging.getLogger(__name__)


class RayExecutor:
    """Makes pieces with the workers of a cluster; use `ray_executor`."""

    def __init__(self, ray: Any, request: Request) -> None:
        self._ray = ray
        self._request = replace(request, prompts=())
        self._workers: list[Any] = []
        self._rounds = 0

    def facts(self) -> Facts:
        """Raises what `load` raises."""
        ((_, found),) = self._all([()], lambda worker, _: worker.facts.remote())
        assert isinstance(found, Facts)
        return found

    def run(self, kind: Kind, inputs: Sequence[Any]) -> Iterator[tuple[int, Arrays]]:
        return self._all(inputs, lambda worker, one: worker.make.remote(kind, one))

    def _all(self, inputs: Sequence[Any], begin: Any) -> Iterator[tuple[int, Any]]:
        """(number, result) of what `begin` starts on a worker for each of `inputs`."""
        waiting = deque(range(len(inputs)))
        running: dict[Any, tuple[Any, int]] = {}
        idle: list[Any] = list(self._workers)
        while waiting or running:
            if not running and not idle:
                idle = self._start()
            while waiting and idle:
                worker, number = idle.pop(), waiting.popleft()
                running[begin(worker, inputs[number])] = worker, number
            (done, *_), _ = self._ray.wait(list(running))
            worker, number = running.pop(done)
            try:
                result = self._ray.get(done)
            except self._ray.exceptions.RayActorError as error:
                self._workers.remove(worker)
                waiting.appendleft(number)
                _log.warning(
                    "A worker was lost (%s); its part is made again by one of %d others.",
                    type(error).__name__,
                    len(self._workers),
                )
                continue
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise error.cause from None
                raise ProcessError(
                    f"A worker of the Ray cluster failed: {error.cause!r}.", log_tail=str(error)
                ) from error
            idle.append(worker)
            yield number, result

    def _start(self) -> list[Any]:
        """Workers on all nodes that are there now."""
        self._rounds += 1
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        if self._rounds > _ROUNDS or not nodes:
            raise ProcessError(
                "All workers of the Ray cluster were lost.",
                "Start the analysis again when its nodes are back: what is finished is kept.",
            )
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        kind = self._ray.remote(Worker)
        for node in nodes:
            gpus = int(node["Resources"].get("GPU", 0))
            for _ in range(max(1, gpus)):
                options = kind.options(
                    num_cpus=0,  # the place is what matters: one model for each node or GPU
                    num_gpus=1 if gpus else 0,
                    max_restarts=0,
                    scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                )
                worker = options.remote(self._request, "cuda" if gpus else "cpu", torch.get_num_threads())
                self._workers.append(worker)
        return list(self._workers)


@contextmanager
def ray_executor(address: str, request: Request) -> Iterator[RayExecutor]:
    """The executor of the cluster at `address`: "auto" for the one that this machine is part of, or a URL.

    Raises `InputError` when Ray is not installed, or there is no cluster.
    """
    ray = _ray()
    here = ray.is_initialized()
    if not here:
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}},
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(
                f"There is no Ray cluster at {address!r}: {' '.join(str(error).split())[:200]}.",
                "Start one with: ray start --head",
            ) from error
    executor = RayExecutor(ray, request)
    try:
        yield executor
    finally:
        for worker in executor._workers:
            ray.kill(worker)
        if not here:
            ray.shutdown()


def on_cluster(address: str, request: Request, mode: str, energies: object | None) -> Observation:
    """`request`, to be observed by the cluster at `address`.

    Raises `InputError` when Ray is not installed, `UnsupportedError` for what a cluster does not do.
    """
    if mode not in ("auto", "whole"):
        raise UnsupportedError(
            f"On a cluster each node holds the whole model; {mode} is not possible.",
            "Leave --mode out, or observe on this machine alone.",
        )
    if energies is not None:
        raise UnsupportedError(
            "On a cluster no importance matrix is measured in the same pass.",
            "Leave it out, or measure it on one machine.",
        )
    _ray()

    def observe(checkpoint: Path, progress: Progress) -> Contributions:
        with ray_executor(address, request) as executor:
            return in_its_dtype(collect_with(executor, request, progress=progress, checkpoint=checkpoint), request)

    return Observation(model_place_key(request.model_dir, request.dtype, "on a cluster"), observe)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError("Ray is not installed.", "Run: pip install ray") from error
