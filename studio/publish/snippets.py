"""What a person types to run a published model, with the switches that its family and its chat template need."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.publish.sampling import GUARDS, sampling_of, thinks

CONTEXT = 16_384
"""Tokens; what fits beside a model on most machines. The model may take more."""


@dataclass(frozen=True)
class Advice:
    """How models of a family are run."""

    thinking_budget: int | None = None
    """Tokens of thought after which an answer is asked for; None where thoughts end by themselves."""
    attention: str | None = None
    """transformers' attention, where the family does not run with every one."""


ADVICE: Mapping[str, Advice] = {
    "gemma4": Advice(
        thinking_budget=8192,  # without one it can think for ever
        attention="sdpa",  # heads of 512 are too large for flash attention
    ),
}
"""Family → how it is run, where there is something to know."""

_SWITCHES = {
    "temperature": "--temp",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "min_p": "--min-p",
    "repeat_penalty": "--repeat-penalty",
    "repeat_last_n": "--repeat-last-n",
}
"""Name of a parameter → llama-server's switch."""


def server_arguments(family: str | None, chat_template: str, told: Mapping[str, Any] | None = None) -> list[str]:
    """llama-server's arguments beside the model; `told` is the header of its file, see `sampling_of`."""
    advice = ADVICE.get(family or "", Advice())
    arguments = ["--jinja", "--ctx-size", str(CONTEXT)]
    if thinks(chat_template):
        arguments += ["--reasoning-format", "deepseek"]
        if advice.thinking_budget is not None:
            arguments += ["--reasoning-budget", str(advice.thinking_budget)]
    for name, value in sampling_of(family, chat_template, told).items():
        arguments += [_SWITCHES[name], str(value)]
    if guard := GUARDS.get(family or ""):
        arguments += ["--dry-multiplier", str(guard.dry_multiplier)]
    return arguments


def server_command(
    model: Sequence[str], family: str | None, chat_template: str, told: Mapping[str, Any] | None = None
) -> str:
    """A line that starts llama-server; `model` are the arguments that name the model, for the rest see above."""
    return shlex.join(["llama-server", *model, *server_arguments(family, chat_template, told)])


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
