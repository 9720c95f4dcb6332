"""Named, locked configurations: all that decides how a model answers but the model itself.

Every model that is compared answers under the same one. `official-FAMILY` is what the publishers recommend; `greedy`
always takes the likeliest token, and is for small models and for seeing what a change does without chance in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from studio.checkpoints.gguf_header import read_header
from studio.errors import EspalierError, InputError
from studio.evaluate.tasks.asking import READING, WORDING
from studio.families import FAMILIES, shape_of_gguf
from studio.families.base import Sampling
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


_DRY = {"gemma4": 0.5}
"""Ours, against loops; no publisher recommends it."""
_OFFICIAL = {family.name: family for family in FAMILIES if family.sampling}
"""Each family's file names the publisher's page."""

CONFIGURATIONS = (GREEDY, *(f"{OFFICIAL}{family}" for family in _OFFICIAL))


def configuration_named(name: str, *, thinking: bool = False, seed: int = 0) -> Configuration:
    """The configuration called `name`, one of `CONFIGURATIONS`. Raises `InputError` for any other name."""
    if name not in CONFIGURATIONS:
        raise InputError(f"There is no configuration {name!r}.", f"There are {', '.join(CONFIGURATIONS)}.")
    if name == GREEDY:
        chosen, dry = Sampling(temperature=0.0, top_p=1.0, top_k=1), 0.0
    else:
        family = _OFFICIAL[name.removeprefix(OFFICIAL)]
        assert family.sampling
        chosen = (family.sampling_thinking if thinking else None) or family.sampling
        dry = _DRY.get(family.name, 0.0)
    budget = REASONING_BUDGET if thinking else 0
    return Configuration(
        name=f"{name}{THINKING if thinking else ''}",
        sampler=Sampler(**chosen._asdict(), seed=seed, max_tokens=ANSWER_TOKENS + budget, reasoning_budget=budget),
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
