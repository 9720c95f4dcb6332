"""How the next token is chosen, told once for every program that runs a model: no two lines of a card disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.families import FAMILIES

Number = int | float

_THOUGHTS = ("enable_thinking", "<think>", "<|channel", "reasoning_content", "reasoning_effort")

_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
    "general.sampling.penalty_last_n": "repeat_last_n",
}
"""Keys in which llama.cpp's converter keeps what `generation_config.json` recommends → names as Ollama has them."""


@dataclass(frozen=True)
class Guard:
    """What keeps a family from repeating itself for ever: ours, no publisher recommends it."""

    dry_multiplier: float
    """For llama.cpp."""
    repeat_penalty: float
    """For Ollama, which has no DRY."""
    repeat_last_n: int


GUARDS: Mapping[str, Guard] = {
    "gemma4": Guard(dry_multiplier=0.5, repeat_penalty=1.15, repeat_last_n=256),  # below 1.1 tool calls repeat
}


def thinks(chat_template: str) -> bool:
    """Whether a model with this chat template (Jinja) writes thoughts before its answers."""
    return any(mark in chat_template for mark in _THOUGHTS)


def sampling_of(family: str | None, chat_template: str, told: Mapping[str, Any] | None = None) -> dict[str, Number]:
    """Name of a parameter → what is recommended: by the GGUF header `told`, else by the makers of the family.

    Empty where nobody recommends anything.
    """
    known = next((one for one in FAMILIES if one.name == family), None)
    chosen = known and ((known.sampling_thinking if thinks(chat_template) else None) or known.sampling)
    found: dict[str, Number] = {name: value for name, value in chosen._asdict().items() if value} if chosen else {}
    for key, name in _KEYS.items():
        value = (told or {}).get(key)
        if isinstance(value, int | float):
            found[name] = round(value, 6)
    return found
