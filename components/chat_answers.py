"""One question of the chat: from the press of a button to the last word of its answers, and the page meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import gradio as gr

from components.chat_kept import ROUTING, keep_value
from components.chat_loading import loading_of
from components.chat_parts import ChatModel, ChatSources, ChatStation, Updates, Values
from components.chat_routing import Routed, routing_html
from components.chat_settings import Asked, asked_with
from components.chat_shown import begun, ended, memory_shown, models_shown, of_columns, refused
from components.chat_view import STOPPED_WAITING
from studio.errors import Cancelled, EspalierError, InputError
from studio.serve.blind import seated
from studio.serve.columns import Columns, ColumnsStream, Event, Status
from studio.serve.conversation import Conversation, Origin
from studio.serve.served import Request, Served
from studio.serve.turns import ANSWERS, Turn

UPDATE_S = 1 / 15
"""Between two updates of the page: smooth to the eye, and cheap enough to leave the processor to the models."""
SLOWER_FROM = 2000
"""Characters of an answer from which updates grow rarer: the browser parses all of it again each time."""
HEARTBEAT = 15
"""Updates without news after which the browser is asked whether it still listens."""
WAIT_S = 0.3
"""Between two looks whether it is a question's turn."""
KEEP_S = 3.0
"""Between two savings of answers that are coming, so that a reload in the middle finds most of them."""


@dataclass
class Waiting:
    """What can be stopped before any answer comes."""

    stopped: bool = False

    def stop(self, column: str | None = None) -> None:
        self.stopped = self.stopped or column is None


@dataclass
class Running:
    """Answers that are coming in a tab, and what another handler of that tab wants of them."""

    stream: ColumnsStream | Waiting
    instead: Conversation | None = None
    forgotten: bool = False
    """Whether what they belong to is no longer to be remembered, because another handler remembered something else."""
    over: bool = False

    def give_way(self, instead: Conversation, *, forget: bool) -> bool:
        """End the answers and have `instead` shown; False when it is too late for the handler that shows them."""
        self.instead, self.forgotten = instead, forget
        self.stream.stop()
        return not self.over


@dataclass(frozen=True)
class Question:
    """What a handler was given, and what is to be asked."""

    before: Conversation
    """What stands when the question turns out not to be askable."""
    conversation: Conversation
    columns: Sequence[str]
    values: Values


def answered(
    sources: ChatSources, station: ChatStation, question: Question, *, prompt: str = "", restart: bool = False
) -> Iterator[Updates]:
    """The page while a question is asked and answered, up to its end or to why it cannot be asked.

    `prompt` is what left its box: it goes back there when it cannot be asked.
    """
    question = replace(question, conversation=seated(question.conversation))
    running = Running(Waiting())
    yield {**begun(station, question.conversation, question.columns), station.running: running}
    try:
        with ANSWERS.one() as turn:
            yield from _converse(sources, station, question, running, turn, restart=restart)
    except EspalierError as error:
        yield {**refused(station, question.before, error), station.asked: prompt}
    finally:
        running.stream.stop()  # also when the tab was closed in the middle
        running.over = True


def _converse(
    sources: ChatSources, station: ChatStation, question: Question, running: Running, turn: Turn, *, restart: bool
) -> Iterator[Updates]:
    """The answers to a question as they come, from its `turn` on. Raises `EspalierError` when it cannot be asked."""
    asked = sources.bounded(asked_with(station.settings, question.values))
    loading = loading_of(station.loading, question.values)
    states = station.states_in(question.values)
    if not question.columns:
        raise InputError("No column has a model.", "Open one in the first station, or choose one above.")
    waiting = running.stream
    assert isinstance(waiting, Waiting), "nothing is streamed before"
    models = sources.models(*states)
    conversation = question.conversation
    served: dict[str, Served] = {}
    in_line = _in_line(turn, conversation, question.columns)
    for step in chain(in_line, _prepared(sources, models, conversation, question.columns, served)):
        conversation = step
        if waiting.stopped and running.instead is not None:
            yield ended(station, running.instead)
            return
        if waiting.stopped:
            raise Cancelled(STOPPED_WAITING)
        yield of_columns(station, conversation, question.columns)
    columns = Columns(sources.pool, served, loading)
    # Before anything is loaded: how they will answer, and which file each of them is.
    memory = memory_shown(station, conversation, columns, models, question.values)
    yield {**memory, **models_shown(station, conversation, models, columns)}
    conversation, requests = _requests(sources, conversation, models, served, asked)
    if restart:
        for id in served:
            columns.restart(id)
    running.stream = columns.stream(requests)
    if waiting.stopped:  # a moment ago
        running.stream.stop()
    routed = Routed(served)

    def keep(so_far: Conversation) -> None:
        if not running.forgotten:
            remember(sources, states, so_far)
            keep_value(sources, ROUTING, states, routed.to_json(so_far))

    try:
        for so_far, heard in _heard(running.stream, conversation, keep, routed.hear):
            conversation = so_far
            updates = of_columns(station, conversation, heard) if heard else gr.skip()
            if conversation.blind is None and (news := routed.news()):
                updates = {**updates, station.routing: routing_html(news)}
            yield updates
        if running.instead is None:
            yield ended(station, conversation)
        if running.instead is not None:  # also when that was asked for a moment ago
            yield ended(station, running.instead)
    finally:
        running.stream.stop()
        running.over = True
        keep(conversation)


def _requests(
    sources: ChatSources,
    conversation: Conversation,
    models: Mapping[str, ChatModel],
    served: Mapping[str, Served],
    asked: Asked,
) -> tuple[Conversation, dict[str, Request]]:
    """What each column is asked, and the conversation with where its answers come from."""
    requests = {}
    for column in conversation.columns:
        if (model := served.get(column.id)) is None:
            continue
        system = column.system if column.system.strip() else asked.system
        messages = conversation.messages(column.id, system)
        requests[column.id] = Request(messages, asked.sampler, asked.thinking, asked.probabilities)
        size = model.key.stat().st_size if model.key.is_file() else 0
        ballots = sources.ballots if conversation.blind is not None else None
        digest = model.digest(ballots.digests) if ballots else ""
        origin = Origin(models[column.model].name, model.name, size, system, asked.thinking, asked.sampler, digest)
        conversation = conversation.told(column.id, origin)
    return conversation, requests


def _in_line(turn: Turn, conversation: Conversation, columns: Sequence[str]) -> Iterator[Conversation]:
    """The conversation now and then, until it is its turn."""
    while before := turn.before(WAIT_S):
        others = "the next" if before == 1 else f"number {before} in line"
        said = f"{ANSWERS.full}, as many as may be; yours is {others}."
        for id in columns:
            conversation = conversation.heard(id, Status(said))
        yield conversation


def _prepared(
    sources: ChatSources,
    models: Mapping[str, ChatModel],
    conversation: Conversation,
    columns: Sequence[str],
    served: dict[str, Served],
) -> Iterator[Conversation]:
    """Get the models of `columns` ready, into `served`; the conversation each time something was heard of that.

    A model that cannot be had is the error of its columns. For a vote weights are known by their hash, which takes a
    while for a large file, once.
    """
    waiting: dict[str, list[str]] = {}
    for id in columns:
        column = conversation.column(id)
        waiting.setdefault(column.model if column else "", []).append(id)
    for key, ids in waiting.items():
        try:
            if key not in models:
                raise InputError(f"{key} is no longer there.", "Choose another model, or build it again.")
            for step in models[key].prepare():
                if isinstance(step, str):
                    for id in ids:
                        conversation = conversation.heard(id, Status(step))
                    yield conversation
                else:
                    if conversation.blind is not None and sources.ballots is not None:
                        step.digest(sources.ballots.digests)
                        yield conversation
                    served |= dict.fromkeys(ids, step)
        except Cancelled:
            raise
        except EspalierError as error:
            for id in ids:
                conversation = conversation.heard(id, error)
            yield conversation


def _heard(
    stream: ColumnsStream,
    conversation: Conversation,
    keep: Callable[[Conversation], None],
    also: Callable[[str, Event], None],
) -> Iterator[tuple[Conversation, list[str]]]:
    """(conversation, columns in which something happened) until all answers are over; now and then without news.

    `also` is told every event.
    """
    silence, kept_at = 0, 0.0
    while not stream.finished:
        events = stream.collect(UPDATE_S * max(1.0, _longest(conversation) / SLOWER_FROM))
        silence = 0 if events else silence + 1
        for column, event in events:
            conversation = conversation.heard(column, event)
            also(column, event)
        if time.monotonic() - kept_at > KEEP_S:
            keep(conversation)
            kept_at = time.monotonic()
        if events or silence % HEARTBEAT == 0:
            yield conversation, sorted({column for column, _ in events})


def _longest(conversation: Conversation) -> int:
    """Characters of the longest of the answers that are coming."""
    answers = conversation.turns[-1].answers.values() if conversation.turns else ()
    return max((len(answer.text) + len(answer.reasoning) for answer in answers), default=0)


def remember(sources: ChatSources, states: Sequence[Any], conversation: Conversation) -> None:
    """Keep `conversation` for a reload, what is still coming as if it were cut off."""
    sources.keep(conversation.cut_off(), *states)
