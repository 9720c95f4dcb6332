"""Named, locked configurations: all that decides how a model answers but the model itself.

Every model that is compared answers under the same one. `official-FAMILY` is what the publishers recommend; `greedy`
always takes the likeliest token, and is for small models and for seeing what a change does without chance in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from studio.checkpoints.gguf_header import read_header
from studio.errors import EspalierError, InputError
from studio.evaluate.tasks.asking import READING, WORDING
from studio.families import shape_of_gguf
from studio.serve.client import Sampler

OFFICIAL = "official-"
GREEDY = "greedy"
THINKING = "-thinking"

CONTEXT = 8192
"""Tokens of a prompt and its answer; the longest questions of MMLU-Pro have some 2,500."""
ANSWER_TOKENS = 4096
REASONING_BUDGET = 8192
"""Tokens of thought: without a budget some models think for ever."""
RETRY_TOKENS = 64
"""Of the continuation of an empty or truncated answer: a letter, a number, a short sentence."""


@dataclass(frozen=True)
class Configuration:
    """How every model of a comparison is asked."""

    name: str
    sampler: Sampler
    thinking: bool
    context: int
    """Tokens of one question with its thought and answer; a model that was made for less has less."""
    dry_multiplier: float = 0.0
    """llama.cpp's penalty for repeating sequences; 0 is off."""
    retry_tokens: int = RETRY_TOKENS

    @property
    def fields(self) -> dict[str, JsonValue]:
        """As a result tells it."""
        return {
            "name": self.name,
            "sampler": self.sampler.model_dump(mode="json"),
            "dry_multiplier": self.dry_multiplier,
            "thinking": self.thinking,
            "reasoning_budget": self.sampler.thought_tokens if self.thinking else 0,
            "reasoning_format": "deepseek",
            "context": self.context,
            "retry_tokens": self.retry_tokens,
            "wording": WORDING,
            "reading": READING,
        }


@dataclass(frozen=True)
class _Recommended:
    """What a publisher recommends, thinking or not."""

    answering: dict[str, Any]
    thinking: dict[str, Any]
    dry_multiplier: float = 0.0


_RECOMMENDED = {
    # The card's sampling; DRY keeps it from loops.
    "gemma4": _Recommended(
        {"temperature": 1.0, "top_p": 0.95, "top_k": 64}, {"temperature": 1.0, "top_p": 0.95, "top_k": 64}, 0.5
    ),
    # Best practices on the cards of Qwen3-30B-A3B and Qwen3-Next-80B-A3B.
    "qwen3_moe": _Recommended(
        {"temperature": 0.7, "top_p": 0.8, "top_k": 20}, {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    ),
    "qwen3_next": _Recommended(
        {"temperature": 0.7, "top_p": 0.8, "top_k": 20}, {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    ),
    # "temperature=1.0 and top_p=1.0", README of openai/gpt-oss.
    "gpt_oss": _Recommended(
        {"temperature": 1.0, "top_p": 1.0, "top_k": 0}, {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    ),
    # Card of MiniMax-M2.
    "minimax_m2": _Recommended(
        {"temperature": 1.0, "top_p": 0.95, "top_k": 40}, {"temperature": 1.0, "top_p": 0.95, "top_k": 40}
    ),
}

CONFIGURATIONS = (GREEDY, *(f"{OFFICIAL}{family}" for family in _RECOMMENDED))


def configuration_named(name: str, *, thinking: bool = False, seed: int = 0) -> Configuration:
    """The configuration called `name`, one of `CONFIGURATIONS`. Raises `InputError` for any other name."""
    family = name.removeprefix(OFFICIAL)
    if name not in CONFIGURATIONS:
        raise InputError(f"There is no configuration {name!r}.", f"There are {', '.join(CONFIGURATIONS)}.")
    if name == GREEDY:
        chosen: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 1}
        dry = 0.0
    else:
        recommended = _RECOMMENDED[family]
        chosen = recommended.thinking if thinking else recommended.answering
        dry = recommended.dry_multiplier
    budget = REASONING_BUDGET if thinking else 0
    return Configuration(
        name=f"{name}{THINKING if thinking else ''}",
        sampler=Sampler(**chosen, seed=seed, max_tokens=ANSWER_TOKENS + budget, reasoning_budget=budget),
        thinking=thinking,
        context=CONTEXT + budget,
        dry_multiplier=dry,
    )


def configuration_for(model: Path, *, thinking: bool = False, seed: int = 0) -> Configuration:
    """The official configuration of the family of the GGUF at `model`, or `greedy` where none is known."""
    try:
        name = f"{OFFICIAL}{shape_of_gguf(read_header(model).values).family}"
    except EspalierError:  # no mixture of experts, or none that is known; whether it is a model at all is asked later
        name = GREEDY
    return configuration_named(name if name in CONFIGURATIONS else GREEDY, thinking=thinking, seed=seed)
