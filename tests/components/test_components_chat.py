"""The chat station's handlers, as gradio calls them, on real models in real child processes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from components import chat
from components.chat import ChatModel, ChatSources, ChatStation, chat_station
from components.chat_view import NO_CANDIDATE, STOPPED_WAITING
from studio.errors import InputError
from studio.serve.conversation import Conversation
from studio.serve.memory import MEMORY_VARIABLE, model_need
from studio.serve.pool import ServerPool
from tests.serve.serve_models import tiny_gguf_once

EXAMPLES = {"math": ["What is 2 plus 2?"], "code": ["Reverse a string."]}
SETTINGS = ("Be brief.", False, 0.0, 0.95, 64, 0, 24)
ANSWERED = "24 tokens"
HALF_WAY = "Converting the reference to GGUF, once: 50%"


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ServerPool]:
    pool = ServerPool(tmp_path / "logs")
    yield pool
    pool.close()


@pytest.fixture
def candidates(tmp_path: Path) -> dict[str, Path]:
    return {"pruned": Path(shutil.copy(tiny_gguf_once(), tmp_path / "pruned.gguf"))}


@pytest.fixture
def sources(pool: ServerPool, candidates: Mapping[str, Path]) -> ChatSources:
    return ChatSources(
        pool=pool,
        reference=lambda: ChatModel("demo", None),
        prepare=lambda: iter([HALF_WAY, tiny_gguf_once()]),
        candidates=lambda: candidates,
        examples=EXAMPLES,
    )


@pytest.fixture
def station(sources: ChatSources) -> ChatStation:
    with gr.Blocks():
        return chat_station(sources)


def last_of(updates: list[dict[Any, Any]], part: Any) -> Any:
    """What a part of the page shows after `updates`."""
    values = [update[part] for update in updates if part in update]
    return values[-1] if values else None


def send(sources: ChatSources, station: ChatStation, candidate: str | None, *settings: Any, before: Any = None) -> Any:
    return list(chat._send(sources, station, "Hello", before or Conversation(), candidate, *(settings or SETTINGS)))


def test_both_columns_fill_and_the_box_is_empty_again(sources: ChatSources, station: ChatStation) -> None:
    updates = send(sources, station, "pruned")
    for parts in station.sides.values():
        question, answer = last_of(updates, parts.chat)
        assert question["content"] == "Hello" and answer["content"]
        assert ANSWERED in last_of(updates, parts.stats) and not last_of(updates, parts.restart).visible
    assert updates[0][station.prompt] == "" and updates[0][station.stop].interactive
    assert updates[-1][station.send].interactive and not updates[-1][station.stop].interactive
    assert len(last_of(updates, station.conversation).turns) == 1
    assert "at the same time" in last_of(updates, station.note)


def test_a_reference_that_has_yet_to_be_converted_says_so(sources: ChatSources, station: ChatStation) -> None:
    updates = send(sources, station, None)
    assert any(HALF_WAY in update.get(station.sides["reference"].stats, "") for update in updates)


def test_waiting_for_a_conversion_can_be_stopped(sources: ChatSources, station: ChatStation) -> None:
    sides = chat._send(sources, station, "Hello", Conversation(), None, *SETTINGS)
    running = next(update[station.running] for update in sides if update.get(station.running))
    running.stream.stop()
    updates = list(sides)
    assert updates[-1][station.prompt] == "Hello"
    assert STOPPED_WAITING in updates[-1][station.problem].value


def test_the_next_question_comes_with_the_answers_before(sources: ChatSources, station: ChatStation) -> None:
    first = last_of(send(sources, station, "pruned"), station.conversation)
    second = last_of(send(sources, station, "pruned", before=first), station.conversation)
    assert [message["role"] for message in second.messages("candidate", "Be brief.")] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_without_a_candidate_the_reference_answers_alone(sources: ChatSources, station: ChatStation) -> None:
    updates = send(sources, station, None)
    assert ANSWERED in last_of(updates, station.sides["reference"].stats)
    assert last_of(updates, station.sides["candidate"].chat) == []


def test_an_empty_question_is_not_asked(sources: ChatSources, station: ChatStation) -> None:
    assert list(chat._send(sources, station, "  ", Conversation(), None, *SETTINGS)) == [gr.skip()]


@pytest.mark.parametrize(
    ("place", "wrong", "named"), [(2, 9.0, "temperature"), (5, None, "seed"), (6, -1, "max tokens")]
)
def test_a_setting_out_of_range_is_named_and_the_question_kept(
    sources: ChatSources, station: ChatStation, place: int, wrong: Any, named: str
) -> None:
    settings = [*SETTINGS]
    settings[place] = wrong
    final = send(sources, station, "pruned", *settings)[-1]
    assert named in final[station.problem].value and final[station.prompt] == "Hello"
    assert final[station.conversation] == Conversation() and final[station.send].interactive


def test_a_candidate_that_is_gone_is_named(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    candidates.clear()
    assert "pruned is no longer there" in send(sources, station, "pruned")[-1][station.problem].value


def test_where_memory_is_short_the_page_says_so_before_an_answer_starts(
    sources: ChatSources, station: ChatStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = model_need(tiny_gguf_once(), sources.pool.context, sources.pool.slots).memory
    monkeypatch.setenv(MEMORY_VARIABLE, str(int(1.5 * need)))
    updates = send(sources, station, "pruned")
    said = next(index for index, update in enumerate(updates) if "in turn" in update.get(station.note, ""))
    texts = [any(len(update.get(parts.chat, [])) > 1 for parts in station.sides.values()) for update in updates]
    assert said < texts.index(True)
    assert all(ANSWERED in last_of(updates, parts.stats) for parts in station.sides.values())


def test_a_server_that_died_is_shown_with_its_log_and_restarts_at_the_press_of_a_button(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    parts = station.sides["candidate"]
    talking = chat._send(sources, station, "Hello", Conversation(), "pruned", *SETTINGS[:-1], 1900)
    updates = []
    for update in talking:
        updates.append(update)
        if sources.pool.loaded(candidates["pruned"]):
            with sources.pool.lease(candidates["pruned"], 1) as server:
                os.kill(server.pid, signal.SIGKILL)
            break
    for update in talking:
        updates.append(update)
        chat._stop(last_of(updates, station.running))
    assert (
        "was killed" in last_of(updates, parts.problem).value
        and "<pre class='log'" in last_of(updates, parts.problem).value
    )
    assert updates[-1][parts.restart].visible and not updates[-1][station.sides["reference"].restart].visible
    conversation = last_of(updates, station.conversation)
    again = list(chat._restart(sources, station, "candidate", conversation, "pruned", *SETTINGS))
    assert ANSWERED in last_of(again, parts.stats) and not again[-1][parts.restart].visible
    assert last_of(again, station.conversation).answer("reference") == conversation.answer("reference")


def test_clear_in_the_middle_leaves_an_empty_chat(sources: ChatSources, station: ChatStation) -> None:
    updates = []
    for update in chat._send(sources, station, "Hello", Conversation(), "pruned", *SETTINGS[:-1], 1900):
        updates.append(update)
        if any(len(update.get(parts.chat, [])) > 1 for parts in station.sides.values()):
            running = last_of(updates, station.running)
            assert station.conversation not in chat._clear(station, running)
    assert updates[-1][station.conversation] == Conversation()
    assert all(updates[-1][parts.chat] == [] for parts in station.sides.values())
    assert chat._clear(station, running)[station.conversation] == Conversation()  # once more, with nothing coming


def test_a_tab_that_closes_stops_its_answers(sources: ChatSources, station: ChatStation) -> None:
    talking = chat._send(sources, station, "Hello", Conversation(), None, *SETTINGS[:-1], 1900)
    updates = []
    for update in talking:
        updates.append(update)
        if len(update.get(station.sides["reference"].chat, [])) > 1:
            break
    talking.close()  # what gradio does when the browser is gone
    running = last_of(updates, station.running)
    last = [event for _, event in running.stream]
    assert last[-1].finish == "stopped"


def test_refresh_keeps_what_can_be_kept(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    first = station.refresh(None, "", None)
    assert first[station.candidate].value == "pruned" and "demo" in first[station.sides["reference"].heading]
    candidates["newer"] = candidates["pruned"]
    same = station.refresh("pruned", "demo", None)
    assert same[station.candidate].value == "pruned" and station.conversation not in same
    assert station.refresh("pruned", "another", None)[station.conversation] == Conversation()
    candidates.clear()
    empty = station.refresh("pruned", "demo", None)
    assert empty[station.candidate].value is None and empty[station.sides["candidate"].chat].placeholder == NO_CANDIDATE


def test_a_source_that_fails_is_reported(pool: ServerPool) -> None:
    def fails() -> Any:
        raise InputError("The reference is damaged.")

    fail: Callable[[], Any] = fails
    broken = ChatSources(pool, fail, fail, dict, EXAMPLES)
    with gr.Blocks():
        station = chat_station(broken)
    assert "The reference is damaged." in station.refresh(None, "", None)[station.problem].value
    assert "The reference is damaged." in send(broken, station, None)[-1][station.problem].value


def test_settings_reach_the_sampler_by_name() -> None:
    system, thinking, sampler = chat.asked_with([None, True, 0.5, 0.9, 20, 7, 100])
    assert (system, thinking) == ("", True)
    assert (sampler.temperature, sampler.top_p, sampler.top_k, sampler.seed, sampler.max_tokens) == (
        0.5,
        0.9,
        20,
        7,
        100,
    )
