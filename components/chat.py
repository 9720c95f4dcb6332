"""Station 5, Talk: up to four models side by side, one prompt, all answers streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from components.chat_answers import Question, Running, answered, remember
from components.chat_kept import ROUTING, SETTINGS, keep_value, kept_value, settings_again
from components.chat_loading import loading_of
from components.chat_parts import (
    ChatModel,
    ChatSources,
    ChatStation,
    Updates,
    Values,
    first_columns,
    laid_out,
)
from components.chat_routing import kept_routings, routing_html
from components.chat_settings import sampled
from components.chat_shown import (
    columns_of,
    columns_shown,
    ended,
    freed,
    known_of,
    memory_shown,
    newest_chosen,
    now,
    of_columns,
    settled,
    with_a_column,
)
from components.chat_tokens import parting_html
from components.chat_view import next_example, turn_of_message
from components.chat_votes import tally_html
from components.markup import failure
from studio.errors import EspalierError, InputError
from studio.evaluate.votes import tallies, vote_of
from studio.serve.blind import begun_blind, opened, sealed, seen
from studio.serve.conversation import Blind, Conversation
from studio.serve.saved import conversation_json, conversation_markdown

__all__ = ["ChatModel", "ChatSources", "ChatStation", "chat_station"]

_QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

_TAKE = """(text) => document.querySelector('#send').disabled || !text?.trim()
  ? [undefined, '', undefined]
  : ['', text, { __type__: 'update', interactive: false }]"""
"""Takes the question out of its box in the browser, at once: whatever is typed from then on is the next one."""

_GIVE_BACK = """(box, asked) => asked ? [[asked, box].filter(Boolean).join('\\n'), ''] : [undefined, undefined]"""
"""Puts a question that could not be asked back into its box, before what was typed since; needs no server."""

_FREE_SEND = "() => ({ __type__: 'update', interactive: true })"

_SAVE = """(text) => {
  if (!text) return;
  const [name, ...lines] = text.split('\\n');
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([lines.join('\\n')]));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}"""
"""Saves what stands after the first line as a file with the name in the first line."""


def chat_station(sources: ChatSources) -> ChatStation:
    """Lay the station out and wire it, inside a `gr.Blocks`."""
    station = laid_out(sources, partial(_refreshed, sources))
    _wire_questions(sources, station)
    _wire_columns(sources, station)
    return station


def _wire_questions(sources: ChatSources, station: ChatStation) -> None:
    streaming: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": None,  # all pages of this process take turns together (studio/serve/turns.py)
        "concurrency_id": "chat",
    }

    def then_free(event: gr.events.Dependency, *, in_box: bool = False) -> None:
        """Have what can be pressed freed after `event`; gradio follows one that failed with `failure` alone."""
        states = {station.running, station.conversation}
        event.then(partial(_free, station), states, station.changing, trigger_mode="multiple", **_QUICK)
        event.failure(partial(_broken, station, in_box), states, station.changing, trigger_mode="multiple", **_QUICK)

    def on(events: Any, handler: Callable[..., Iterator[Updates]], *more: Any) -> None:
        handled = partial(handler, sources, station, *more)
        then_free(gr.on(events, handled, station.inputs, station.changing, **streaming))

    taken = gr.on(
        [station.send.click, station.prompt.submit],
        None,
        station.prompt,
        [station.prompt, station.asked, station.send],
        js=_TAKE,
        **_QUICK,
    )
    sent = taken.then(
        partial(_send, sources, station),
        station.inputs,
        station.changing,
        trigger_mode="multiple",  # gradio would drop what has left its box already
        **streaming,
    )
    boxes = [station.prompt, station.asked]
    for follow in (sent.then, sent.failure):
        follow(None, boxes, boxes, js=_GIVE_BACK, trigger_mode="multiple", **_QUICK)
    sent.failure(None, None, station.send, js=_FREE_SEND, **_QUICK)
    then_free(sent, in_box=True)
    on(station.same.click, _again, 0)
    on(station.other.click, _again, 1)
    for id, parts in station.columns.items():
        on(parts.restart.click, _restart, id)

        def on_edit(values: Values, event: gr.EditData, id: str = id) -> Iterator[Updates]:
            yield from _edit(sources, station, id, values, event)

        then_free(parts.chat.edit(on_edit, station.inputs, station.changing, trigger_mode="multiple", **streaming))


def _wire_columns(sources: ChatSources, station: ChatStation) -> None:
    settings = station.settings

    def on(events: Any, handler: Callable[..., Updates], *more: Any) -> None:
        gr.on(events, partial(handler, sources, station, *more), station.inputs, station.changing, **_QUICK)

    station.stop.click(_stop, station.running, None, **_QUICK)
    bins = [parts.chat.clear for parts in station.columns.values()]  # gradio's own button on a chatbot
    on([station.clear.click, *bins], _clear)
    on(station.add.click, _add)
    on(station.blind.input, _blind)

    def on_vote(values: Values, event: gr.EventData) -> Updates:
        return _vote(sources, station, str(event.choice), values)

    station.ballot.click(on_vote, station.inputs, station.changing, **_QUICK)
    for id, parts in station.columns.items():
        parts.stop.click(partial(_stop, column=id), station.running, None, **_QUICK)
        on(parts.model.input, _another_model, id)
        on(parts.remove.click, _remove, id)
        parts.system.blur(partial(_kept, sources, station), station.inputs, station.conversation, **_QUICK)
    on([settings.how.input, settings.thinking.input], _sampler)
    for part in settings.sampling:
        part.input(lambda: "own", None, settings.how, **_QUICK)

    following = [station.note, station.problem, station.loading.where, *station.loading.changing]
    for event in (station.loading.accordion.expand, *(part.input for part in station.loading.inputs)):
        event(partial(_foretold, sources, station), station.inputs, following, trigger_mode="always_last", **_QUICK)

    gr.on(
        [part.change for part in station.kept.values()],
        partial(_keep_settings, sources, station),
        station.inputs,
        None,
        trigger_mode="always_last",
        **_QUICK,
    )

    def on_token(values: Values, event: gr.EventData) -> str:
        return parting_html(seen(values[station.conversation]), int(event.index))

    station.parting.click(on_token, {station.conversation}, station.parting, **_QUICK)
    saved = ((station.save_json, conversation_json, "json"), (station.save_markdown, conversation_markdown, "md"))
    for button, written, ending in saved:
        button.click(partial(_file, written, ending), station.conversation, station.saved, **_QUICK).then(
            None, station.saved, None, js=_SAVE, **_QUICK
        )
    for klass, chip in station.chips.items():
        chip.click(partial(next_example, list(sources.examples[klass])), station.prompt, station.prompt, **_QUICK)


def _free(station: ChatStation, values: Values) -> Updates:
    """What can be pressed when answers are over, unless the next ones are under way."""
    return {station.send: gr.skip()} if _is_busy(station, values) else freed(station, values[station.conversation])


def _broken(station: ChatStation, in_box: bool, values: Values) -> Updates:
    """The page after a question that failed in a way nobody foresaw, or got lost on its way; `in_box`: it is in its box
    again, and so not in the chat unless an answer began."""
    _stop(values[station.running])
    before = values[station.conversation]
    last = before.turns[-1].answers.values() if before.turns else ()
    nothing_came = all(not (one.over or one.text or one.reasoning) for one in last)  # an older one is over
    conversation = replace(before, turns=before.turns[:-1]) if in_box and nothing_came else before.cut_off()
    return {**ended(station, conversation), **freed(station, conversation)}


def _is_busy(station: ChatStation, values: Values) -> bool:
    """Whether answers are coming."""
    running = values[station.running]
    return running is not None and not running.over


def _askable(conversation: Conversation) -> list[str]:
    """Columns that have a model."""
    return [column.id for column in conversation.columns if column.model]


def _send(sources: ChatSources, station: ChatStation, values: Values) -> Iterator[Updates]:
    """Ask all columns; a question that cannot be asked goes back into its box."""
    prompt = values[station.asked]
    if not prompt.strip():  # nothing left the box, see `_TAKE`
        yield gr.skip()
        return
    before = now(station, values)
    if _is_busy(station, values):
        error = InputError("Answers are coming.", "Stop them, or wait for them, then ask.")
        yield {station.problem: gr.HTML(failure(error), visible=True)}
        return
    columns = _askable(before)
    question = Question(before, before.asked(prompt.strip(), columns), columns, values)
    yield from answered(sources, station, question, prompt=prompt)


def _again(sources: ChatSources, station: ChatStation, seeds: int, values: Values) -> Iterator[Updates]:
    """Ask all columns the last question again, with a seed that is `seeds` further on."""
    before = now(station, values)
    if not before.turns:
        yield gr.skip()
        return
    seed = values[station.settings.seed]
    if seeds and seed is not None:
        values = {**values, station.settings.seed: seed + seeds}
        yield {station.settings.seed: seed + seeds}
    columns = _askable(before)
    yield from answered(sources, station, Question(before, before.asked_again(columns), columns, values))


def _edit(
    sources: ChatSources, station: ChatStation, column: str, values: Values, event: gr.EditData
) -> Iterator[Updates]:
    """Ask another question in the place of one that was asked; the conversation goes on from there."""
    before, prompt = now(station, values), str(event.value)
    try:
        turn = turn_of_message(seen(before), column, event.index if isinstance(event.index, int) else event.index[0])
        if _is_busy(station, values):
            raise InputError("Answers are coming.", "Stop them, then change the question.")
        if not prompt.strip():
            raise InputError("An empty question cannot be asked.", "Clear the chat to begin anew.")
    except EspalierError as error:
        yield {**of_columns(station, before), station.problem: gr.HTML(failure(error), visible=True)}
        return
    columns = _askable(before)
    edited = before.edited(turn, prompt.strip(), columns)
    yield from answered(sources, station, Question(before, edited, columns, values))


def _restart(sources: ChatSources, station: ChatStation, column: str, values: Values) -> Iterator[Updates]:
    """Start the server of `column` anew and ask it the last question again."""
    before = now(station, values)
    question = Question(before, before.asked_again([column]), [column], values)
    yield from answered(sources, station, question, restart=True)


def _kept(sources: ChatSources, station: ChatStation, values: Values) -> Any:
    """The conversation with what stands in the columns now, remembered; while answers come, they are anyway."""
    if values[station.running] is not None:
        return gr.skip()
    conversation = now(station, values)
    remember(sources, station.states_in(values), conversation)
    return conversation


def _stop(running: Running | None, column: str | None = None) -> None:
    if running is not None:
        running.stream.stop(column)


def _shown_instead(station: ChatStation, values: Values, conversation: Conversation, *, forget: bool) -> Updates:
    """Another conversation; while answers come, the handler that shows them has the last word. `forget` says that what
    they belong to is not to be remembered any more."""
    running = values[station.running]
    if running is not None and running.give_way(conversation, forget=forget):
        return columns_shown(station, conversation)
    return {**ended(station, conversation), **freed(station, conversation), **columns_shown(station, conversation)}


def _clear(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """An empty chat with the same columns, whatever was going on."""
    before = now(station, values)
    empty = replace(before, turns=(), blind=before.blind and Blind())
    updates = _shown_instead(station, values, empty, forget=True)
    remember(sources, station.states_in(values), empty)
    return {**updates, station.problem: gr.HTML(visible=False), station.routing: ""}


def _changed(sources: ChatSources, station: ChatStation, values: Values, conversation: Conversation) -> Updates:
    """The page with other columns."""
    updates = {**_shown_instead(station, values, conversation, forget=True), station.routing: ""}
    remember(sources, station.states_in(values), conversation)
    try:
        return {**updates, **settled(station, conversation, sources, values)}
    except EspalierError as error:
        return {**updates, station.problem: gr.HTML(failure(error), visible=True)}


def _add(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """One more column, with a model that none has yet."""
    conversation = now(station, values)
    try:
        conversation = with_a_column(conversation, list(sources.models(*station.states_in(values))))
    except EspalierError as error:
        return {station.problem: gr.HTML(failure(error), visible=True)}
    return _changed(sources, station, values, conversation)


def _remove(sources: ChatSources, station: ChatStation, column: str, values: Values) -> Updates:
    """Without `column` and what it said."""
    conversation = now(station, values).without(column)
    left = tuple(one for one in conversation.columns if one.id != column)
    return _changed(sources, station, values, replace(conversation, columns=left))


def _blind(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """A new chat in which nobody sees who says what; or an end of that, with everything told."""
    conversation = now(station, values)
    if not values[station.blind]:
        told = replace(conversation, blind=None)
        return _changed(sources, station, values, told)
    try:
        if _is_busy(station, values):
            raise InputError("Answers are coming.", "Stop them, then compare blind.")
        conversation = begun_blind(conversation)
    except EspalierError as error:
        return {station.blind: False, station.problem: gr.HTML(failure(error), visible=True)}
    updates = _changed(sources, station, values, conversation)
    return {station.problem: gr.HTML(visible=False), **updates, **_tallied(sources, station, values)}


def _vote(sources: ChatSources, station: ChatStation, choice: str, values: Values) -> Updates:
    """Write a vote down, and tell who was who."""
    conversation, states = now(station, values), station.states_in(values)
    if sources.ballots is None:
        return {station.problem: gr.skip()}
    try:
        vote = vote_of(conversation, choice)
    except EspalierError as error:
        return {**of_columns(station, conversation), station.problem: gr.HTML(failure(error), visible=True)}
    sources.ballots.store.add(sources.ballots.voter(*states), vote)
    told = opened(conversation, choice)
    remember(sources, states, told)
    hidden = {station.problem: gr.HTML(visible=False)}
    return {**ended(station, told), **freed(station, told), **hidden, **_tallied(sources, station, values)}


def _tallied(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """What this person's votes come to so far."""
    if sources.ballots is None:
        return {}
    votes, _ = sources.ballots.store.read(sources.ballots.voter(*station.states_in(values)))
    return {station.tally: tally_html(tallies(votes))}


def _another_model(sources: ChatSources, station: ChatStation, column: str, values: Values) -> Updates:
    """Another model in `column`: what the one before said there is gone."""
    conversation = now(station, values)
    before, after = values[station.conversation].column(column), conversation.column(column)
    if before is None or after is None or before.model == after.model:
        return {station.problem: gr.skip()}  # gradio also tells when a list was opened and closed again
    return _changed(sources, station, values, conversation.without(column))


def _sampler(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """The values of the way to sample that was chosen."""
    settings = station.settings
    family = sources.family(*station.states_in(values))
    updates = sampled(settings, values[settings.how], family, bool(values[settings.thinking]))
    return updates or {station.problem: gr.skip()}


def _keep_settings(sources: ChatSources, station: ChatStation, values: Values) -> None:
    """How models are asked and loaded, for after a reload."""
    settings = {name: values[part] for name, part in station.kept.items()}
    keep_value(sources, SETTINGS, station.states_in(values), settings)


def _foretold(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """What fits, and where, as it is decided now."""
    conversation = now(station, values)
    try:
        loading_of(station.loading, values)
        models = sources.models(*station.states_in(values))
    except EspalierError as error:
        return {station.problem: gr.HTML(failure(error), visible=True)}
    columns = columns_of(station, conversation, sources, models, values)
    shown = memory_shown(station, conversation, columns, models, values)
    return {**shown, station.problem: gr.HTML(visible=False)}


def _file(written: Callable[[Conversation], str], ending: str, conversation: Conversation) -> str:
    """Name and content of a file, without names where they must not be seen; empty where nothing was said."""
    shown = seen(conversation) if sealed(conversation) else conversation
    return f"conversation.{ending}\n{written(shown)}" if conversation.turns else ""


def _refreshed(sources: ChatSources, station: ChatStation, values: Values) -> Updates:
    """The models there are now; a choice that is still possible stays, and the chat with it."""
    states = station.states_in(values)
    try:
        return _fresh(sources, station, values, states)
    except EspalierError as error:
        return {station.problem: gr.HTML(failure(error), visible=True)}


def _fresh(sources: ChatSources, station: ChatStation, values: Values, states: Sequence[Any]) -> Updates:
    models = sources.models(*states)
    known = known_of(models)
    before = values[station.known]
    conversation = values[station.conversation]  # the browser may not show it yet
    updates: Updates = {station.known: known}
    if before is None or before[0] != known[0]:  # another reference: what was said to it is another conversation
        conversation = sources.kept(*states) or Conversation(columns=first_columns(models))
        updates |= _shown_instead(station, values, conversation, forget=False)
        if conversation.blind is None:
            updates[station.routing] = routing_html(kept_routings(kept_value(sources, ROUTING, states), conversation))
        if before is None:  # the page has just been opened
            found = settings_again(station, kept_value(sources, SETTINGS, states), values, sources.family(*states))
            updates, values = {**updates, **found}, {**values, **found}
        if conversation.blind is not None:
            updates |= _tallied(sources, station, values)
    elif not conversation.turns:
        conversation = newest_chosen(conversation, before[1], known[1])
        updates[station.conversation] = conversation
    return {**updates, **settled(station, conversation, sources, values)}
