"""Task files: what is in them, what is wrong with them, subsets of them, and MMLU-Pro's columns."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.demo.task import demo_task, task_named
from studio.errors import FormatError, InputError, OutputExistsError
from studio.evaluate.tasks.asking import grade, prompt_of, retry_start
from studio.evaluate.tasks.mmlu_pro import read_mmlu_pro
from studio.evaluate.tasks.question import Question, entry_of, question_of
from studio.evaluate.tasks.task import Task, read_task, write_task

CHOICE = {"category": "law", "question": "Who pays?", "options": ["The buyer", "The seller"], "answer": "B"}
EXACT = {"category": "sums", "question": "2 + 2?", "answer": "4"}


def lines(path: Path, *entries: object) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in entries))
    return path


def test_both_kinds_of_questions_are_read(tmp_path: Path) -> None:
    task = read_task(lines(tmp_path / "mixed.jsonl", CHOICE, "", {**EXACT, "id": "s", "answer": ["4", "four"]}))
    assert (task.name, task.file, task.categories) == ("mixed", "mixed.jsonl", {"law": 1, "sums": 1})
    assert task.questions == (
        Question("1", "law", "Who pays?", ("B",), ("The buyer", "The seller")),
        Question("s", "sums", "2 + 2?", ("4", "four")),
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**EXACT, "optoins": []}, '"optoins" is no field of a question'),
        ({"question": "?"}, '"answer" is missing'),
        ({"answer": "4"}, '"question" is missing'),
        ({**EXACT, "question": 7}, '"question" has to be a text'),
        ({**EXACT, "answer": []}, '"answer" is an empty list'),
        ({**EXACT, "answer": ["4", 4]}, '"answer" has to be a text'),
        ({**EXACT, "category": ""}, '"category" has to be a text'),
        ({**EXACT, "id": True}, '"id" has to be'),
        ({**CHOICE, "answer": "C"}, "\"answer\" is 'C', and has to be a letter from A to B"),
        ({**CHOICE, "answer": "The seller"}, "has to be a letter from A to B"),
        ({**CHOICE, "options": ["one"]}, '"options" has to be a list of 2 to 26'),
        ({**CHOICE, "options": ["one", 2]}, '"options" has an entry, number 1'),
        ({**CHOICE, "options": "AB"}, '"options" has to be a list'),
        ({**EXACT, "question": "\ud800"}, '"question" holds half a character'),
        ([1], "this is a list"),
        ("{", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
    ],
)
def test_a_fault_names_line_and_field(entry: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_task(lines(tmp_path / "t.jsonl", CHOICE, entry))
    assert caught.value.place == "line 2" and words in caught.value.problem


def test_two_questions_of_one_id_an_empty_file_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="line 2: \"id\" 'x' is that of line 1 too"):
        read_task(lines(tmp_path / "t.jsonl", {**EXACT, "id": "x"}, {**CHOICE, "id": "x"}))
    with pytest.raises(FormatError, match="not one question"):
        read_task(lines(tmp_path / "e.jsonl"))
    with pytest.raises(InputError, match="There is no task file"):
        read_task(tmp_path / "n.jsonl")


def test_a_hundred_thousand_lines_are_checked_quickly_to_the_last(tmp_path: Path) -> None:
    line = json.dumps(CHOICE) + "\n"
    path = tmp_path / "large.jsonl"
    path.write_text(line * 99_999 + json.dumps({**CHOICE, "answer": "Z"}) + "\n")
    started = time.process_time()
    with pytest.raises(FormatError, match="line 100000"):
        read_task(path)
    assert time.process_time() - started < 8  # about one second on a machine that does nothing else


def test_a_line_without_end_is_no_question(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"x" * (17 << 20))
    with pytest.raises(FormatError, match="longer than 16 MiB"):
        read_task(path)


def many(counts: dict[str, int]) -> Task:
    questions = [
        Question(f"{name}-{n}", name, f"{n}?", ("A",), ("x", "y"))
        for name, count in counts.items()
        for n in range(count)
    ]
    return Task("many", "many.jsonl", "ab", tuple(questions))


@given(st.integers(1, 30), st.integers(0, 100))
def test_a_subset_is_stratified_and_part_of_every_larger_one(count: int, seed: int) -> None:
    task = many({"law": 40, "art": 25, "few": 3})
    chosen = task.subset(count, seed)
    assert chosen.categories == {"law": count, "art": min(count, 25), "few": min(count, 3)}
    assert set(chosen.questions) <= set(task.subset(count + 1, seed).questions)
    assert [q for q in task.questions if q in chosen.questions] == list(chosen.questions)
    turned = Task("many", "many.jsonl", "ab", task.questions[::-1])
    assert set(turned.subset(count, seed).questions) == set(chosen.questions)


def test_another_seed_is_another_subset() -> None:
    task = many({"law": 400})
    assert task.subset(20, 1).questions != task.subset(20, 2).questions
    assert task.subset(None) is task
    with pytest.raises(InputError, match="at least 1"):
        task.subset(0)


@given(
    st.builds(
        Question,
        id=st.text("abc123", min_size=1),
        category=st.text("xyz ", min_size=1).filter(str.strip),
        text=st.text(min_size=1).filter(str.strip),
        answers=st.sampled_from([("A",), ("B",)]),
        options=st.sampled_from([(), ("one", "two")]),
    )
)
def test_a_question_survives_its_file(question: Question) -> None:
    assert question_of(json.loads(json.dumps(entry_of(question))), 1) == question


ROW = {
    "question_id": 70,
    "question": "Which?",
    "options": ["one", "two", "N/A", "three", "N/A"],
    "answer": "D",
    "answer_index": 3,
    "category": "computer science",
    "cot_content": "",
    "src": "ori_mmlu-x",
}


def test_mmlu_pro_becomes_questions_from_parquet_as_from_json(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [ROW, {**ROW, "question_id": 71, "answer": "A", "answer_index": 0}]
    write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    questions = list(read_mmlu_pro(tmp_path / "test.parquet"))
    assert questions == list(read_mmlu_pro(lines(tmp_path / "test.jsonl", *rows)))
    assert questions[0] == Question("mmlu-pro-70", "computer science", "Which?", ("C",), ("one", "two", "three"))
    out = tmp_path / "mmlu-pro.jsonl"
    assert write_task(out, questions) == 2 and read_task(out).questions == tuple(questions)
    with pytest.raises(OutputExistsError):
        write_task(out, questions)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": None}, '"options" is missing'),
        ({"answer": "F", "answer_index": 5}, "\"answer\" is 'F', and there are 5 options"),
        ({"answer_index": 2}, '"answer_index" is 2, and the answer D is number 3'),
        ({"answer": "C", "answer_index": 2}, '"answer" is C, an option that says N/A'),
        ({"question": ""}, '"question" has to be a text'),
    ],
)
def test_a_row_that_is_not_mmlu_pros_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        list(read_mmlu_pro(lines(tmp_path / "t.jsonl", ROW, {**ROW, **change})))
    assert caught.value.place == "row 2" and words in caught.value.problem


def test_a_broken_parquet_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(FormatError, match="cannot be read as parquet"):
        list(read_mmlu_pro(tmp_path / "t.parquet"))


def test_a_prompt_has_all_options_and_says_how_to_end() -> None:
    prompt = prompt_of(Question("1", "law", "Who pays?", ("B",), ("The buyer", "The seller")))
    assert "A. The buyer\nB. The seller" in prompt and '"The answer is (X)"' in prompt
    assert "question about law." in prompt
    assert "question. Think" in prompt_of(Question("1", "all", "Who pays?", ("B",), ("The buyer", "The seller")))
    assert grade(Question("1", "law", "?", ("B",), ("x", "y")), f"{retry_start(question_of(CHOICE, 1))}B)").right


def test_the_held_out_exercises_of_the_demo_are_a_task() -> None:
    task = demo_task()
    assert task.categories == dict.fromkeys(("math", "logic", "code", "science", "creative"), 100)
    first = task.questions[0]
    assert prompt_of(first) == first.text
    assert grade(first, f"{first.answers[0]}\n").right and not grade(first, "I do not know").right
    assert task_named("demo") == task
