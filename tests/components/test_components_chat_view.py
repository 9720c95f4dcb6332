"""What the chat station shows, of what was said."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from components.chat_view import (
    chat_messages,
    heading_html,
    next_example,
    problem_html,
    stats_html,
    stats_text,
    turn_of_message,
)
from studio.errors import InputError, ProcessError
from studio.serve.client import Delta, Timing
from studio.serve.columns import Status
from studio.serve.conversation import Answer, Conversation

TIMING = Timing(first_token_s=0.123, tokens=38, tokens_per_s=64.31, prompt_tokens=9)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (None, ""),
        (Answer(), "Waiting for the first token …"),
        (Answer(status="Loading the model …"), "Loading the model …"),
        (Answer("Hi", timing=TIMING), "first token 0.12 s · 64.3 tokens/s · 38 tokens"),
        (Answer("Hi", timing=TIMING, finish="stop"), "first token 0.12 s · 64.3 tokens/s · 38 tokens"),
        (Answer("Hi", timing=TIMING, finish="stopped"), "first token 0.12 s · 64.3 tokens/s · 38 tokens · stopped"),
        (
            Answer("Hi", timing=TIMING, finish="length"),
            "first token 0.12 s · 64.3 tokens/s · 38 tokens · cut off, no tokens left",
        ),
        (
            Answer(reasoning="Hm.", timing=TIMING, finish="stop"),
            "first token 0.12 s · 64.3 tokens/s · 38 tokens · ended without an answer",
        ),
        (Answer("H", timing=Timing(0.5, 1, 0.0, 9), finish="stop"), "first token 0.50 s · 1 token"),
        (Answer(finish="stopped"), "stopped before the first token"),
    ],
)
def test_the_line_under_an_answer(answer: Answer | None, line: str) -> None:
    assert stats_text(answer) == line


def text(said: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": said}]


def test_the_line_keeps_its_place_when_it_is_empty_and_is_silent_after_a_failure() -> None:
    assert "&nbsp;" in stats_html(None)
    assert "Waiting" not in stats_html(Answer(error=InputError("Too long.")))


def test_a_thought_is_folded_before_its_answer_and_open_while_it_lasts() -> None:
    conversation = Conversation().asked("Why?", ["reference"]).heard("reference", Delta(reasoning="Hm."))
    question, thought = chat_messages(conversation, "reference")
    assert question == {"role": "user", "content": text("Why?")}
    assert thought["content"] == text("Hm.") and thought["metadata"] == {"title": "Thought", "status": "pending"}
    conversation = conversation.heard("reference", Delta("So."))
    _, thought, answer = chat_messages(conversation, "reference")
    assert thought["metadata"]["status"] == "done" and answer == {"role": "assistant", "content": text("So.")}


def test_a_thought_that_nothing_follows_stays_open() -> None:
    conversation = Conversation().asked("Why?", ["reference"]).heard("reference", Delta(reasoning="Hm."))
    conversation = conversation.heard("reference", Delta(done=True, finish="stop"))
    assert chat_messages(conversation, "reference")[-1]["metadata"] == {"title": "Thought"}


def test_a_side_that_was_not_asked_shows_nothing() -> None:
    assert chat_messages(Conversation().asked("Hi", ["reference"]), "candidate") == []
    assert [message["role"] for message in chat_messages(Conversation().asked("Hi", ["reference"]), "reference")] == [
        "user"
    ]
    assert (
        chat_messages(Conversation().asked("Hi", ["reference"]).heard("reference", Status("Loading")), "reference")[1:]
        == []
    )


def test_a_failure_shows_what_to_do_and_the_log_and_nothing_of_it_is_markup() -> None:
    shown = problem_html(
        Answer(error=ProcessError("It <b>died</b>.", "Restart it.", "line 1\n<script>alert(1)</script>"))
    )
    assert (
        "It &lt;b&gt;died" in shown and "Restart it." in shown and "<script>" not in shown and "&lt;script&gt;" in shown
    )
    assert "<pre" not in problem_html(Answer(error=InputError("Too long.", "Clear the chat.")))
    assert problem_html(Answer("fine")) == problem_html(None) == ""


def test_a_heading_says_role_and_size(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(bytes(3 << 20))
    assert "a&lt;b · 3 MiB" in heading_html("a<b", tmp_path / "model.gguf")
    assert "·" not in heading_html("Reference", None) + heading_html("Reference", tmp_path / "gone")


def test_a_chip_pressed_again_shows_the_next_example() -> None:
    examples = ["one", "two"]
    shown = [""]
    for _ in range(3):
        shown.append(next_example(examples, shown[-1]))
    assert shown[1:] == ["one", "two", "one"]


def test_a_message_finds_its_turn_where_thoughts_and_missing_answers_shift_the_numbers() -> None:
    conversation = Conversation().asked("One?", ["A", "B"]).heard("A", Delta("1", "hm", timing=TIMING))
    conversation = conversation.asked("Two?", ["A"]).asked("Three?", ["A", "B"])
    assert [turn_of_message(conversation, "A", message) for message in range(5)] == [0, 0, 0, 1, 2]
    assert [turn_of_message(conversation, "B", message) for message in range(2)] == [0, 2]
    with pytest.raises(InputError, match="no longer there"):
        turn_of_message(conversation, "B", 2)
    assert chat_messages(conversation, "A")[1]["metadata"]["title"] == "Thought, 38 tokens"


def test_what_a_model_says_reaches_the_page_letter_by_letter() -> None:
    code = "Here:\n    if x:\n        y\n    z\n"
    conversation = Conversation().asked("Code?", ["A"]).heard("A", Delta(code))
    with gr.Blocks():
        shown = gr.Chatbot().postprocess(chat_messages(conversation, "A"))
    assert shown.root[-1].content[0].text == code
