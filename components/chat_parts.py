"""The parts of the chat station: what it is given, what it consists of, and how that is laid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from components.chat_loading import LoadingPart, loading_part
from components.chat_settings import Asked, Settings, laid_out_settings
from components.chat_view import LATEX, heading_html, stats_html
from components.kept_values import KeptValues
from components.markup import station_head
from components.theme import script
from studio.evaluate.votes import VoteStore
from studio.families import Family
from studio.serve.columns import MOST_COLUMNS
from studio.serve.conversation import Column, Conversation
from studio.serve.pool import ServerPool
from studio.serve.served import GgufModel, Served

_LEAD = (
    "Ask the reference and what you built the same question, up to four side by side. All get the same sampler and "
    "seed, so that a difference between the answers comes from the pruning."
)

IDS = "ABCD"[:MOST_COLUMNS]
"""Ids of the columns, which is also what the page calls them."""
REFERENCE = "@reference"
"""Key of the reference among the models; no file can be called so."""
VIRTUAL = "@virtual"
"""Key of the model that the current map would leave."""

Updates = dict[Any, Any]
Values = Mapping[Any, Any]
"""What a handler is given: component → value."""


@dataclass(frozen=True)
class ChatModel:
    """A model that a column can talk to."""

    name: str
    role: str
    """"Reference", "Candidate" …"""
    path: Path | None
    """Its file, where that is known without any work."""
    prepare: Callable[[], Iterator[str | Served]]
    """What happens until it can be served, in words, and last the model; raises `EspalierError`."""
    about: str = ""
    """What stands above its answers; empty: its role and size."""
    served: Served | None = None
    """The model, where that is no file and known without any work."""
    listed: str = ""
    """How a list of models calls it; empty: by role and name."""

    @property
    def label(self) -> str:
        """How a list of models calls it."""
        return self.listed or f"{self.role}: {self.name}"

    @property
    def known(self) -> Served | None:
        """The model, where it is known without any work."""
        return self.served or (GgufModel(self.path) if self.path is not None else None)


@dataclass(frozen=True)
class Ballots:
    """Where the votes of blind comparisons go."""

    store: VoteStore
    digests: Path
    """The folder in which hashes of weights are remembered."""
    voter: Callable[..., str]
    """Who votes, given the values of the states."""


@dataclass(frozen=True)
class ChatSources:
    """Where the station gets its models and keeps what was said: callables, given the values of `states`, that may
    raise `EspalierError`."""

    pool: ServerPool
    models: Callable[..., Mapping[str, ChatModel]]
    """All that can be talked to by their keys: the reference (`REFERENCE`) if one is open, then what was built, the
    newest first, and last what the current map would leave (`VIRTUAL`)."""
    examples: Mapping[str, Sequence[str]]
    """Questions for each class."""
    family: Callable[..., Family | None]
    """The architecture of the reference."""
    kept: Callable[..., Conversation | None]
    """What was said to this reference before, by the same person."""
    keep: Callable[..., None]
    """Called with a conversation and the states: remembers it."""
    states: Sequence[gr.State] = ()
    values: Callable[..., KeptValues | None] = lambda kind: None
    """Where values of a kind are kept; None: nowhere."""
    owner: Callable[..., tuple[str, str]] = lambda *states: ("", "")
    """(user, reference) of the states: whose values they are."""
    ballots: Ballots | None = None
    """None: the station compares nothing blind."""
    bounded: Callable[[Asked], Asked] = lambda asked: asked
    """What may be asked of what is asked for; raises where it is one question too many."""


@dataclass(frozen=True)
class ColumnParts:
    """One column."""

    group: gr.Column
    model: gr.Dropdown
    heading: gr.HTML
    chat: gr.Chatbot
    stats: gr.HTML
    problem: gr.HTML
    stop: gr.Button
    restart: gr.Button
    remove: gr.Button
    own: gr.Accordion
    system: gr.Textbox


@dataclass(frozen=True)
class ChatStation:
    """The station's parts, and how the rest of the page keeps it up to date.

    When the page opens, after a build, and when another model is opened:
    `event(station.refresh, station.inputs, station.changing)`. It keeps what was chosen while that is possible, and
    brings back what was said to another reference.
    """

    conversation: gr.State
    running: gr.State
    known: gr.State
    """(name of the reference, keys of all models) as of the last refresh; None before the first."""
    note: gr.HTML
    problem: gr.HTML
    blind: gr.Checkbox
    ballot: gr.HTML
    tally: gr.HTML
    columns: Mapping[str, ColumnParts]
    prompt: gr.Textbox
    asked: gr.Textbox
    """The question that left its box, for the handler that asks it."""
    send: gr.Button
    stop: gr.Button
    same: gr.Button
    other: gr.Button
    clear: gr.Button
    add: gr.Button
    chips: Mapping[str, gr.Button]
    routing: gr.HTML
    parting: gr.HTML
    save_json: gr.Button
    save_markdown: gr.Button
    saved: gr.Textbox
    settings: Settings
    loading: LoadingPart
    states: Sequence[gr.State]
    refresh: Callable[[Values], Updates]

    @property
    def kept(self) -> dict[str, Any]:
        """Settings that are found again after a reload, by their names."""
        return {**vars(self.settings), **{part.elem_id: part for part in self.loading.inputs}}

    @property
    def inputs(self) -> set[Any]:
        """What every handler of the station is given."""
        chosen = [part for parts in self.columns.values() for part in (parts.model, parts.system)]
        own = [self.conversation, self.running, self.known, self.asked, self.blind]
        return {*own, *chosen, *self.settings.inputs, *self.loading.inputs, *self.states}

    def states_in(self, values: Values) -> list[Any]:
        """What `sources` want to know of whose page it is."""
        return [values[state] for state in self.states]

    @property
    def changing(self) -> list[Any]:
        """What handlers of the station change."""
        columns = [part for parts in self.columns.values() for part in vars(parts).values()]
        buttons = [self.send, self.stop, self.same, self.other, self.add]
        own = [self.conversation, self.running, self.known, self.problem, self.note, self.asked, self.parting]
        blind = [self.blind, self.ballot, self.tally]
        return [
            *own,
            *blind,
            self.routing,
            *buttons,
            *columns,
            *self.settings.inputs,
            *self.loading.inputs,
            *self.loading.changing,
        ]


def first_columns(models: Mapping[str, ChatModel]) -> tuple[Column, ...]:
    """The reference and the newest of what was built, or as much as there is."""
    keys = [*(key for key in models if key != VIRTUAL), "", ""]
    return Column(IDS[0], keys[0]), Column(IDS[1], keys[1])


def laid_out(sources: ChatSources, refresh: Callable[[ChatStation, Values], Updates]) -> ChatStation:
    """Lay the station out, inside a `gr.Blocks`; `refresh` gets the station and the values of its inputs."""
    with gr.Column(elem_id="talk", elem_classes="station"):
        gr.HTML(station_head(5, "Talk to it", _LEAD))
        note = gr.HTML(elem_id="chat-note")
        loading = loading_part()
        problem = gr.HTML(visible=False)
        blind = gr.Checkbox(
            False,
            label="Blind",
            info="Two models without names: vote, then see who was who. Begins a new chat.",
            visible=sources.ballots is not None,
            elem_id="blind",
        )
        with gr.Row(elem_classes="chat-columns"):
            columns = {id: _column(id) for id in IDS}
        ballot = gr.HTML(elem_id="ballot", apply_default_css=False, js_on_load=script("ballot.js"))
        prompt = gr.Textbox(
            label="Your question, to all columns",
            placeholder="Ask something, or choose an example",
            max_lines=8,
            elem_id="prompt",
        )
        asked = gr.Textbox(visible="hidden", elem_id="asked")
        with gr.Row(elem_classes="chips"):
            chips = {klass: gr.Button(klass.capitalize(), size="sm", min_width=60) for klass in sources.examples}
        with gr.Row(elem_classes="chat-buttons"):
            send = gr.Button("Send", variant="primary", min_width=90, elem_id="send")
            stop = gr.Button("Stop all", variant="stop", interactive=False, min_width=90, elem_id="stop")
            same = gr.Button("Ask again, same seed", min_width=90, elem_id="again-same")
            other = gr.Button("Ask again, next seed", min_width=90, elem_id="again-other")
            add = gr.Button("Add a column", min_width=90, elem_id="add-column")
            clear = gr.Button("Clear", min_width=90, elem_id="clear")
        tally = gr.HTML(elem_id="tally", apply_default_css=False)
        routing = gr.HTML(elem_id="routing", apply_default_css=False)
        parting = gr.HTML(elem_id="parting", apply_default_css=False, js_on_load=script("parting.js"))
        settings = laid_out_settings()
        with gr.Row(elem_classes="chat-buttons"):
            save_json = gr.Button("Save as JSON", size="sm", min_width=60, elem_id="save-json")
            save_markdown = gr.Button("Save as Markdown", size="sm", min_width=60, elem_id="save-markdown")
        saved = gr.Textbox(visible="hidden", elem_id="chat-saved")
    station = ChatStation(
        conversation=gr.State(Conversation(columns=first_columns({}))),
        running=gr.State(None),
        known=gr.State(None),
        note=note,
        problem=problem,
        blind=blind,
        ballot=ballot,
        tally=tally,
        columns=columns,
        prompt=prompt,
        asked=asked,
        send=send,
        stop=stop,
        same=same,
        other=other,
        clear=clear,
        add=add,
        chips=chips,
        routing=routing,
        parting=parting,
        save_json=save_json,
        save_markdown=save_markdown,
        saved=saved,
        settings=settings,
        loading=loading,
        states=sources.states,
        refresh=lambda values: refresh(station, values),
    )
    return station


def _column(id: str) -> ColumnParts:
    with gr.Column(min_width=240, visible=id in IDS[:2], elem_id=f"column-{id}", elem_classes="chat-column") as group:
        model = gr.Dropdown([], label=id, elem_id=f"model-{id}", min_width=160)
        heading = gr.HTML(heading_html("", None))
        chat = gr.Chatbot(
            label=f"Answers of {id}",
            show_label=False,
            height=420,
            buttons=["copy"],
            editable="user",
            feedback_options=None,
            latex_delimiters=LATEX,
            elem_id=f"chat-{id}",
            elem_classes="chat-answers",
        )
        with gr.Row(elem_classes="chat-line"):
            stats = gr.HTML(stats_html(None), elem_id=f"stats-{id}")
            stop = gr.Button("Stop", size="sm", visible=False, min_width=50, elem_id=f"stop-{id}")
            remove = gr.Button("Remove", size="sm", min_width=50, elem_id=f"remove-{id}")
        problem = gr.HTML(visible=False, elem_id=f"problem-{id}")
        restart = gr.Button(f"Restart {id}", size="sm", visible=False, elem_id=f"restart-{id}")
        with gr.Accordion("Its own system prompt", open=False, elem_classes="chat-own") as own:
            system = gr.Textbox(
                show_label=False,
                container=False,
                label=f"System prompt of {id}",
                placeholder="Empty: the one for all, in the settings",
                lines=2,
                max_lines=6,
                elem_id=f"system-{id}",
            )
    return ColumnParts(
        group=group,
        model=model,
        heading=heading,
        chat=chat,
        stats=stats,
        problem=problem,
        stop=stop,
        restart=restart,
        remove=remove,
        own=own,
        system=system,
    )
