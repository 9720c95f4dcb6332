"""What a person types to run a published model, with the switches that its family and its chat template need."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CONTEXT = 16_384
"""Tokens; what fits beside a model on most machines. The model may take more."""


@dataclass(frozen=True)
class Advice:
    """How models of a family are run."""

    thinking_budget: int | None = None
    """Tokens of thought after which an answer is asked for; None where thoughts end by themselves."""
    sampling: Mapping[str, str] = field(default_factory=dict)
    """llama-server's switches and their values, where the authors recommend some."""
    attention: str | None = None
    """transformers' attention, where the family does not run with every one."""


ADVICE: Mapping[str, Advice] = {
    "gemma4": Advice(
        thinking_budget=8192,  # without one it can think for ever
        sampling={"--temp": "1.0", "--top-p": "0.95", "--top-k": "64", "--dry-multiplier": "0.5"},
        attention="sdpa",  # heads of 512 are too large for flash attention
    ),
}
"""Family → how it is run, where there is something to know."""

_THOUGHTS = ("enable_thinking", "<think>", "<|channel", "reasoning_content", "reasoning_effort")


def thinks(chat_template: str) -> bool:
    """Whether a model with this chat template (Jinja) writes thoughts before its answers."""
    return any(mark in chat_template for mark in _THOUGHTS)


def server_arguments(family: str | None, chat_template: str) -> list[str]:
    """llama-server's arguments beside the model."""
    advice = ADVICE.get(family or "", Advice())
    arguments = ["--jinja", "--ctx-size", str(CONTEXT)]
    if thinks(chat_template):
        arguments += ["--reasoning-format", "deepseek"]
        if advice.thinking_budget is not None:
            arguments += ["--reasoning-budget", str(advice.thinking_budget)]
    return arguments + [part for pair in advice.sampling.items() for part in pair]


def server_command(model: Sequence[str], family: str | None, chat_template: str) -> str:
    """A line that starts llama-server; `model` are the arguments that name the model."""
    return shlex.join(["llama-server", *model, *server_arguments(family, chat_template)])


def transformers_code(model: str, family: str | None, chat_template: str) -> str:
    """Python that loads the checkpoint called `model` (a folder, or OWNER/NAME on the Hub) and asks it something."""
    attention = ADVICE.get(family or "", Advice()).attention
    more = f", attn_implementation={attention!r}" if attention else ""
    thinking = "enable_thinking=False, " if "enable_thinking" in chat_template else ""
    return f"""from transformers import AutoModelForCausalLM, AutoTokenizer

name = {model!r}
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto"{more})
messages = [{{"role": "user", "content": "What is 2 + 2?"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, {thinking}return_dict=True, return_tensors="pt"
).to(model.device)
answer = model.generate(**inputs, max_new_tokens=256)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
