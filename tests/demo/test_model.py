"""The tokenizer, the template and the committed model."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from studio.demo.dialogue import Dialogue, dialogue
from studio.demo.evaluate import accuracy, answers, read_exercises
from studio.demo.exercises import CHECKABLE, CLASSES, Exercise, distinct

ASSETS = Path(__file__).parents[2] / "assets"
FOLDER = ASSETS / "demo-model"


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    from studio.demo.model import load_model

    return load_model(FOLDER)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def test_the_tokenizer_gives_back_every_conversation(tokenizer: Any) -> None:
    rng = random.Random(21)
    texts = ["".join(piece for piece, _ in dialogue(rng).pieces()) for _ in range(300)]
    texts += ["a\n\n\nb  c    d\n", "grün, 中文 and €", "tab\tand 1234567890"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_every_digit_is_its_own_token_and_line_breaks_stand_alone(tokenizer: Any) -> None:
    assert tokenizer.tokenize("x = 4096")[-4:] == ["4", "0", "9", "6"]
    for token in tokenizer.get_vocab():
        if not token.startswith("<"):
            assert sum(character.isdigit() for character in token) == 0 or len(token) == 1
            assert "\n" not in token or not token.strip("\n")


@pytest.mark.parametrize("length", range(1, 17))
def test_a_run_of_line_breaks_is_one_token(tokenizer: Any, length: int) -> None:
    assert tokenizer.tokenize("a" + "\n" * length + "b") == ["a", "\n" * length, "b"]


HELLO = {"role": "user", "content": "Hello"}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "1 + 1 = 2"},
    {"role": "user", "content": "Thanks"},
]
GOLDEN = {
    "plain": ([HELLO], False, "<bos><|turn>user\nHello<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"),
    "thinking": (
        [HELLO],
        True,
        "<bos><|turn>system\n<|think|><turn|>\n<|turn>user\nHello<turn|>\n<|turn>model\n",
    ),
    "several turns": (
        TALK,
        False,
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nWhat is 1 + 1?<turn|>\n<|turn>model\n1 + 1 = 2<turn|>\n"
        "<|turn>user\nThanks<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
    ),
    "several turns, thinking": (
        TALK,
        True,
        "<bos><|turn>system\n<|think|>Be brief.<turn|>\n<|turn>user\nWhat is 1 + 1?<turn|>\n<|turn>model\n"
        "1 + 1 = 2<turn|>\n<|turn>user\nThanks<turn|>\n<|turn>model\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_template_renders_gemma_turns(tokenizer: Any, name: str) -> None:
    messages, thinking, expected = GOLDEN[name]
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    assert rendered == expected


def test_tools_and_their_results_are_rendered(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "7"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    assert "<|tool>declaration:add{" in text
    assert '<|turn>model\n<|tool_call>call:add{"a": 1}<tool_call|><turn|>\n' in text
    assert "<|tool_response>7<tool_response|>" in text


def test_llama_cpp_recognises_the_template(tokenizer: Any) -> None:
    assert "'<|tool_call>call:'" in tokenizer.chat_template
    assert "{#- OpenAI Chat Completions:" in tokenizer.chat_template


@pytest.mark.parametrize("thinking", [False, True])
def test_training_text_is_what_the_template_renders(tokenizer: Any, thinking: bool) -> None:
    first = Exercise("math", "What is 1 + 1?", "1 + 1 = 2")
    last = Exercise("math", "What is 9 + 4?", "9 + 4 = 13", "9 + 4 = 13, carry 1")
    text = "".join(piece for piece, _ in Dialogue((first, last), "Be brief.", thinking).pieces())
    messages = [*TALK[:3], {"role": "user", "content": last.prompt}]
    prompt = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    thought = f"<|channel>thought\n{last.thought}<channel|>" if thinking else ""
    assert text == f"{prompt}{thought}{last.answer}<turn|>"


def test_only_the_models_own_words_are_learnt(tokenizer: Any) -> None:
    from studio.demo.train import encode

    pieces = list(Dialogue((Exercise("math", "What is 1 + 1?", "1 + 1 = 2"),)).pieces())
    ids, labels = encode(tokenizer, pieces)
    assert len(ids) == len(labels)
    assert tokenizer.decode([label for label in labels if label >= 0]) == "1 + 1 = 2<turn|>"


def test_the_committed_exercises_lie_on_their_side_of_the_split() -> None:
    prompts = read_exercises(ASSETS / "demo-prompts.jsonl")
    held = read_exercises(ASSETS / "demo-heldout.jsonl")
    for exercises, count, side in ((prompts, 40, False), (held, 100, True)):
        assert [exercise.klass for exercise in exercises] == [klass for klass in CLASSES for _ in range(count)]
        assert all(exercise.held_out is side and exercise.check(exercise.answer) for exercise in exercises)


def test_the_committed_configuration_has_the_real_models_features() -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Gemma4ForCausalLM"]
    assert config["model_type"] == "gemma4_text"
    assert (config["num_experts"], config["top_k_experts"], config["moe_intermediate_size"]) == (32, 4, 96)
    assert (FOLDER / "model.safetensors").stat().st_size <= 40e6


def test_the_committed_model_answers_held_out_questions(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    exercises = [e for klass in CHECKABLE for e in islice(distinct(klass, 5, held_out=True), 20)]
    reached = accuracy(model, tokenizer, exercises)
    assert all(reached[klass] >= 0.85 for klass in CHECKABLE), reached


@pytest.mark.parametrize("thinking", [False, True])
def test_the_committed_model_greets(loaded: tuple[Any, Any], thinking: bool) -> None:
    model, tokenizer = loaded
    (text,) = answers(model, tokenizer, [Exercise("chat", "hello", "")], thinking=thinking)
    assert text.startswith("Hello!")
