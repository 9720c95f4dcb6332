"""Asking a real model in a real server: what is counted, what is refused, and what survives."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from studio.demo.task import demo_task
from studio.errors import Cancelled, InputError, ProcessError, UnsupportedError
from studio.evaluate.configuration import CONFIGURATIONS, Configuration, configuration_for, configuration_named
from studio.evaluate.results import folder_of, read_results
from studio.evaluate.results_table import compare_results
from studio.evaluate.runner import evaluate
from studio.evaluate.statistics import in_words
from studio.evaluate.tasks.question import Question
from studio.evaluate.tasks.task import Task
from studio.families import family_named
from studio.workspace import Workspace
from tests.serve.serve_models import is_model_server

TINY = replace(configuration_named("greedy"), context=512, retry_tokens=8)


def short(configuration: Configuration, tokens: int) -> Configuration:
    return replace(configuration, sampler=configuration.sampler.model_copy(update={"max_tokens": tokens}))


def task_of(*questions: Question) -> Task:
    return Task("made-up", "made-up.jsonl", "ab" * 32, questions)


def questions(count: int) -> list[Question]:
    return [Question(f"q{n}", "sense", f"Is {n} enough?", ("A",), ("yes", "no")) for n in range(count)]


def servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_model_server(child)]


class Watch:
    """A progress that does something once, as soon as there are `answers`."""

    def __init__(self, answers: int, action: Callable[[], None]) -> None:
        self.answers, self.action, self.seen = answers, action, 0

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None:
        if unit == "questions":
            self.seen = max(self.seen, done)
            if done >= self.answers and self.action:
                action, self.action = self.action, lambda: None
                action()


def test_the_demo_model_knows_most_of_what_it_never_saw(demo_gguf: Path, workspace: Workspace) -> None:
    task = demo_task().subset(6)
    greedy = configuration_named("greedy")
    result = evaluate(demo_gguf, task, greedy, workspace)
    assert result.values["accuracy"].value is not None and result.values["accuracy"].value > 0.4
    assert [answer.id for answer in result.answers] == [question.id for question in task.questions]
    assert result.inputs["subset"] == {"per_category": 6, "seed": 42} and result.versions["xllamacpp"]
    assert result.details["restarts"] == 0
    assert read_results(workspace) == ([result], [])
    assert not list(workspace.measures.glob(".*")), "the journal is gone with the work"
    assert not servers()

    again = evaluate(demo_gguf, task, greedy, workspace, progress=Watch(0, _never))
    assert again == result, "what was measured is not measured again"
    twin = shutil.copy(demo_gguf, workspace.references / "twin.gguf")
    compared = compare_results(result, evaluate(Path(twin), task, greedy, workspace))
    assert compared.questions == 30 and in_words(compared)


def _never() -> None:
    raise AssertionError("this was measured already")


def test_empty_truncated_and_too_long_are_counted_apart(tiny_gguf: Path, workspace: Workspace) -> None:
    task = task_of(
        *questions(2),
        Question("exact", "sense", "Say something.", ("something",)),
        Question("long", "length", "word " * 800, ("A",), ("yes", "no")),
    )
    result = evaluate(tiny_gguf, task, short(TINY, 5), workspace)
    outcomes = {answer.id: answer.outcome for answer in result.answers}
    assert outcomes["long"] == "too long" and result.values["too long"].value == 1
    assert {outcomes["q0"], outcomes["q1"], outcomes["exact"]} <= {"retried", "unanswered"}  # five tokens end no answer
    assert all(answer.retry.startswith("The answer is") for answer in result.answers if answer.outcome == "retried")
    categories = result.details["categories"]
    assert isinstance(categories, dict) and list(categories) == ["sense"], "a question that was not asked is not scored"
    retried = sum(outcome == "retried" for outcome in outcomes.values())
    assert result.values["retried"].value == retried
    assert len(result.answers) == 4


def test_a_run_that_was_cancelled_goes_on_where_it_was(tiny_gguf: Path, workspace: Workspace) -> None:
    task = task_of(*questions(9))
    watch = Watch(3, _cancel)
    with pytest.raises(Cancelled):
        evaluate(tiny_gguf, task, short(TINY, 60), workspace, slots=2, progress=watch)
    assert not servers() and not list(workspace.measures.glob("*.json"))
    journal = next(workspace.measures.glob(".*/answers.jsonl"))
    kept = journal.read_bytes().count(b"\n")
    assert 3 <= kept < 9
    journal.write_bytes(journal.read_bytes()[:-20])  # killed while it wrote the last line
    first: list[int] = []

    def look(done: int, total: int, unit: str = "", message: str = "") -> None:
        if unit == "questions":
            first.append(done)

    result = evaluate(tiny_gguf, task, short(TINY, 60), workspace, slots=2, progress=look)
    assert first[0] == kept - 1 and len({answer.id for answer in result.answers}) == 9


def _cancel() -> None:
    raise Cancelled()


def test_a_server_that_dies_is_started_again_and_no_answer_is_lost(tiny_gguf: Path, workspace: Workspace) -> None:
    def kill() -> None:
        for server in servers():
            os.kill(server.pid, signal.SIGKILL)

    result = evaluate(tiny_gguf, task_of(*questions(8)), short(TINY, 60), workspace, slots=2, progress=Watch(2, kill))
    assert len(result.answers) == 8 and result.details["restarts"] == 1


def test_a_server_that_goes_on_dying_ends_the_run_with_its_answers_kept(tiny_gguf: Path, workspace: Workspace) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            for server in servers():
                if server.cpu_times().user > 0:
                    os.kill(server.pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    try:
        with pytest.raises(ProcessError) as caught:
            evaluate(tiny_gguf, task_of(*questions(40)), short(TINY, 300), workspace, progress=Watch(1, killer.start))
    finally:
        over.set()
        killer.join()
    assert "failed" in caught.value.what or "could not be loaded" in caught.value.what
    assert next(workspace.measures.glob(".*/answers.jsonl")).read_bytes()


def test_an_endpoint_that_stops_answering_ends_in_a_clear_error(tiny_gguf: Path, workspace: Workspace) -> None:
    def freeze() -> None:
        for server in servers():
            os.kill(server.pid, signal.SIGSTOP)

    with pytest.raises(ProcessError, match=r"failed: .*said nothing.*answers so far are kept"):
        evaluate(
            tiny_gguf,
            task_of(*questions(6)),
            short(TINY, 60),
            workspace,
            slots=1,
            silence_s=0.7,
            restarts=0,
            progress=Watch(1, freeze),
        )
    assert not servers()


def test_what_is_no_language_model_is_said_in_a_sentence(workspace: Workspace, tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "clip.gguf", "clip")
    writer.add_uint32("clip.vision.embedding_length", 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="clip"):
        evaluate(tmp_path / "clip.gguf", task_of(*questions(1)), TINY, workspace)
    with pytest.raises(InputError, match=r"nothing\.gguf"):
        evaluate(tmp_path / "nothing.gguf", task_of(*questions(1)), TINY, workspace)
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(InputError, match=r"text\.gguf"):
        evaluate(tmp_path / "text.gguf", task_of(*questions(1)), TINY, workspace)
    assert not list(workspace.measures.iterdir())


def test_results_of_an_artifact_live_with_it(tiny_gguf: Path, workspace: Workspace) -> None:
    folder = workspace.artifacts / "tiny-6e" / "gguf"
    folder.mkdir(parents=True)
    model = Path(shutil.copy(tiny_gguf, folder / "tiny.gguf"))
    result = evaluate(model, task_of(*questions(1)), short(TINY, 5), workspace)
    assert (folder.parent / "measures" / result.file_name).is_file()
    assert folder_of(model, workspace) == folder.parent / "measures"
    assert result.model.path == "artifacts/tiny-6e/gguf/tiny.gguf"


def test_every_family_has_a_configuration_and_a_name_fixes_all_of_it(tiny_gguf: Path) -> None:
    assert configuration_for(tiny_gguf).name == "official-gemma4"
    thinking = configuration_for(tiny_gguf, thinking=True)
    assert thinking.name == "official-gemma4-thinking" and thinking.context > thinking.sampler.max_tokens
    assert thinking.fields["reasoning_budget"] == 8192 and thinking.fields["dry_multiplier"] == 0.5
    assert configuration_named("greedy").fields["sampler"]["temperature"] == 0.0  # type: ignore[index,call-overload]
    for name in CONFIGURATIONS[1:]:
        assert family_named(name.removeprefix("official-")).name in name
    with pytest.raises(InputError, match="There are greedy, official-gemma4"):
        configuration_named("mine")
