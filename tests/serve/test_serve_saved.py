"""A conversation as a file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import EspalierError, InputError, ProcessError
from studio.serve.client import Delta, Likely, Sampler, Timing, Token
from studio.serve.conversation import Column, Conversation, Origin
from studio.serve.saved import conversation_from_json, conversation_json, conversation_markdown

TIMING = Timing(0.1, 3, 30.0, 9)
SAMPLER = Sampler(temperature=0.7, top_p=0.8, top_k=20, seed=11, max_tokens=64, repeat_penalty=1.1)
ORIGIN = Origin("pruned-Q4", "pruned-Q4.gguf", 12345, "Be brief.", True, SAMPLER)
TOKENS = (Token("hm", thought=True), Token("¹ ", id=7, top=(Likely(7, "¹ ", -0.25), Likely(9, "x", -1.5))))


def conversation() -> Conversation:
    columns = (Column("A", "@reference"), Column("B", "pruned-Q4", "Be brief."))
    said = Conversation(columns=columns).asked("One?\nTwo?", "AB").told("B", ORIGIN)
    said = said.heard("B", Delta("¹ ", "hm", timing=TIMING, tokens=TOKENS)).heard(
        "B", Delta(done=True, finish="length")
    )
    return said.heard("A", ProcessError("It died.", "Restart it.", "last line"))


def test_nothing_is_lost_on_the_way_to_a_file_and_back() -> None:
    back = conversation_from_json(conversation_json(conversation()), "file")
    error = back.turns[0].answers["A"].error
    assert isinstance(error, ProcessError) and (error.what, error.log_tail) == ("It died.", "last line")
    assert back.turns[0].answers["B"] == conversation().turns[0].answers["B"]
    assert back.columns == conversation().columns and back.turns[0].prompt == "One?\nTwo?"
    assert conversation_json(back) == conversation_json(conversation())


def test_the_file_says_what_was_asked_of_which_file_and_how() -> None:
    content = json.loads(conversation_json(conversation()))
    assert (content["format"], content["version"]) == ("espalier conversation", 1)
    answer = content["turns"][0]["answers"]["B"]
    origin = answer["origin"]
    assert (origin["model"], origin["file"], origin["file_bytes"]) == ("pruned-Q4", "pruned-Q4.gguf", 12345)
    assert origin["system"] == "Be brief." and origin["thinking"] and origin["sampler"]["seed"] == 11
    assert answer["tokens"][1]["top"] == [[7, "¹ ", -0.25], [9, "x", -1.5]]
    assert content["turns"][0]["answers"]["A"]["error"] == {
        "what": "It died.",
        "remedy": "Restart it.",
        "log": "last line",
    }


def test_an_error_that_is_no_servers_stays_one() -> None:
    said = Conversation(columns=(Column("A"),)).asked("Hi", "A").heard("A", InputError("Too long.", "Ask less."))
    error = conversation_from_json(conversation_json(said), "file").turns[0].answers["A"].error
    assert (
        isinstance(error, EspalierError) and not isinstance(error, ProcessError) and str(error) == "Too long. Ask less."
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format": "other", "version": 1}',
        '{"format": "espalier conversation", "version": 2, "turns": []}',
        '{"format": "espalier conversation", "version": 1, "turns": [{"prompt": 3}]}',
        '{"format": "espalier conversation", "version": 1, "turns": [{"prompt": "", "answers": {"A": {"error": 1}}}]}',
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match=r"chat\.json is no conversation"):
        conversation_from_json(text, "chat.json")


def test_markdown_has_questions_answers_and_how_they_came() -> None:
    text = conversation_markdown(conversation())
    assert "> One?\n> Two?" in text and "### pruned-Q4" in text and "¹" in text
    assert "Thought, 3 tokens" in text and "12,345 bytes" in text and "seed 11" in text and "cut off" in text
    assert "failed: It died. Restart it." in text and "repeat penalty 1.1" in text


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=3))
def test_any_text_survives(turns: list[tuple[str, str, str]]) -> None:
    said = Conversation(columns=(Column("A"),))
    for prompt, text, thought in turns:
        said = said.asked(prompt, "A").heard("A", Delta(text, thought, tokens=(Token(text),))).cut_off()
    assert conversation_from_json(conversation_json(said), "file") == said
