"""Thought and answer are told apart however they are cut into pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.serve.thoughts import KNOWN, Detokenizer, Marks, Splitter, marks_of
from tests.contributions.tiny import tiny_tokenizer

GEMMA, THINK, HARMONY = KNOWN
TEMPLATE = Path(__file__).parents[2] / "assets" / "demo-model" / "chat_template.jinja"


def split(marks: Marks | None, pieces: list[str], prompt: str = "") -> tuple[str, str]:
    splitter = Splitter(marks, prompt)
    parts = [*(splitter.feed(piece) for piece in pieces), splitter.flush()]
    return "".join(text for text, _ in parts), "".join(thought for _, thought in parts)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted(place % (len(text) + 1) for place in places)
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@pytest.mark.parametrize(
    ("marks", "said", "prompt", "expected"),
    [
        (GEMMA, "<|channel>thought\n8, carry 1<channel|>13", "", ("13", "8, carry 1")),
        (GEMMA, "13 < 14", "<|channel>thought\n<channel|>", ("13 < 14", "")),
        (THINK, "<think>\nHm.\n</think>\n\nYes.", "", ("Yes.", "Hm.")),
        (THINK, "Hm. a < b\n\n</think>\n\nYes </b>", "user\nassistant\n<think>\n", ("Yes </b>", "Hm. a < b")),
        (THINK, "Yes.", "<think>\n\n</think>\n\n", ("Yes.", "")),
        (THINK, "Hm, and no end", "<think>", ("", "Hm, and no end")),
        (
            HARMONY,
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
            "<|start|>assistant",
            ("Yes.", "Hm."),
        ),
        (None, "<think>as it is</think>", "", ("<think>as it is</think>", "")),
    ],
)
@given(places=st.lists(st.integers(0, 200), max_size=12))
def test_pieces_do_not_matter(
    marks: Marks | None, said: str, prompt: str, expected: tuple[str, str], places: list[int]
) -> None:
    assert split(marks, cut(said, places), prompt) == expected


def test_marks_are_those_that_the_template_writes() -> None:
    assert marks_of(TEMPLATE.read_text(encoding="utf-8")) == GEMMA
    assert marks_of("{{ '<think>\\n\\n</think>\\n\\n' }}") == THINK
    assert marks_of("<|start|>assistant<|channel|>analysis<|message|>x<|end|>") == HARMONY
    assert marks_of("{{ bos_token }}{{ message.content }}") is None


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30))
def test_characters_come_whole(text: str) -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(tokenizer, None)
    pieces = [detokenizer.feed(token) for token in [*tokens, tokenizer.eos_token_id]]
    if "\ufffd" not in text:
        assert "".join(pieces) == tokenizer.decode(tokens)
        assert not any("\ufffd" in piece for piece in pieces)
