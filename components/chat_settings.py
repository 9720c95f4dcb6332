"""How the models of the chat are asked: the settings, their official values, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from pydantic import ValidationError

from studio.errors import InputError
from studio.families import Family
from studio.serve.client import Sampler

GREEDY, OFFICIAL, OWN = "greedy", "official", "own"

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Settings:
    """How is asked."""

    system: gr.Textbox
    thinking: gr.Checkbox
    budget: gr.Slider
    probabilities: gr.Checkbox
    how: gr.Dropdown
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Number
    min_p: gr.Slider
    repeat_penalty: gr.Slider
    seed: gr.Number
    max_tokens: gr.Slider

    @property
    def inputs(self) -> list[Any]:
        return list(vars(self).values())

    @property
    def sampling(self) -> list[Any]:
        """What a choice of `how` sets."""
        return [self.temperature, self.top_p, self.top_k, self.min_p, self.repeat_penalty]


@dataclass(frozen=True)
class Asked:
    """What the settings come to."""

    system: str
    thinking: bool
    probabilities: bool
    sampler: Sampler


def asked_with(settings: Settings, values: Mapping[Any, Any]) -> Asked:
    """The settings of a handler's values; `InputError` names what is out of range."""
    parts = {**vars(settings), "reasoning_budget": settings.budget}
    sampler = {name: values[parts[name]] for name in Sampler.model_fields}
    return Asked(
        system=values[settings.system] or "",
        thinking=bool(values[settings.thinking]),
        probabilities=bool(values[settings.probabilities]),
        sampler=_sampler_of(sampler, parts),
    )


def _sampler_of(values: Mapping[str, Any], parts: Mapping[str, Any]) -> Sampler:
    """The sampler of these values; `InputError` calls what is out of range as the page does."""
    try:
        return Sampler(**values)
    except ValidationError as error:
        wrong = [
            f"“{parts[str(one['loc'][0])].label}” cannot be {'empty' if one['input'] is None else one['input']}: "
            f"{one['msg'][:1].lower()}{one['msg'][1:]}"
            for one in error.errors()
        ]
        raise InputError(f"{'; '.join(wrong)}.", "Change it in the settings of the answers, and send again.") from None


def how_choices(family: Family | None) -> list[tuple[str, str]]:
    """The ways to sample that there are for a family."""
    official = []
    if family and family.sampling:
        official = [(f"Official for {family.name}", OFFICIAL)]
    return [("Greedy, for comparing", GREEDY), *official, ("Own", OWN)]


def sampling_values(how: str, family: Family | None, thinking: bool) -> dict[str, float]:
    """What `how` sets, by the names of `Sampler`; empty where it leaves everything as it is."""
    if how == GREEDY:
        return {"temperature": 0.0, "top_p": 0.95, "top_k": 64, "min_p": 0.0, "repeat_penalty": 1.0}
    sampling = family.sampling if family else None
    if how != OFFICIAL or family is None or sampling is None:
        return {}
    if thinking and family.sampling_thinking:
        sampling = family.sampling_thinking
    return {**sampling._asdict(), "repeat_penalty": 1.0}


def sampled(settings: Settings, how: str, family: Family | None, thinking: bool) -> Updates:
    """The settings after `how`, or whether to think, was chosen."""
    return {getattr(settings, name): value for name, value in sampling_values(how, family, thinking).items()}


def laid_out_settings() -> Settings:
    """Greedy by default: the likeliest token each time is what models can best be compared by."""
    with gr.Accordion("Settings of the answers", open=False, elem_id="chat-settings"):
        system = gr.Textbox(label="System prompt for all columns", lines=2, max_lines=6, elem_id="system")
        with gr.Row(elem_classes="halves"):
            how = gr.Dropdown(
                how_choices(None), value=GREEDY, label="Sampler", elem_id="sampler", min_width=240, filterable=False
            )
            max_tokens = gr.Slider(
                16, 4096, 512, step=16, label="Most tokens", info="Thought and answer.", min_width=240
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=120, elem_id="seed")
        with gr.Row(elem_classes="halves"):
            thinking = gr.Checkbox(
                False, label="Think before answering", info="Shown folded, apart from the answer.", min_width=240
            )
            budget = gr.Slider(
                0,
                4096,
                256,
                step=16,
                label="Most tokens of thought",
                info="After so many it has to answer.",
                min_width=240,
                elem_id="budget",
            )
            probabilities = gr.Checkbox(
                False,
                label="Compare token by token",
                info="Shows what else was likely at each token, for about a millisecond per token more.",
                min_width=240,
                elem_id="probabilities",
            )
        with gr.Row(elem_classes="halves"):
            temperature = gr.Slider(
                0, 2, 0.0, step=0.05, label="Temperature", info="0: always the likeliest token.", min_width=240
            )
            top_p = gr.Slider(0.05, 1, 0.95, step=0.01, label="Top-p", min_width=240)
        with gr.Row(elem_classes="halves"):
            top_k = gr.Number(64, label="Top-k", info="0: all tokens.", precision=0, minimum=0, min_width=120)
            min_p = gr.Slider(0, 1, 0.0, step=0.01, label="Min-p", min_width=160)
            repeat_penalty = gr.Slider(0.5, 2, 1.0, step=0.05, label="Repeat penalty", min_width=160)
    return Settings(
        system=system,
        thinking=thinking,
        budget=budget,
        probabilities=probabilities,
        how=how,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repeat_penalty=repeat_penalty,
        seed=seed,
        max_tokens=max_tokens,
    )
