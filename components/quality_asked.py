"""What a person wants to know of which models, as jobs and as commands; nothing of gradio."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from components.library import Library
from components.markup import class_label, table
from components.sources import built
from components.uploads import adopted
from studio.contributions.sources import BUILTIN
from studio.demo.task import DEMO as DEMO_TASK
from studio.demo.task import HELD_OUT, demo_task
from studio.errors import FormatError, InputError
from studio.evaluate.configuration import CONFIGURATIONS, GREEDY, OFFICIAL, configuration_named
from studio.evaluate.file_results import KIND as DIVERGENCE
from studio.evaluate.harness import KIND as HARNESS
from studio.evaluate.runner import KIND as TASK
from studio.evaluate.tasks.task import Task, read_task
from studio.jobs.task import DEMO, input_path, reference_path
from studio.workspace import Workspace

WHATS = [
    ("Right answers, on a task", TASK),
    ("Divergence from the reference, on text", DIVERGENCE),
    ("A task of lm-evaluation-harness", HARNESS),
]
_HARNESS_NAME = r"[A-Za-z0-9][\w.+-]*"
_CATEGORIES_SHOWN = 30
_TEXT = ".txt"
_PROMPTS = (_TEXT, ".jsonl", ".parquet")

JobAsked = tuple[str, dict[str, Any]]
"""The kind of a job, and its parameters."""


@dataclass(frozen=True)
class Subject:
    """A model that can be measured."""

    key: str
    """As jobs name it."""
    label: str
    path: Path
    """As commands name it."""


@dataclass(frozen=True)
class Asked:
    """What is chosen in the station, in the order of `QualityStation.asked`."""

    models: Sequence[str]
    what: str
    task: str | None
    ground: str | None
    per_category: float | None
    seed: float | None
    configuration: str
    thinking: bool
    harness: str | None = ""
    """The name of a task of lm-evaluation-harness."""
    limit: float | None = None
    shots: float | None = None

    @property
    def questions_each(self) -> int | None:
        """Of each category; None for all. Raises `InputError`."""
        return _whole(self.per_category, "Of each category, at most", 0) or None

    @property
    def fixed_seed(self) -> int:
        """Raises `InputError`."""
        return _whole(self.seed, "Seed", 0)


def _whole(number: float | None, name: str, least: int) -> int:
    if number is None or number != int(number) or number < least:
        said = "empty" if number is None else f"{number:g}"
        raise InputError(f"“{name}” cannot be {said}.", f"Give a whole number, {least} or more.")
    return int(number)


def subjects(library: Library, reference: str) -> tuple[Subject, ...]:
    """The reference called so, and the GGUF files that were built from it, the newest build first."""
    if not reference:
        return ()
    opened, workspace = library.reference(reference), library.workspace
    files = built(workspace.artifacts, opened.name)
    first = Subject(reference, f"{reference}, the reference", reference_path(workspace, reference))
    return (first, *(Subject(file.relative_to(workspace.root).as_posix(), name, file) for name, file in files.items()))


def configuration_choices(family: str) -> list[tuple[str, str]]:
    """(what it means, name) of the official configuration of `family`, where one is known, and of `greedy`."""
    return [(_configuration_text(name), name) for name in (f"{OFFICIAL}{family}", GREEDY) if name in CONFIGURATIONS]


def _configuration_text(name: str) -> str:
    if name == GREEDY:
        return f"{name}: always the likeliest token"
    sampler = configuration_named(name).sampler
    return f"{name}: temperature {sampler.temperature:g}, top-p {sampler.top_p:g}, top-k {sampler.top_k}"


def task_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """The tasks that can be asked: the demo's own, and those that were uploaded."""
    kept = sorted(workspace.tasks.glob("*.jsonl"))
    files = [(path.stem, path.relative_to(workspace.root).as_posix()) for path in kept]
    return [("Demo: exercises that it was not trained on", DEMO_TASK), *files]


def ground_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """What files can be compared on: prompts that come with Espalier, and texts and prompts that were uploaded."""
    kept = sorted(path for path in workspace.prompts.iterdir() if path.suffix in _PROMPTS)
    files = [(path.name, path.relative_to(workspace.root).as_posix()) for path in kept]
    ours = [("Prompts that come with Espalier", BUILTIN), ("Demo: exercises it was not trained on", str(HELD_OUT))]
    return [*ours, *files]


def adopt_task(workspace: Workspace, file: Path) -> str:
    """Keep an uploaded task, which is read and checked first: how jobs name it. Raises as `read_task` does."""
    try:
        read_task(file)
    except FormatError as error:  # a person knows the file by its name, and not where the browser's upload went
        raise FormatError(file.name, error.place, error.problem, error.remedy) from None
    return adopted(workspace, file, workspace.tasks).relative_to(workspace.root).as_posix()


def adopt_ground(workspace: Workspace, file: Path) -> str:
    """Keep an uploaded text or file of prompts: how jobs name it. Raises `InputError` for any other file."""
    if file.suffix.lower() not in _PROMPTS:
        raise InputError(f"{file.name} is no text and no file of prompts.", f"Give one of {', '.join(_PROMPTS)}.")
    return adopted(workspace, file, workspace.prompts).relative_to(workspace.root).as_posix()


def task_of(workspace: Workspace, key: str | None) -> Task:
    """The task that jobs name `key`. Raises as `read_task` and `input_path` do."""
    if key == DEMO_TASK:
        return demo_task()
    path = input_path(workspace, key or "tasks")
    status = path.stat()
    return _read_task(path, (status.st_mtime_ns, status.st_size))


@lru_cache(4)  # asked for with every change of a control, and a file may have a hundred thousand lines
def _read_task(path: Path, _signature: tuple[int, int]) -> Task:
    return read_task(path)


def task_html(task: Task, each: int | None) -> str:
    """The categories of a task, and how many questions of each are asked."""
    counts = task.categories
    asked = {category: min(count, each or count) for category, count in counts.items()}
    shown = list(counts.items())[:_CATEGORIES_SHOWN]
    rows = [(escape(class_label(category)), f"{count:,}", f"{asked[category]:,}") for category, count in shown]
    if len(counts) > len(shown):
        others = dict(list(counts.items())[_CATEGORIES_SHOWN:])
        more = sum(asked[category] for category in others)
        rows.append((f"and {len(others):,} more", f"{sum(others.values()):,}", f"{more:,}"))
    caption = f"{task.name}: {sum(asked.values()):,} of {len(task.questions):,} questions are asked"
    return table(("Category", "In the task", "Asked"), rows, numeric=(1, 2), caption=caption)


def jobs_of(reference: str, known: Sequence[Subject], asked: Asked) -> list[JobAsked]:
    """A job for every chosen model. Raises `InputError` where nothing, or nothing sensible, is chosen."""
    if not reference:
        raise InputError("There is no model to measure.", "Open one in the first station.")
    if asked.what == TASK:
        return [("evaluate", _task_parameters(one.key, asked)) for one in _chosen(known, asked)]
    if asked.what == HARNESS:
        return [("harness", _harness_parameters(one.key, asked)) for one in _chosen(known, asked)]
    candidates = [one for one in _chosen(known, asked) if one.key != reference]
    if not candidates:
        raise InputError("The reference does not differ from itself.", "Tick a file that was built from it.")
    return [("diverge", _divergence_parameters(one.key, reference, asked)) for one in candidates]


def _chosen(known: Sequence[Subject], asked: Asked) -> list[Subject]:
    found = [one for one in known if one.key in asked.models]
    if not found:
        raise InputError("No model is ticked.", "Tick the reference, or a file that was built from it.")
    return found


def _task_parameters(model: str, asked: Asked) -> dict[str, Any]:
    return {
        "model": model,
        "task": asked.task or DEMO_TASK,
        "per_category": asked.questions_each,
        "seed": asked.fixed_seed,
        "configuration": asked.configuration,
        "thinking": asked.thinking,
    }


def _harness_parameters(model: str, asked: Asked) -> dict[str, Any]:
    task = (asked.harness or "").strip()
    if not re.fullmatch(_HARNESS_NAME, task):
        raise InputError(
            f"“Task of the harness” cannot be {task!r}." if task else "“Task of the harness” is empty.",
            "Write one name as the harness calls it, for instance gsm8k.",
        )
    shots = None if asked.shots is None else _whole(asked.shots, "Examples before each question", 0)
    return {
        "model": model,
        "task": task,
        "limit": _whole(asked.limit, "Questions, at most", 0) or None,
        "shots": shots,
        "configuration": asked.configuration,
        "thinking": asked.thinking,
    }


def _divergence_parameters(candidate: str, reference: str, asked: Asked) -> dict[str, Any]:
    ground = asked.ground or BUILTIN
    told: dict[str, Any] = {"candidate": candidate, "reference": reference}
    if ground.endswith(_TEXT):
        return {**told, "text": ground}
    drawn = {"per_class": asked.questions_each, "seed": asked.fixed_seed}
    return {**told, "prompts": [ground], **drawn, "thinking": asked.thinking}


def command_text(workspace: Workspace, reference: str, known: Sequence[Subject], asked: Asked) -> str:
    """Commands that do what the button does. Raises as `jobs_of` does."""
    paths = {one.key: DEMO if one.key == DEMO else str(one.path) for one in known}
    lines = []
    for _, told in jobs_of(reference, known, asked):
        thinking = ["--thinking"] if told.get("thinking") else []
        seed = ["--seed", str(told["seed"])] if "seed" in told else []
        if asked.what == TASK:
            file = _named(workspace, told["task"])
            chosen = ["--per-category", str(told["per_category"] or 0), *seed, "--configuration", told["configuration"]]
            words = ["evaluate", paths[told["model"]], "--task", file, *chosen]
        elif asked.what == HARNESS:
            numbers = [(f"--{name}", told[name]) for name in ("limit", "shots") if told[name] is not None]
            chosen = [word for option, number in numbers for word in (option, str(number))]
            chosen += ["--configuration", told["configuration"]]
            words = ["harness", paths[told["model"]], "--task", told["task"], *chosen]
        else:
            where = "text" if "text" in told else "prompts"
            file = _named(workspace, told["text"] if where == "text" else told["prompts"][0])
            each = ["--per-class", str(told["per_class"])] if told.get("per_class") else []
            words = ["diverge", paths[told["candidate"]], "--against", paths[reference], f"--{where}", file, *each]
            words += seed
        lines.append(shlex.join(["python", "-m", "studio", *words, *thinking]))
    return "\n".join(lines)


def _named(workspace: Workspace, source: str) -> str:
    return source if source in (DEMO_TASK, BUILTIN) else str(workspace.root / source)
