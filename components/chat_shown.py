"""What the chat station shows of a conversation: new values of its parts, and of which models its columns consist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from components.chat_loading import foretold, loading_of, note_html
from components.chat_parts import (
    IDS,
    REFERENCE,
    VIRTUAL,
    ChatModel,
    ChatSources,
    ChatStation,
    ColumnParts,
    Updates,
    Values,
)
from components.chat_settings import OWN, how_choices
from components.chat_tokens import parting_html
from components.chat_view import (
    ANSWERS_HERE,
    NO_MODEL,
    NO_REFERENCE,
    chat_messages,
    heading_html,
    problem_html,
    stats_html,
)
from components.chat_votes import ballot_html, blind_heading_html
from components.markup import failure
from studio.errors import EspalierError, InputError
from studio.serve.blind import seen
from studio.serve.columns import Columns
from studio.serve.conversation import Column, Conversation


def now(station: ChatStation, values: Values) -> Conversation:
    """The conversation, with the models and system prompts that its columns show."""
    conversation: Conversation = values[station.conversation]
    columns = [
        replace(column, **_shown_in(station.columns[column.id], column, values)) for column in conversation.columns
    ]
    return replace(conversation, columns=tuple(columns))


def _shown_in(parts: ColumnParts, column: Column, values: Values) -> dict[str, str]:
    # A list that has not been filled yet has no value; what is in the conversation is on its way there.
    return {"model": values[parts.model] or column.model, "system": values[parts.system] or ""}


def with_a_column(conversation: Conversation, models: Sequence[str]) -> Conversation:
    """With one more column, if there is an id left: the first model that no column has, else the first one."""
    taken = {column.id for column in conversation.columns}
    chosen = {column.model for column in conversation.columns}
    id = next((one for one in IDS if one not in taken), None)
    if id is None:
        return conversation
    model = next((one for one in models if one not in chosen), next(iter(models), ""))
    columns = sorted((*conversation.columns, Column(id, model)), key=lambda column: column.id)
    return replace(conversation, columns=tuple(columns))


def known_of(models: Mapping[str, ChatModel]) -> tuple[str, tuple[str, ...]]:
    """(name of the reference, keys of all models)."""
    return models[REFERENCE].name if REFERENCE in models else "", tuple(models)


def newest_chosen(conversation: Conversation, before: Sequence[str], keys: Sequence[str]) -> Conversation:
    """With what has been built since in the last column; `before` and `keys` are the models then and now."""
    new = [key for key in keys if key not in before and key != VIRTUAL]
    if not new or not conversation.columns:
        return conversation
    *others, last = conversation.columns
    return replace(conversation, columns=(*others, replace(last, model=new[0])))


def of_columns(station: ChatStation, conversation: Conversation, columns: Sequence[str] = IDS) -> Updates:
    """The columns of these ids as they stand; where the conversation is blind, all of them as they may be seen."""
    updates: Updates = {station.conversation: conversation}
    shown = seen(conversation)
    if conversation.blind is not None:
        columns = [column.id for column in conversation.columns]
        updates[station.ballot] = ballot_html(conversation)
    for id in columns:
        parts, answer = station.columns[id], shown.answer(id)
        updates[parts.chat] = chat_messages(shown, id)
        if conversation.blind is not None:
            updates[parts.heading] = blind_heading_html(id, answer)
        updates[parts.stats] = stats_html(answer)
        if answer is not None and answer.over:
            updates[parts.stop] = gr.Button(visible=False)
        if problem := problem_html(answer):
            updates[parts.problem] = gr.HTML(problem, visible=True)
    return updates


def begun(station: ChatStation, conversation: Conversation, columns: Sequence[str]) -> Updates:
    """A question was asked: its columns, without the problems of the last one, and what can be pressed."""
    updates = of_columns(station, conversation, columns) | _buttons(station, conversation, busy=True)
    updates |= {station.problem: gr.HTML(visible=False), station.parting: "", station.routing: ""}
    for parts in station.columns.values():
        updates[parts.restart] = gr.Button(visible=False)
    for id in columns:
        updates[station.columns[id].problem] = gr.HTML(visible=False)
        updates[station.columns[id].stop] = gr.Button(visible=conversation.blind is None)
    return updates


def ended(station: ChatStation, conversation: Conversation) -> Updates:
    """Nothing more comes: all columns, where they part, and no question on its way. What can be pressed is `freed`."""
    updates = of_columns(station, conversation)
    shown = seen(conversation)
    for id, parts in station.columns.items():
        answer = shown.answer(id)
        updates[parts.stop] = gr.Button(visible=False)
        if answer is None or answer.error is None:
            updates[parts.problem] = gr.HTML(visible=False)
    return {**updates, station.running: None, station.asked: "", station.parting: parting_html(shown)}


def freed(station: ChatStation, conversation: Conversation) -> Updates:
    """What can be pressed when nothing comes; only after the event that showed the answers: until gradio is through
    with that, it drops, without a word, what is pressed to ask again."""
    updates = _buttons(station, conversation, busy=False)
    for id, parts in station.columns.items():
        answer = conversation.answer(id)
        can_restart = answer is not None and answer.can_restart and conversation.blind is None
        updates[parts.restart] = gr.Button(visible=can_restart)
    return updates


def refused(station: ChatStation, before: Conversation, error: EspalierError) -> Updates:
    """The question could not be asked."""
    return {**ended(station, before), station.problem: gr.HTML(failure(error), visible=True)}


def columns_shown(station: ChatStation, conversation: Conversation) -> Updates:
    """Which columns there are, their system prompts, and whether it is seen which models they have."""
    named = conversation.blind is None
    updates: Updates = {station.conversation: conversation, station.blind: not named}
    updates[station.ballot] = ballot_html(conversation)
    if named:
        updates[station.tally] = ""
    for id, parts in station.columns.items():
        column = conversation.column(id)
        updates[parts.model] = gr.Dropdown(visible=named)
        updates[parts.own] = gr.Accordion(visible=named)
        updates[parts.group] = gr.Column(visible=column is not None)
        updates[parts.system] = column.system if column else ""
    return updates


def settled(station: ChatStation, conversation: Conversation, sources: ChatSources, values: Values) -> Updates:
    """The models that can be chosen, those that are chosen, and what follows from them; raises what `sources` raise."""
    states = [values[state] for state in station.states]
    models = sources.models(*states)
    ways = how_choices(sources.family(*states))
    how = values[station.settings.how]
    columns = columns_of(station, conversation, sources, models, values)
    return {
        **models_shown(station, conversation, models, columns),
        **memory_shown(station, conversation, columns, models, values),
        station.settings.how: gr.Dropdown(ways, value=how if how in [way for _, way in ways] else OWN),
    }


def columns_of(
    station: ChatStation,
    conversation: Conversation,
    sources: ChatSources,
    models: Mapping[str, ChatModel],
    values: Values,
) -> Columns:
    """The columns whose models are known without any work, loaded as the page says now."""
    chosen = {column.id: models[column.model].known for column in conversation.columns if column.model in models}
    try:
        loading = loading_of(station.loading, values)
    except InputError:  # said when somebody asks
        loading = sources.pool.loading
    return Columns(sources.pool, {id: served for id, served in chosen.items() if served is not None}, loading)


def memory_shown(
    station: ChatStation,
    conversation: Conversation,
    columns: Columns,
    models: Mapping[str, ChatModel],
    values: Values,
) -> Updates:
    """Whether the models fit, and where each will run."""
    names = {column.id: models[column.model].label for column in conversation.columns if column.model in models}
    named = conversation.blind is None
    return {
        station.note: note_html(columns),
        **foretold(station.loading, columns, names, values, named=named),
    }


def models_shown(
    station: ChatStation, conversation: Conversation, models: Mapping[str, ChatModel], columns: Columns
) -> Updates:
    """The lists of models and what is chosen in them; `columns` knows the files."""
    choices = [(model.label, key) for key, model in models.items()]
    shown = seen(conversation)
    updates: Updates = {}
    for column in conversation.columns:
        parts, model = station.columns[column.id], models.get(column.model)
        served = columns.models.get(column.id)
        named = conversation.blind is None
        updates[parts.model] = gr.Dropdown(choices, value=column.model if model else None, visible=named)
        if named:
            role = (model.about or model.role) if model else ""
            updates[parts.heading] = heading_html(role, served.key if served else None)
        else:
            updates[parts.heading] = blind_heading_html(column.id, shown.answer(column.id))
        empty = ANSWERS_HERE if model else (NO_MODEL if models else NO_REFERENCE)
        messages: list[Any] = chat_messages(shown, column.id)  # gradio's type of a message leaves out lists of texts
        updates[parts.chat] = gr.Chatbot(messages, placeholder=empty)
    return updates


def _buttons(station: ChatStation, conversation: Conversation, *, busy: bool) -> Updates:
    free, named = not busy, conversation.blind is None
    several = len(conversation.columns) > 1
    said = free and bool(conversation.turns)
    updates: Updates = {
        station.send: gr.Button(interactive=free),
        station.stop: gr.Button(interactive=busy),
        station.same: gr.Button(interactive=said),
        station.other: gr.Button(interactive=said),
        station.add: gr.Button(interactive=free and len(conversation.columns) < len(IDS), visible=named),
        station.blind: gr.Checkbox(interactive=free),
    }
    for parts in station.columns.values():
        updates[parts.remove] = gr.Button(interactive=free, visible=several and free and named)
        updates[parts.model] = gr.Dropdown(interactive=free)
    return updates
