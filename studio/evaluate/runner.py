"""Asking a model all questions of a task: several at once, every answer written down as it comes, to one `Result`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue, ValidationError

from studio.errors import Cancelled, ProcessError, TooLongError
from studio.evaluate.configuration import Configuration
from studio.evaluate.respondent import RESTARTS, Reply, Respondent
from studio.evaluate.results import (
    TOO_LONG,
    Answer,
    Outcome,
    Result,
    Value,
    file_name,
    find,
    folder_of,
    ground_of,
    model_record,
)
from studio.evaluate.statistics import wilson
from studio.evaluate.tasks.asking import Grade, grade, prompt_of, retry_start
from studio.evaluate.tasks.question import Question
from studio.evaluate.tasks.task import Task
from studio.progress import Progress, silent
from studio.publish.manifest import tool_versions
from studio.serve import memory
from studio.serve.client import SILENCE_S, Message
from studio.serve.pool import ServerPool
from studio.staging import resumable
from studio.workspace import Workspace

KIND = "task"
SLOTS = 4
"""Questions that are answered at once. Answers computed beside others differ in the last bits: a run with other
neighbours may give another answer here and there, as another seed would."""

_INTERRUPTIONS = (Cancelled, KeyboardInterrupt, ProcessError)
"""What leaves the answers so far where the next run finds them."""
_NOTHING = Grade(None, False)
_PATIENCE_S = 0.2  # how long a cancelled run goes unnoticed


def evaluate(
    model: Path,
    task: Task,
    configuration: Configuration,
    workspace: Workspace,
    *,
    name: str | None = None,
    slots: int = SLOTS,
    silence_s: float = SILENCE_S,
    restarts: int = RESTARTS,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Result:
    """Ask the GGUF at `model` all questions of `task`; the result is written where `folder_of` says.

    `name` is what to call the model, where that is not its file's name.

    What was measured already is read and not measured again, unless `overwrite` says so. A run that was interrupted
    goes on where it was. Raises `InputError` and `UnsupportedError` for a file that holds no language model,
    `ResourceError` for one that does not fit in memory, `ProcessError` when its server goes on failing.
    """
    memory.model_need(model, configuration.context, slots)  # before its gigabytes are hashed
    record = model_record(model, workspace, progress, name=name)
    inputs: dict[str, JsonValue] = {
        "task": task.file,
        "task_sha256": task.sha256,
        "subset": {"per_category": task.per_category, "seed": task.seed},
        "questions": len(task.questions),
    }
    ground = ground_of(KIND, task.name, configuration.fields, dict(inputs))
    file, folder = file_name(KIND, task.name, ground, record.sha256), folder_of(model, workspace)
    if not overwrite and (known := find(model, file, workspace)) is not None:
        return known.model_copy(update={"model": record})  # the same bytes may lie here under another name
    started = time.monotonic()
    with resumable(folder, file, ground[:16], outlives=_INTERRUPTIONS) as place:
        journal = _Journal(place / "answers.jsonl")
        with _pool(workspace, configuration, slots) as pool:
            respondent = Respondent(pool, model, configuration, silence_s=silence_s, restarts=restarts)
            answers = _ask_all(respondent, task, journal, slots, progress, name=record.name)
        result = Result(
            kind=KIND,
            name=task.name,
            model=record,
            configuration=configuration.fields,
            inputs=inputs,
            values=values_of(answers),
            answers=tuple(answers),
            versions=tool_versions(),
            details={
                "categories": _per_category(answers),
                "seconds": round(time.monotonic() - started, 1),
                "tokens": sum(answer.tokens for answer in answers),
                "slots": slots,
                "restarts": respondent.deaths,
            },
        )
        result.write(folder, overwrite=True)
    return result


def values_of(answers: list[Answer]) -> dict[str, Value]:
    """The numbers that sum answers up. Questions that did not fit the context are counted, and not scored."""
    asked = [answer for answer in answers if answer.outcome != TOO_LONG]
    right = sum(answer.right for answer in asked)
    retried = [answer for answer in asked if answer.outcome == "retried"]
    interval = wilson(right, len(asked))
    share = right / len(asked) if asked else None
    counts = {
        "retried": len(retried),
        "right when retried": sum(answer.right for answer in retried),
        "without an answer": sum(answer.given is None for answer in asked),
        TOO_LONG: len(answers) - len(asked),
    }
    return {
        "accuracy": Value(value=share, low=interval.low, high=interval.high, unit="share", better="higher"),
        **{name: Value(value=count, unit="count", better="lower") for name, count in counts.items()},
    }


@contextmanager
def _pool(workspace: Workspace, configuration: Configuration, slots: int) -> Iterator[ServerPool]:
    pool = ServerPool(workspace.cache / "evaluate-logs", context=configuration.context, slots=slots)
    try:
        yield pool
    finally:
        pool.close()


def _ask_all(
    respondent: Respondent, task: Task, journal: _Journal, slots: int, progress: Progress, *, name: str
) -> list[Answer]:
    """The answers in the order of the questions; `name` is what people call the model."""
    known = dict(journal.found)
    remaining = [question for question in task.questions if question.id not in known]
    total, right = len(task.questions), sum(answer.right for answer in known.values())
    progress(len(known), total, "questions", f"Loading {name}")
    if remaining:
        respondent.load()
    with ThreadPoolExecutor(slots, thread_name_prefix="question") as threads:
        waiting: set[Future[Answer]] = {threads.submit(interview, respondent, question) for question in remaining}
        try:
            while waiting:
                over, waiting = wait(waiting, timeout=_PATIENCE_S, return_when=FIRST_COMPLETED)
                for future in over:
                    answer = future.result()
                    journal.add(answer)
                    known[answer.id] = answer
                    right += answer.right
                progress(len(known), total, "questions", f"{name}: {right} of {len(known)} right")
        except BaseException:
            for future in waiting:
                future.cancel()
            respondent.stop()
            raise
    return [known[question.id] for question in task.questions]


def interview(respondent: Respondent, question: Question) -> Answer:
    """Ask one question, and once more where the answer is empty or cut off. Raises as `Respondent.reply` does."""
    configuration = respondent.configuration
    messages: list[Message] = [{"role": "user", "content": prompt_of(question)}]
    try:
        first = respondent.reply(messages, thinking=configuration.thinking, max_tokens=configuration.sampler.max_tokens)
    except TooLongError:
        return _answer(question, TOO_LONG, _NOTHING, Reply("", "", "", 0))
    if first.complete:
        return _answer(question, "answered", grade(question, first.text), first)
    start = retry_start(question)
    for begun, thought in _beginnings(first, start):
        prefilled = [{"role": "assistant", "content": begun, **thought}] if begun else []
        try:
            second = respondent.reply([*messages, *prefilled], thinking=False, max_tokens=configuration.retry_tokens)
        except TooLongError:
            continue
        graded = grade(question, begun + second.text)
        outcome: Outcome = "unanswered" if graded.given is None else "retried"
        return _answer(question, outcome, graded, first, retry=start + second.text, tokens=second.tokens)
    return _answer(question, "unanswered", _NOTHING, first)


def _beginnings(first: Reply, start: str) -> Iterator[tuple[str, dict[str, str]]]:
    """What the model is made to go on from: all it has thought and said, or less where that leaves no room."""
    said = "\n\n".join(part for part in (first.text.rstrip(), start) if part)
    if first.thought:
        yield said, {"reasoning_content": first.thought}
    yield said, {}
    if said != start:
        yield start, {}


def _answer(
    question: Question, outcome: Outcome, graded: Grade, reply: Reply, *, retry: str = "", tokens: int = 0
) -> Answer:
    return Answer(
        id=question.id,
        category=question.category,
        right=graded.right,
        outcome=outcome,
        expected=question.answers[0],
        given=graded.given,
        text=reply.text,
        thought=reply.thought,
        retry=retry,
        tokens=reply.tokens + tokens,
    )


class _Journal:
    """Answers as they came, a line each; `path` may hold those of a run that was killed."""

    def __init__(self, path: Path) -> None:
        self.found: dict[str, Answer] = {}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            try:
                answer = Answer.model_validate_json(line)
            except ValidationError:
                continue  # cut off in the middle
            self.found[answer.id] = answer
        self._path = path
        if lines and not lines[-1].endswith(b"\n"):
            self._write(b"\n")

    def add(self, answer: Answer) -> None:
        self._write(answer.model_dump_json().encode() + b"\n")

    def _write(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)


def _per_category(answers: list[Answer]) -> dict[str, JsonValue]:
    found: dict[str, list[bool]] = {}
    for answer in answers:
        if answer.outcome != TOO_LONG:
            found.setdefault(answer.category, []).append(answer.right)
    intervals = {name: wilson(sum(rights), len(rights)) for name, rights in found.items()}
    return {
        name: {"right": sum(rights), "asked": len(rights), "low": intervals[name].low, "high": intervals[name].high}
        for name, rights in found.items()
    }
