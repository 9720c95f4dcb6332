"""Station 5, Talk: the reference and a candidate side by side, one prompt, both answers streaming."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from studio.serve.pair import SIDES, Pair, PairStream, Side, Status

from components.chat_parts import ChatModel, ChatSources, ChatStation, Settings, Updates, laid_out
from components.chat_view import (
    ANSWERS_HERE,
    NO_CANDIDATE,
    NO_REFERENCE,
    STOPPED_WAITING,
    chat_messages,
    heading_html,
    next_example,
    problem_html,
    stats_html,
)
from components.markup import failure, notice
from studio.errors import Cancelled, EspalierError, InputError
from studio.serve.client import Sampler, sampler_of
from studio.serve.conversation import Conversation

UPDATE_S = 1 / 15
"""Between two updates of the page: smooth to the eye, and cheap enough to leave the processor to the models."""
SLOWER_FROM = 2000
"""Characters of an answer from which updates grow rarer: the browser parses all of it again each time."""
HEARTBEAT = 15
"""Updates without news after which the browser is asked whether it still listens."""
SESSIONS = 16
"""Tabs that chat at once; their questions queue for the slots of the model servers."""

__all__ = ["ChatModel", "ChatSources", "ChatStation", "chat_station"]


def chat_station(sources: ChatSources) -> ChatStation:
    """Lay the station out and wire it, inside a `gr.Blocks`."""
    station = laid_out(sources, partial(_refreshed, sources))
    _wire(sources, station)
    return station


def asked_with(settings: Sequence[Any]) -> tuple[str, bool, Sampler]:
    """(system prompt, thinking, sampler) of the values of `Settings`; `InputError` names what is out of range."""
    values = dict(zip((one.name for one in fields(Settings)), settings, strict=True))
    return values.pop("system") or "", bool(values.pop("thinking")), sampler_of(**values)


def _wire(sources: ChatSources, station: ChatStation) -> None:
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    streaming: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": SESSIONS,
        "concurrency_id": "chat",
    }
    inputs = [station.conversation, station.candidate, *station.settings.inputs, *sources.states]
    gr.on(
        [station.send.click, station.prompt.submit],
        partial(_send, sources, station),
        [station.prompt, *inputs],
        station.changing,
        **streaming,
    )
    for side, parts in station.sides.items():
        parts.restart.click(partial(_restart, sources, station, side), inputs, station.changing, **streaming)
    station.stop.click(_stop, station.running, None, **quick)
    bins = [parts.chat.clear for parts in station.sides.values()]  # gradio's own button on a chatbot
    for event in (station.clear.click, station.candidate.input, *bins):
        event(partial(_clear, station), station.running, station.changing, **quick).then(
            station.refresh, station.refresh_inputs, station.refresh_outputs, **quick
        )
    for klass, chip in station.chips.items():
        chip.click(partial(next_example, list(sources.examples[klass])), station.prompt, station.prompt, **quick)


@dataclass
class _Waiting:
    """What can be stopped before any answer comes."""

    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True


@dataclass
class _Running:
    """Answers that are coming in a tab, and what another handler of that tab wants of them."""

    stream: PairStream | _Waiting
    cleared: bool = False
    over: bool = False

    def clear(self) -> bool:
        """End the answers and have the chat emptied; False when it is too late for the handler that shows them."""
        self.cleared = True
        self.stream.stop()
        return not self.over


@dataclass(frozen=True)
class _Question:
    """What a handler was given, and what is to be asked."""

    before: Conversation
    """What stands when the question turns out not to be askable."""
    conversation: Conversation
    sides: Sequence[Side]
    candidate: str | None
    settings: Sequence[Any]
    states: Sequence[Any]


def _send(
    sources: ChatSources, station: ChatStation, prompt: str, before: Conversation, candidate: str | None, *values: Any
) -> Iterator[Updates]:
    """Ask both sides; a question that cannot be asked goes back into its box."""
    if not prompt.strip():
        yield gr.skip()
        return
    sides: list[Side] = ["reference", "candidate"] if candidate else ["reference"]
    count = len(station.settings.inputs)
    question = _Question(before, before.asked(prompt.strip(), sides), sides, candidate, values[:count], values[count:])
    yield {station.prompt: "", **_begun(station, question.conversation, sides)}
    try:
        yield from _converse(sources, station, question)
    except EspalierError as error:
        yield {station.prompt: prompt, **_refused(station, question, error)}


def _restart(
    sources: ChatSources, station: ChatStation, side: Side, before: Conversation, candidate: str | None, *values: Any
) -> Iterator[Updates]:
    """Start the server of `side` anew and ask it the last question again."""
    count = len(station.settings.inputs)
    question = _Question(before, before.asked_again(side), [side], candidate, values[:count], values[count:])
    yield _begun(station, question.conversation, [side])
    try:
        path = next(step for step in sources.prepare(*question.states) if isinstance(step, Path))
        _pair(sources, question, path).restart(side)
        yield from _converse(sources, station, question)
    except EspalierError as error:
        yield _refused(station, question, error)


def _converse(sources: ChatSources, station: ChatStation, question: _Question) -> Iterator[Updates]:
    """The answers to a question as they come. Raises `EspalierError` when it cannot be asked."""
    system, thinking, sampler = asked_with(question.settings)
    conversation = question.conversation
    reference = sources.reference(*question.states)
    waiting = _Waiting()
    yield {station.running: _Running(waiting)}
    path: Path | None = None
    for step in sources.prepare(*question.states):
        if waiting.stopped:
            raise Cancelled(STOPPED_WAITING)
        if isinstance(step, Path):
            path = step
            break
        for side in question.sides:
            conversation = conversation.heard(side, Status(step))
        yield _columns(station, conversation, question.sides)
    pair = _pair(sources, question, path)
    # Before anything is loaded: how they will answer, and which file the reference is.
    heading = heading_html("Reference", reference.name if reference else "", pair.paths["reference"])
    yield {station.note: note_html(pair), station.sides["reference"].heading: heading}
    messages = {side: conversation.messages(side, system) for side in question.sides}
    stream = pair.stream(messages, sampler, thinking=thinking)
    running = _Running(stream)
    try:
        yield {station.running: running}
        silence = 0
        while not stream.finished:
            events = stream.collect(UPDATE_S * max(1.0, _longest(conversation) / SLOWER_FROM))
            silence = 0 if events else silence + 1
            for side, event in events:
                conversation = conversation.heard(side, event)
            if events:
                yield _columns(station, conversation, sorted({side for side, _ in events}))
            elif silence % HEARTBEAT == 0:
                yield gr.skip()
        if not running.cleared:
            yield _ended(station, conversation)
        if running.cleared:
            yield _ended(station, Conversation())
    finally:
        stream.stop()  # also when the tab was closed in the middle
        running.over = True


def _longest(conversation: Conversation) -> int:
    """Characters of the longer of the answers that are coming."""
    answers = [conversation.answer(side) for side in SIDES]
    return max(len(answer.text) + len(answer.reasoning) if answer else 0 for answer in answers)


def _pair(sources: ChatSources, question: _Question, reference: Path | None) -> Pair:
    """The models that a question is for; raises what `sources` raise."""
    candidates = sources.candidates(*question.states)
    if question.candidate and question.candidate not in candidates:
        raise InputError(f"{question.candidate} is no longer there.", "Choose another candidate, or build it again.")
    return Pair(sources.pool, reference, candidates[question.candidate] if question.candidate else None)


def note_html(pair: Pair) -> str:
    """How the two will answer: at the same time or in turn."""
    try:
        fit = pair.fit()
    except EspalierError:
        return ""  # the side whose file is wrong says so when it is asked
    return f"<p class='quiet chat-fit'>{escape(fit.reason)}</p>" if fit.together else notice(fit.reason, kind="warning")


def _columns(station: ChatStation, conversation: Conversation, sides: Sequence[Side]) -> Updates:
    """The columns of `sides` as they stand."""
    updates: Updates = {station.conversation: conversation}
    for side in sides:
        parts, answer = station.sides[side], conversation.answer(side)
        updates[parts.chat] = chat_messages(conversation, side)
        updates[parts.stats] = stats_html(answer)
        if problem := problem_html(answer):
            updates[parts.problem] = gr.HTML(problem, visible=True)
    return updates


def _begun(station: ChatStation, conversation: Conversation, sides: Sequence[Side]) -> Updates:
    """A question was asked: its columns, without the problems of the last one, and what can be pressed."""
    updates = _columns(station, conversation, sides) | _buttons(station, busy=True)
    updates[station.problem] = gr.HTML(visible=False)
    for parts in station.sides.values():
        updates[parts.restart] = gr.Button(visible=False)
    for side in sides:
        updates[station.sides[side].problem] = gr.HTML(visible=False)
    return updates


def _ended(station: ChatStation, conversation: Conversation) -> Updates:
    """Nothing more comes: both columns, and what can be pressed."""
    updates = _columns(station, conversation, SIDES) | _buttons(station, busy=False)
    for side, parts in station.sides.items():
        answer = conversation.answer(side)
        updates[parts.restart] = gr.Button(visible=answer is not None and answer.can_restart)
        if answer is None or answer.error is None:
            updates[parts.problem] = gr.HTML(visible=False)
    return {**updates, station.running: None}


def _refused(station: ChatStation, question: _Question, error: EspalierError) -> Updates:
    """The question could not be asked."""
    return {**_ended(station, question.before), station.problem: gr.HTML(failure(error), visible=True)}


def _buttons(station: ChatStation, *, busy: bool) -> Updates:
    return {station.send: gr.Button(interactive=not busy), station.stop: gr.Button(interactive=busy)}


def _stop(running: _Running | None) -> None:
    if running is not None:
        running.stream.stop()


def _clear(station: ChatStation, running: _Running | None) -> Updates:
    """An empty chat, whatever was going on; while answers come, the handler that shows them has the last word."""
    if running is not None and running.clear():
        return {station.problem: gr.HTML(visible=False)}
    return {**_ended(station, Conversation()), station.problem: gr.HTML(visible=False)}


def _refreshed(
    sources: ChatSources,
    station: ChatStation,
    chosen: str | None,
    known_reference: str,
    running: _Running | None,
    *states: Any,
) -> Updates:
    """The models there are now; a choice that is still possible stays, and the chat with it."""
    try:
        reference, candidates = sources.reference(*states), sources.candidates(*states)
    except EspalierError as error:
        return {station.problem: gr.HTML(failure(error), visible=True)}
    name = reference.name if reference else ""
    candidate = chosen if chosen in candidates else next(iter(candidates), None)
    path = candidates[candidate] if candidate else None
    left, right = station.sides["reference"], station.sides["candidate"]
    updates = _clear(station, running) if name != known_reference else {}
    return {
        **updates,
        station.known_reference: name,
        station.candidate: gr.Dropdown(list(candidates), value=candidate),
        station.note: note_html(Pair(sources.pool, reference.path if reference else None, path)),
        left.heading: heading_html("Reference", name, reference.path if reference else None),
        right.heading: heading_html("Candidate", candidate or "", path),
        right.chat: gr.Chatbot(placeholder=ANSWERS_HERE if candidate else NO_CANDIDATE),
        left.chat: gr.Chatbot(placeholder=ANSWERS_HERE if reference else NO_REFERENCE),
    }
