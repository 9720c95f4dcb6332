"""Held-out accuracy per class by greedy generation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from studio.demo.exercises import CLASSES, Exercise, distinct

# Answers are short; what is longer than this many tokens is wrong anyway.
LONGEST_ANSWER = 72


def held_out(per_class: int, seed: int = 1, classes: Sequence[str] = CLASSES) -> list[Exercise]:
    """Held-out exercises, `per_class` of each class, no prompt twice."""
    return [exercise for klass in classes for exercise in islice(distinct(klass, seed, held_out=True), per_class)]


def read_exercises(path: Path) -> list[Exercise]:
    """Exercises from a JSON-lines file with `class`, `prompt` and `answer`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [Exercise(row["class"], row["prompt"], row["answer"]) for row in rows]


def write_exercises(path: Path, exercises: Iterable[Exercise]) -> None:
    """The counterpart of `read_exercises`."""
    rows = ({"class": e.klass, "prompt": e.prompt, "answer": e.answer} for e in exercises)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def prompt_text(exercise: Exercise, tokenizer: Any, thinking: bool = False) -> str:
    """The rendered conversation up to where the model has to speak."""
    messages = [{"role": "user", "content": exercise.prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    return str(text)


def generate_texts(model: Any, tokenizer: Any, prompts: Sequence[str], batch: int = 64) -> list[str]:
    """Greedy continuations of rendered prompts, up to the end of the turn, with special tokens left in."""
    import torch

    turn_end = tokenizer.convert_tokens_to_ids("<turn|>")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer(
            [prompts[i] for i in rows], add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=LONGEST_ANSWER,
                do_sample=False,
                eos_token_id=[1, turn_end],
                pad_token_id=0,
            )
        for i, ids in zip(rows, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((k for k, token in enumerate(ids) if token in (0, 1, turn_end)), len(ids))
            texts[i] = tokenizer.decode(ids[:end], skip_special_tokens=False)
    return texts


def answers(model: Any, tokenizer: Any, exercises: Sequence[Exercise], thinking: bool = False) -> list[str]:
    """The model's answers without thoughts, by greedy generation."""
    model.eval()
    texts = generate_texts(model, tokenizer, [prompt_text(exercise, tokenizer, thinking) for exercise in exercises])
    return [text.rpartition("<channel|>")[2] for text in texts]


def accuracy(model: Any, tokenizer: Any, exercises: Sequence[Exercise], thinking: bool = False) -> dict[str, float]:
    """Share of right answers per class, 0 to 1."""
    right: dict[str, list[bool]] = {}
    for exercise, text in zip(exercises, answers(model, tokenizer, exercises, thinking), strict=True):
        right.setdefault(exercise.klass, []).append(exercise.check(text))
    return {klass: sum(hits) / len(hits) for klass, hits in right.items()}
