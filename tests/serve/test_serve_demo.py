"""The trained demo model, converted and served: its template, its thoughts and its answers survive the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.contributions.prompts import Prompt, read_prompts
from studio.serve.client import Sampler
from studio.serve.server import ModelServer

ASSETS = Path(__file__).parents[2] / "assets"
GREEDY = Sampler(temperature=0, max_tokens=100)

pytestmark = pytest.mark.skipif(not (ASSETS / "demo-model" / "model.safetensors").exists(), reason="not trained yet")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("demo")
    model = convert_to_gguf(ASSETS / "demo-model", folder / "demo.gguf")
    server = ModelServer.start(model, log=folder / "log", threads=1)
    yield server
    server.stop()


def held_out(klass: str, count: int) -> list[Prompt]:
    return [prompt for prompt in read_prompts(ASSETS / "demo-heldout.jsonl") if prompt.klass == klass][:count]


def asked(server: ModelServer, prompt: Prompt, thinking: bool) -> tuple[str, str]:
    """(answer, thought)."""
    deltas = list(server.stream(prompt.messages, GREEDY, thinking=thinking))
    assert deltas[-1].finish == "stop"
    return "".join(delta.text for delta in deltas), "".join(delta.reasoning for delta in deltas)


@pytest.mark.parametrize("klass", ["code", "science"])
def test_most_questions_that_it_never_saw_are_answered_right(demo: ModelServer, klass: str) -> None:
    prompts = held_out(klass, 12)
    right = [prompt for prompt in prompts if asked(demo, prompt, thinking=False)[0].strip() == prompt.answer]
    assert len(right) > len(prompts) / 2


def test_as_many_tokens_are_counted_as_can_be_compared(demo: ModelServer) -> None:
    (prompt,) = held_out("math", 1)
    for sampler, finish in ((GREEDY, "stop"), (Sampler(temperature=0, max_tokens=2), "length")):
        deltas = list(demo.stream(prompt.messages, sampler, probabilities=True))
        timing = deltas[-1].timing
        assert deltas[-1].finish == finish and timing is not None
        assert timing.tokens == sum(len(delta.pieces) for delta in deltas)


def test_it_thinks_apart_from_its_answer_and_only_when_asked(demo: ModelServer) -> None:
    for prompt in held_out("math", 4):
        answer, thought = asked(demo, prompt, thinking=True)
        assert answer and thought and not any(mark in answer + thought for mark in ("<|", "|>", "thought\n"))
        assert asked(demo, prompt, thinking=False)[1] == ""
