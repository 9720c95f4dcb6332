"""The prompt file: what it may say, and what is said about a broken line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.prompts import Prompt, read_prompts
from studio.errors import FormatError, InputError

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def test_prompts_messages_and_answers_are_read(prompt_file):
    path = prompt_file(
        {"class": "math", "prompt": "2 + 2?", "answer": "4"},
        {"class": "logic", "messages": TURNS, "id": "why", "difficulty": 3},
        {"class": "math", "prompt": "3 + 3?", "answer": None, "id": 7},
    )
    assert read_prompts(path) == [
        Prompt("math-1", "math", ({"role": "user", "content": "2 + 2?"},), "4"),
        Prompt("why", "logic", tuple(TURNS), None),
        Prompt("7", "math", ({"role": "user", "content": "3 + 3?"},), None),
    ]


def test_a_final_turn_of_the_assistant_is_the_answer(prompt_file):
    path = prompt_file({"class": "a", "messages": [*TURNS, {"role": "assistant", "content": "Because."}]})
    (prompt,) = read_prompts(path)
    assert (prompt.messages, prompt.answer) == (tuple(TURNS), "Because.")


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"class": "a", "prompt": "x"}\r\n\r\n  \n{"class": "a", "prompt": "y"}')
    assert [prompt.id for prompt in read_prompts(path)] == ["a-1", "a-4"]


GOOD = json.dumps({"class": "a", "prompt": "x", "id": "first"})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"class": "a", "prompt": "x"', "this is not JSON"),
        ("prompt: x", "this is not JSON"),
        (b"\xff\xfe", "this is not JSON"),
        ("[" * 50_000, "this is not JSON"),
        ('["a", "x"]', "this is not a JSON object"),
        ('{"prompt": "x"}', '"class" is missing'),
        ('{"class": "", "prompt": "x"}', '"class" has to be a text that is not empty'),
        ('{"class": 3, "prompt": "x"}', '"class" has to be a text'),
        ('{"class": "a"}', 'exactly one of "prompt", "messages" and "text"'),
        ('{"class": "a", "prompt": "x", "messages": []}', 'exactly one of "prompt", "messages" and "text"'),
        ('{"class": "a", "prompt": " "}', '"prompt" has to be a text that is not empty'),
        ('{"class": "a", "prompt": "x", "answer": 4}', '"answer" has to be a text'),
        ('{"class": "a", "messages": []}', "a list that is not empty"),
        ('{"class": "a", "messages": ["x"]}', "entry 0, is not an object"),
        ('{"class": "a", "messages": [{"role": "user"}]}', 'entry 0: "content" has to be a text'),
        ('{"class": "a", "messages": [{"role": "assistant", "content": "x"}]}', "nothing before the assistant"),
        (
            '{"class": "a", "answer": "x", "messages": [{"role": "user", "content": "x"}, '
            '{"role": "assistant", "content": "x"}]}',
            'there is an "answer" too',
        ),
        ('{"class": "a", "prompt": "x", "id": []}', '"id" has to be a text or a number'),
        ('{"class": "a", "prompt": "x", "id": "first"}', "'first' is that of line 1 too"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path, line, problem):
    path = tmp_path / "p.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(FormatError, match=problem) as raised:
        read_prompts(path)
    assert raised.value.place == "line 3"
    assert str(path) in str(raised.value)


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "p.jsonl").write_text("\n\n")
    with pytest.raises(FormatError, match="not one prompt"):
        read_prompts(tmp_path / "p.jsonl")
    with pytest.raises(InputError, match="no prompt file"):
        read_prompts(tmp_path / "none.jsonl")


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_parse_or_raise_a_format_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "p.jsonl"
    path.write_bytes(data)
    with pytest.raises(FormatError):
        read_prompts(path)
