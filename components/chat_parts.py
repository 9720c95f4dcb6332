"""The parts of the chat station: what it is given, what it consists of, and how that is laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from studio.serve.pair import Side

from components.chat_view import NO_CANDIDATE, NO_REFERENCE, heading_html, stats_html
from components.markup import station_head
from studio.serve.conversation import Conversation
from studio.serve.pool import ServerPool

_LEAD = (
    "Ask the reference and what you built the same question. Both get the same sampler and seed, so that a difference "
    "between the answers comes from the pruning."
)

Updates = dict[Any, Any]


@dataclass(frozen=True)
class ChatModel:
    """A model that can be talked to. `path` is its GGUF; None while that has yet to be made."""

    name: str
    path: Path | None


@dataclass(frozen=True)
class ChatSources:
    """Where the station gets its models: callables, given the values of `states`, that may raise `EspalierError`."""

    pool: ServerPool
    reference: Callable[..., ChatModel | None]
    """The reference that is open."""
    prepare: Callable[..., Iterator[str | Path]]
    """What happens until the reference's GGUF is there, in words, and last its path."""
    candidates: Callable[..., Mapping[str, Path]]
    """What was built: name → GGUF, the newest first."""
    examples: Mapping[str, Sequence[str]]
    """Questions for each class."""
    states: Sequence[gr.State] = ()


@dataclass(frozen=True)
class SideParts:
    """One column."""

    heading: gr.HTML
    chat: gr.Chatbot
    stats: gr.HTML
    problem: gr.HTML
    restart: gr.Button


@dataclass(frozen=True)
class Settings:
    """How is asked; the order of the fields is the order in which handlers receive them."""

    system: gr.Textbox
    thinking: gr.Checkbox
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Number
    seed: gr.Number
    max_tokens: gr.Slider

    @property
    def inputs(self) -> list[Any]:
        return list(vars(self).values())


@dataclass(frozen=True)
class ChatStation:
    """The station's parts, and how the rest of the page keeps it up to date.

    When the page opens, after a build, and when another model is opened:
    `event(station.refresh, station.refresh_inputs, station.refresh_outputs)`. It keeps the chosen candidate while there
    is one, and clears the chat for another reference.
    """

    conversation: gr.State
    running: gr.State
    known_reference: gr.State
    candidate: gr.Dropdown
    note: gr.HTML
    problem: gr.HTML
    sides: Mapping[Side, SideParts]
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    clear: gr.Button
    chips: Mapping[str, gr.Button]
    settings: Settings
    refresh: Callable[..., Updates]
    refresh_inputs: list[Any]

    @property
    def refresh_outputs(self) -> list[Any]:
        headings = [parts.heading for parts in self.sides.values()]
        return [self.candidate, self.note, self.known_reference, *headings, *self.changing]

    @property
    def changing(self) -> list[Any]:
        """What changes while answers come."""
        columns = [part for parts in self.sides.values() for part in vars(parts).values()]
        return [self.conversation, self.running, self.problem, self.note, self.prompt, self.send, self.stop, *columns]


def laid_out(sources: ChatSources, refresh: Callable[..., Updates]) -> ChatStation:
    """Lay the station out, inside a `gr.Blocks`; `refresh` gets the station and the values of `refresh_inputs`."""
    with gr.Column(elem_id="talk", elem_classes="station"):
        gr.HTML(station_head(5, "Talk to both", _LEAD))
        with gr.Row(elem_classes="halves"):
            candidate = gr.Dropdown([], label="Candidate", elem_id="candidate", min_width=300)
            note = gr.HTML(elem_id="chat-note", min_width=300)
        problem = gr.HTML(visible=False)
        with gr.Row(elem_classes="halves chat-columns"):
            sides: dict[Side, SideParts] = {
                "reference": _column("reference", "Reference", NO_REFERENCE),
                "candidate": _column("candidate", "Candidate", NO_CANDIDATE),
            }
        prompt = gr.Textbox(
            label="Your question, to both",
            placeholder="Ask something, or choose an example",
            max_lines=8,
            elem_id="prompt",
        )
        with gr.Row(elem_classes="chips"):
            chips = {klass: gr.Button(klass.capitalize(), size="sm", min_width=60) for klass in sources.examples}
        with gr.Row(elem_classes="chat-buttons"):
            send = gr.Button("Send", variant="primary", min_width=90, elem_id="send")
            stop = gr.Button("Stop", variant="stop", interactive=False, min_width=90, elem_id="stop")
            clear = gr.Button("Clear", min_width=90, elem_id="clear")
        settings = _settings()
    known_reference, running = gr.State(""), gr.State(None)
    station = ChatStation(
        conversation=gr.State(Conversation()),
        running=running,
        known_reference=known_reference,
        candidate=candidate,
        note=note,
        problem=problem,
        sides=sides,
        prompt=prompt,
        send=send,
        stop=stop,
        clear=clear,
        chips=chips,
        settings=settings,
        refresh=lambda *values: refresh(station, *values),
        refresh_inputs=[candidate, known_reference, running, *sources.states],
    )
    return station


def _column(side: Side, role: str, empty: str) -> SideParts:
    with gr.Column(min_width=300):
        return SideParts(
            heading=gr.HTML(heading_html(role, "", None)),
            chat=gr.Chatbot(
                label=f"{role}'s answers",
                show_label=False,
                placeholder=empty,
                height=420,
                buttons=["copy"],
                feedback_options=None,
                elem_id=f"chat-{side}",
            ),
            stats=gr.HTML(stats_html(None), elem_id=f"stats-{side}"),
            problem=gr.HTML(visible=False),
            restart=gr.Button(f"Restart the {side}", size="sm", visible=False, elem_id=f"restart-{side}"),
        )


def _settings() -> Settings:
    """Greedy by default: the likeliest token each time is what two models can best be compared by."""
    with gr.Accordion("Settings of the answers", open=False, elem_id="chat-settings"):
        system = gr.Textbox(label="System prompt", lines=2, max_lines=6)
        thinking = gr.Checkbox(False, label="Think before answering", info="Shown folded, apart from the answer.")
        with gr.Row(elem_classes="halves"):
            temperature = gr.Slider(
                0,
                2,
                0.0,
                step=0.05,
                label="Temperature",
                info="0: always the likeliest token. Gemma's own: 1.0",
                min_width=240,
            )
            top_p = gr.Slider(0.05, 1, 0.95, step=0.01, label="Top-p", min_width=240)
            top_k = gr.Number(64, label="Top-k", precision=0, minimum=0, min_width=120)
        with gr.Row(elem_classes="halves"):
            max_tokens = gr.Slider(
                16, 4096, 512, step=16, label="Most tokens", info="Thought and answer.", min_width=240
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=120)
    return Settings(system, thinking, temperature, top_p, top_k, seed, max_tokens)
