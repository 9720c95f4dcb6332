"""The verb that shows prompts, and the options of analyze that choose them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.contributions.file import load
from studio.contributions.sources import BUILTIN_CLASSES

Run = Callable[..., Any]


def test_prompts_are_counted_without_a_model(verb: Run) -> None:
    told = verb("prompts", "--show", 0, "--json").json
    assert list(told["classes"]) == list(BUILTIN_CLASSES) and told["sources"] == ["builtin"]
    assert told["questions"] == sum(told["classes"].values()) and told["prompts"] == [] and "tokens" not in told
    out = verb("prompts", "builtin:math", "--per-class", 3, "--show", 2).out
    assert out.startswith("3 prompts: builtin:math (sha256 ") and out.count("── math-") == 2 and "[answer]" in out


def test_with_a_model_exactly_what_it_sees_is_shown(verb: Run, checkpoint: Path, prompts: Path) -> None:
    out = verb("prompts", prompts, "--model", checkpoint, "--show", 2, "--max-tokens", 30, "--continuation", 5).out
    assert "<bos><|turn>user\nWhat is 2 + 2?<turn|>\n<|turn>model" in out
    assert "[the model's own answer: at most 5 tokens]" in out and "[cut, and not seen: " in out
    told = verb("prompts", prompts, "--model", checkpoint, "--max-tokens", 30, "--json").json
    assert told["tokens"]["code"]["open"] == 1 and told["tokens"]["math"]["longest"] <= 30
    assert [prompt["id"] for prompt in told["prompts"]] == ["math-1", "code-3"]


def test_only_the_tokenizer_is_needed(verb: Run, checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    for file in checkpoint.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    outcome = verb("prompts", prompts, "--model", tmp_path, "--json")
    assert outcome.json["questions"] == 4 and outcome.err == ""


def test_analyze_takes_several_sources_and_says_which(
    verb: Run, checkpoint: Path, prompts: Path, tmp_path: Path
) -> None:
    (tmp_path / "prose.txt").write_text("It rained.\n\nThen it did not.\n")
    out = tmp_path / "c.safetensors"
    sources = ("--prompts", prompts, "--prompts", tmp_path / "prose.txt", "--class", "prose")
    told = verb("analyze", checkpoint, *sources, "--per-class", 1, "--continuation", 2, "--out", out, "--json").json
    assert told["classes"] == ["math", "code", "prose"] and told["questions"] == 3
    assert "; prompts: prompts.jsonl + prose.txt (sha256 " in load(out).source


def test_own_answers_replace_the_given_ones(verb: Run, checkpoint: Path, prompts: Path, tmp_path: Path) -> None:
    def made(answers: str) -> Any:
        out = tmp_path / f"{answers}.safetensors"
        arguments = ("--prompts", prompts, "--continuation", 2, "--answers", answers, "--out", out)
        assert verb("analyze", checkpoint, *arguments).code == 0
        return load(out)

    assert made("given").source.rpartition("sha256")[2] != made("own").source.rpartition("sha256")[2]
    assert "given" in verb("analyze", checkpoint, "--answers", "theirs", "--out", tmp_path / "x").mistake


def test_mistakes_are_one_sentence(verb: Run, tmp_path: Path) -> None:
    assert "KEY=COLUMN" in verb("prompts", "builtin", "--column", "question").mistake
    assert "'cooking'" in verb("prompts", "builtin:cooking").mistake
    assert "There is no prompt file" in verb("prompts", tmp_path / "none.jsonl").mistake
    assert "does not name a data set" in verb("prompts", "hf:somewhere").mistake
