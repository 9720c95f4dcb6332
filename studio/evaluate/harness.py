"""Any generative task of EleutherAI's lm-evaluation-harness, put to a model that our own server holds.

The harness (`pip install lm_eval[api]`) is optional and large, and runs in a process of its own. Tasks that score the
likelihood of given answers cannot be measured like this: llama.cpp's server does not tell it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import JsonValue

from studio.child import log_tail
from studio.errors import FormatError, InputError, ProcessError, UnsupportedError
from studio.evaluate.configuration import Configuration
from studio.evaluate.results import Answer, Result, Value, folder_of, model_record
from studio.evaluate.statistics import wilson
from studio.machine import usable_cores
from studio.progress import Progress, silent
from studio.publish.manifest import tool_versions
from studio.serve import memory
from studio.serve.client import SILENCE_S
from studio.serve.pool import ServerPool
from studio.serve.server import Endpoint
from studio.workspace import Workspace

KIND = "harness"
PACKAGE = "lm_eval"
_POLL_S = 0.2
_SHARES = ("acc", "exact_match")
"""Metrics whose value for one question is 0 or 1, by the beginning of their names."""


def measure_with_harness(
    model: Path,
    task: str,
    configuration: Configuration,
    workspace: Workspace,
    *,
    include: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    name: str | None = None,
    slots: int = 4,
    progress: Progress = silent,
) -> Result:
    """Run the harness's `task` against the GGUF at `model`; the result is written where `folder_of` says.

    `include` is a folder with tasks of one's own (YAML, which can run code of its own), `limit` the most questions,
    `shots` the examples before each. Raises `InputError` when the harness is not installed or knows no such task,
    `UnsupportedError` for tasks of likelihoods, `ProcessError` with the harness's last lines when it fails, and what
    `ServerPool.lease` raises.
    """
    if find_spec(PACKAGE) is None:
        raise InputError("lm-evaluation-harness is not installed.", 'It is optional: pip install "lm_eval[api]"')
    if include is not None and not include.is_dir():
        raise InputError(f"There is no folder {include} with tasks.")
    memory.model_need(model, configuration.context, slots)
    record = model_record(model, workspace, progress, name=name)
    pool = ServerPool(workspace.cache / "evaluate-logs", context=configuration.context, slots=slots)
    started = time.monotonic()
    with TemporaryDirectory(prefix="espalier-harness-") as temporary:
        folder = Path(temporary)
        try:
            progress(0, 1, "tasks", f"Loading {record.name}")
            with pool.lease(model, max(1, usable_cores() - 1)) as server:
                progress(0, 1, "tasks", f"{record.name}: {task}")
                asked = _request(server.endpoint, task, configuration, folder, slots)
                asked |= {key: value for key, value in _options(include, limit, shots).items() if value is not None}
                _run(asked, server.endpoint.api_key, task, folder, progress)
        finally:
            pool.close()
        told = _told(folder, task)
        samples = list(_samples(folder))
    result = Result(
        kind=KIND,
        name=task,
        model=record,
        configuration=configuration.fields,
        inputs={
            "task_version": told["versions"].get(task),
            "task_hashes": told.get("task_hashes", {}),
            "shots": told.get("n-shot", {}).get(task),
            "limit": limit,
            "questions": len({sample["id"] for sample in samples}),
        },
        values=_values(told["results"][task], samples),
        answers=_answers(samples),
        versions={**tool_versions(), PACKAGE: version(PACKAGE)},
        details={"seconds": round(time.monotonic() - started, 1), "slots": slots},
    )
    result.write(folder_of(model, workspace), overwrite=True)
    progress(1, 1, "tasks", f"{record.name}: {task}")
    return result


def _options(include: Path | None, limit: int | None, shots: int | None) -> dict[str, Any]:
    return {"include_path": None if include is None else str(include.resolve()), "limit": limit, "num_fewshot": shots}


def _request(endpoint: Endpoint, task: str, configuration: Configuration, folder: Path, slots: int) -> dict[str, Any]:
    """The harness's own configuration file. The key is not in it."""
    sampler = configuration.sampler
    return {
        "model": "local-chat-completions",
        "model_args": {
            "model": "local",
            "base_url": f"{endpoint.url}/chat/completions",
            "num_concurrent": slots,
            "max_retries": 2,
            "timeout": int(SILENCE_S),
            "max_length": configuration.context,
            "tokenized_requests": False,
        },
        "tasks": [task],
        "apply_chat_template": True,
        "log_samples": True,
        "output_path": str(folder / "out"),
        "gen_kwargs": {
            "do_sample": sampler.temperature > 0,
            "temperature": sampler.temperature,
            "top_p": sampler.top_p,
            "top_k": sampler.top_k,
            "min_p": sampler.min_p,
            "repeat_penalty": sampler.repeat_penalty,
            "seed": sampler.seed,
            "max_gen_toks": sampler.max_tokens,
            "dry_multiplier": configuration.dry_multiplier,
            "reasoning_format": "deepseek",
            "reasoning_budget_tokens": sampler.thought_tokens if configuration.thinking else 0,
            "chat_template_kwargs": {"enable_thinking": configuration.thinking},
            "cache_prompt": False,
        },
    }


def _run(asked: Mapping[str, Any], api_key: str, task: str, folder: Path, progress: Progress) -> None:
    """Run the harness to its end, or end it with whatever ends us."""
    config, log = folder / "config.json", folder / "log"
    config.write_text(json.dumps(asked), encoding="utf-8")  # JSON is YAML
    with log.open("wb") as output, _process(config, output, api_key) as process:
        while process.poll() is None:
            time.sleep(_POLL_S)
            progress(0, 1, "tasks", task)
    if process.returncode == 0:
        return
    said = log.read_text(errors="replace")
    if "Loglikelihood is not supported" in said:
        raise UnsupportedError(
            f"The task {task} scores the likelihood of given answers, and llama.cpp's server does not tell it.",
            "Choose a generative one; many benchmarks have both.",
        )
    if "Tasks not found" in said or "No tasks found" in said or (f"'{task}'" in said and "KeyError" in said):
        raise InputError(f"lm-evaluation-harness knows no task {task!r}.", "`lm-eval ls tasks` lists them.")
    raise ProcessError(
        f"lm-evaluation-harness ended with status {process.returncode}.", "Its last lines say why.", log_tail(log)
    )


@contextmanager
def _process(config: Path, output: Any, api_key: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", PACKAGE, "run", "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OPENAI_API_KEY": api_key},
        start_new_session=True,  # so that all that it starts can be ended with it
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _told(folder: Path, task: str) -> dict[str, Any]:
    """What the harness wrote about `task`."""
    files = sorted((folder / "out").rglob("results_*.json"))
    told: dict[str, Any] = json.loads(files[-1].read_bytes()) if files else {}
    if task not in told.get("results", {}):
        raise FormatError(folder / "out", "results", f"lm-evaluation-harness wrote no result of {task}")
    return told


def _samples(folder: Path) -> Iterator[dict[str, Any]]:
    """Every question with what the harness made of it: one entry per filter that it reads answers with."""
    for file in sorted((folder / "out").rglob("samples_*.jsonl")):
        task = file.name.removeprefix("samples_").rpartition("_")[0]
        for line in file.read_bytes().splitlines():  # of text it would also break at U+2028, which answers may hold
            sample = json.loads(line)
            yield {**sample, "id": f"{task}-{sample['doc_id']}", "task": task}


def _values(scores: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict[str, Value]:
    """The harness's metrics, `NAME,FILTER` as it calls them."""
    values: dict[str, Value] = {}
    for key, number in scores.items():
        metric, _, filter_name = key.partition(",")
        if not isinstance(number, int | float) or not filter_name or metric.endswith("_stderr"):
            continue
        name = metric if filter_name == "none" else f"{metric} ({filter_name})"
        ones = [
            sample[metric] for sample in samples if sample.get("filter", "none") == filter_name and metric in sample
        ]
        if metric.startswith(_SHARES) and ones and all(one in (0, 1) for one in ones):
            interval = wilson(int(sum(ones)), len(ones))
            values[name] = Value(value=number, low=interval.low, high=interval.high, unit="share", better="higher")
        else:
            values[name] = Value(value=number)
    return values


def _answers(samples: list[dict[str, Any]]) -> tuple[Answer, ...]:
    """One answer per question, by the first metric that says right or wrong; none where no metric does."""
    metric = next((key for sample in samples[:1] for key in sample if key.startswith(_SHARES)), None)
    if metric is None or any(sample.get(metric) not in (0, 1) for sample in samples):
        return ()
    first = {sample["id"]: sample for sample in reversed(samples)}
    return tuple(
        Answer(
            id=identity,
            category=sample["task"],
            right=bool(sample[metric]),
            outcome="answered",
            expected=str(sample.get("target", "")),
            given=_first(sample.get("filtered_resps")),
            text=_first(sample.get("resps")) or "",
        )
        for identity, sample in reversed(first.items())
    )


def _first(responses: JsonValue) -> str | None:
    """The first response, however deep the harness has wrapped it."""
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return responses if isinstance(responses, str) else None
