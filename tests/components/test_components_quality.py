"""What the page asks when files are measured: jobs, commands, tasks that are checked at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from components.kept_values import KeptValues
from components.library import Library
from components.quality import facts_html, remembered, ticked
from components.quality_asked import (
    Asked,
    Subject,
    adopt_ground,
    adopt_task,
    command_text,
    configuration_choices,
    ground_choices,
    jobs_of,
    subjects,
    task_choices,
    task_html,
    task_of,
)
from components.state import StudioState
from studio.errors import FormatError, InputError
from studio.jobs.diverge import Diverge
from studio.jobs.evaluate import Evaluate
from studio.jobs.harness import Harness
from studio.workspace import Workspace

BUILT = "artifacts/demo-24e/gguf/demo-24e-Q4_K_M.gguf"
KNOWN = (Subject("demo", "demo", Path("/m/demo")), Subject(BUILT, "built", Path("/w") / BUILT))
PLAIN = Asked(("demo", BUILT), "task", "demo", "builtin", 3, 42, "greedy", False)


def write_task(path: Path, lines: int, category: Callable[[int], str] = lambda number: f"c{number % 3}") -> Path:
    rows = ({"question": f"{n}?", "answer": "x", "category": category(n)} for n in range(lines))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_ticked_model_is_a_job_of_its_own_under_one_configuration() -> None:
    told = jobs_of("demo", KNOWN, PLAIN)
    assert [kind for kind, _ in told] == ["evaluate", "evaluate"]
    first, second = (Evaluate(**parameters) for _, parameters in told)
    assert (first.model, second.model) == ("demo", BUILT)
    assert first.model_copy(update={"model": BUILT}) == second
    assert (first.per_category, first.seed, first.configuration) == (3, 42, "greedy")
    assert Evaluate(**jobs_of("demo", KNOWN, replace(PLAIN, per_category=0))[0][1]).per_category is None


def test_only_what_differs_from_the_reference_is_compared_with_it() -> None:
    ((kind, told),) = jobs_of("demo", KNOWN, replace(PLAIN, what="divergence"))
    job = Diverge(**told)
    assert (kind, job.candidate, job.reference) == ("diverge", BUILT, "demo")
    assert (job.prompts, job.per_class, job.seed) == (("builtin",), 3, 42)
    ((_, told),) = jobs_of("demo", KNOWN, replace(PLAIN, what="divergence", ground="prompts/a.txt"))
    assert Diverge(**told).text == "prompts/a.txt" and not Diverge(**told).prompts


def test_a_task_of_the_harness_is_a_job_for_every_ticked_model_and_a_command() -> None:
    asked = replace(PLAIN, what="harness", harness="gsm8k", limit=50, shots=None)
    told = jobs_of("demo", KNOWN, asked)
    first, second = (Harness(**parameters) for kind, parameters in told if kind == "harness")
    assert (first.task, first.limit, first.shots, first.configuration) == ("gsm8k", 50, None, "greedy")
    assert second.model == BUILT


def test_what_was_chosen_is_there_after_a_reload_and_what_is_no_choice_is_not(tmp_path: Path) -> None:
    kept, now = KeptValues(tmp_path, "measure"), StudioState.opening("demo", None, None)
    assert remembered(kept, now, PLAIN) == (PLAIN, ())  # nobody yet
    now = replace(now, user="ann")
    chosen = replace(PLAIN, seed=7, what="divergence")
    kept.write("ann", "demo", {"known": ["demo"], **asdict(chosen)})
    assert remembered(kept, now, PLAIN) == (chosen, ("demo",))
    assert remembered(kept, replace(now, user="bob"), PLAIN) == (PLAIN, ())
    kept.write("ann", "demo", {"nothing": 1})
    assert remembered(kept, now, PLAIN) == (PLAIN, ())
    kept.path("ann", "demo").write_text("{")
    assert remembered(kept, now, PLAIN) == (PLAIN, ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": ()}, "No model is ticked"),
        ({"models": ("../../etc/passwd",)}, "No model is ticked"),
        ({"models": ("demo",), "what": "divergence"}, "does not differ from itself"),
        ({"per_category": -1}, "“Of each category, at most” cannot be -1"),
        ({"per_category": 2.5}, "cannot be 2.5"),
        ({"what": "harness", "harness": " "}, "“Task of the harness” is empty"),
        ({"what": "harness", "harness": "../x"}, "cannot be '../x'"),
        ({"what": "harness", "harness": "gsm8k", "limit": -1}, "“Questions, at most” cannot be -1"),
        ({"seed": None}, "“Seed” cannot be empty"),
    ],
)
def test_what_makes_no_job_is_said(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        jobs_of("demo", KNOWN, replace(PLAIN, **change))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no model to measure"):
        jobs_of("", (), PLAIN)


def test_the_commands_do_what_the_button_does(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    first, second = command_text(workspace, "demo", KNOWN, replace(PLAIN, thinking=True)).splitlines()
    options = "--task demo --per-category 3 --seed 42 --configuration greedy --thinking"
    assert first == f"python -m studio evaluate demo {options}"
    assert second == f"python -m studio evaluate /w/{BUILT} {options}"
    text = replace(PLAIN, what="divergence", ground="prompts/a b.txt")
    assert command_text(workspace, "demo", KNOWN, text) == (
        f"python -m studio diverge /w/{BUILT} --against demo --text '{tmp_path}/prompts/a b.txt'"
    )


def test_the_configuration_of_the_family_comes_first() -> None:
    assert [name for _, name in configuration_choices("gemma4")] == ["official-gemma4", "greedy"]
    assert [name for _, name in configuration_choices("mixtral")] == ["greedy"]
    assert configuration_choices("gemma4")[0][0] == "official-gemma4: temperature 1, top-p 0.95, top-k 64"


def test_the_models_are_the_reference_and_what_was_built(library: Library) -> None:
    assert subjects(library, "") == ()
    (only,) = subjects(library, "pear")
    assert (only.key, only.path) == ("pear", library.workspace.references / "pear")


def test_what_was_built_since_is_ticked() -> None:
    assert ticked(["r", "new", "old"], [], []) == ["r", "new"]
    assert ticked(["r", "new", "old"], ["r"], ["r", "old"]) == ["r", "new"]
    assert ticked(["r", "old"], [], ["r", "old"]) == []
    assert ticked(["other", "file"], ["r"], ["r", "old"]) == ["other", "file"]


def test_an_uploaded_task_is_checked_at_once_and_kept(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"question": "?", "answer": "x"}\n{"question": "?", "optons": [], "answer": "x"}\n')
    with pytest.raises(FormatError, match=r'^wrong.jsonl, line 2: "optons" is no field of a question'):
        adopt_task(workspace, wrong)
    assert not list(workspace.tasks.iterdir())
    key = adopt_task(workspace, write_task(tmp_path / "mine.jsonl", 7))
    assert key == "tasks/mine.jsonl" and ("mine", key) in task_choices(workspace)
    html = task_html(task_of(workspace, key), 2)
    assert "mine: 6 of 7 questions are asked" in html and html.count("<tr>") == 4
    Evaluate(model="demo", task=key).check(workspace)


def test_a_hundred_thousand_questions_are_counted_once(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    write_task(workspace.tasks / "long.jsonl", 100_000, lambda number: f"<{number % 50_000}>")
    task = task_of(workspace, "tasks/long.jsonl")
    started = time.monotonic()
    assert task_of(workspace, "tasks/long.jsonl") is task
    html = task_html(task, 1)
    assert time.monotonic() - started < 1
    assert "long: 50,000 of 100,000 questions are asked" in html
    assert "and 49,970 more" in html and len(html) < 10_000 and "<1>" not in html


def test_a_task_that_vanished_is_said_where_its_counts_were(library: Library) -> None:
    assert "There is no file tasks/gone.jsonl" in facts_html(library, replace(PLAIN, task="tasks/gone.jsonl"))
    assert "outside the workspace" in facts_html(library, replace(PLAIN, task="../../etc/passwd"))
    assert facts_html(library, replace(PLAIN, per_category=-1)) == ""
    assert facts_html(library, replace(PLAIN, what="divergence")) == ""


def test_texts_and_prompts_are_kept_to_compare_on(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    (tmp_path / "a.txt").write_text("A text.")
    (tmp_path / "a.pkl").write_text("No text.")
    assert adopt_ground(workspace, tmp_path / "a.txt") == "prompts/a.txt"
    assert ("a.txt", "prompts/a.txt") in ground_choices(workspace)
    with pytest.raises(InputError, match=r"a.pkl is no text"):
        adopt_ground(workspace, tmp_path / "a.pkl")
