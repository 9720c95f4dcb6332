"""The chat station's handlers, as gradio calls them, on real models in real child processes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from components import chat
from components.chat import ChatModel, ChatSources, ChatStation, chat_station
from components.chat_answers import Running, Waiting
from components.chat_parts import REFERENCE
from components.chat_settings import GREEDY, OFFICIAL, asked_with, how_choices, sampling_values
from components.chat_view import NO_MODEL, STOPPED_WAITING
from studio.errors import InputError
from studio.families import Family, family_named
from studio.limits import CHATS
from studio.serve.conversation import Column, Conversation
from studio.serve.memory import MEMORY_VARIABLE, model_need
from studio.serve.pool import ServerPool
from studio.serve.served import GgufModel
from studio.serve.turns import ANSWERS
from tests.serve.serve_models import ENDLESS, ROOMY, tiny_gguf_once

EXAMPLES = {"math": ["What is 2 plus 2?"], "code": ["Reverse a string."]}
ANSWERED = "24 tokens"
HALF_WAY = "Converting the reference to GGUF, once: 50%"
BOTH = (Column("A", REFERENCE), Column("B", "pruned"))
ALONE = (Column("A", REFERENCE),)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ServerPool]:
    pool = ServerPool(tmp_path / "logs", context=ROOMY)
    yield pool
    pool.close()


@pytest.fixture
def candidates(tmp_path: Path) -> dict[str, Path]:
    return {"pruned": Path(shutil.copy(tiny_gguf_once(), tmp_path / "pruned.gguf"))}


@pytest.fixture
def kept() -> list[Conversation]:
    """Every conversation that was kept, the newest last."""
    return []


@pytest.fixture
def sources(pool: ServerPool, candidates: Mapping[str, Path], kept: list[Conversation]) -> ChatSources:
    return sources_of(pool, candidates, kept)


def sources_of(pool: ServerPool, candidates: Mapping[str, Path], kept: list[Conversation]) -> ChatSources:
    def models() -> dict[str, ChatModel]:
        steps = [HALF_WAY, GgufModel(tiny_gguf_once())]
        found = {REFERENCE: ChatModel("demo", "Reference", None, partial(iter, steps))}
        for name, path in candidates.items():
            found[name] = ChatModel(name, "Candidate", path, partial(iter, [GgufModel(path)]))
        return found

    def family() -> Family:
        return family_named("qwen3_moe")

    return ChatSources(pool, models, EXAMPLES, family, lambda: kept[-1] if kept else None, kept.append)


@pytest.fixture
def station(sources: ChatSources) -> ChatStation:
    with gr.Blocks():
        return chat_station(sources)


def values_of(station: ChatStation, before: Conversation, prompt: str = "Hello", **settings: Any) -> dict[Any, Any]:
    """What gradio gives a handler: each part's value as it was laid out, but for what is told."""
    values = {part: part.value for part in station.inputs}
    values |= {station.conversation: before, station.running: None, station.known: None, station.asked: prompt}
    values[station.loading.context] = ROOMY
    for column in before.columns:
        parts = station.columns[column.id]
        values |= {parts.model: column.model, parts.system: column.system}
    for name, value in {"max_tokens": 24, "system": "Be brief.", **settings}.items():
        values[getattr(station.settings, name)] = value
    return values


def last_of(updates: list[dict[Any, Any]], part: Any) -> Any:
    """What a part of the page shows after `updates`."""
    values = [update[part] for update in updates if part in update]
    return values[-1] if values else None


def freed_after(station: ChatStation, updates: list[dict[Any, Any]]) -> dict[Any, Any]:
    """What gradio asks for when it is through with `updates`."""
    states = (station.running, station.conversation)
    return chat._free(station, {state: last_of(updates, state) for state in states})


def talk(sources: ChatSources, station: ChatStation, before: Conversation, **told: Any) -> Iterator[Any]:
    return chat._send(sources, station, values_of(station, before, **told))


def send(sources: ChatSources, station: ChatStation, before: Conversation, **told: Any) -> list[Any]:
    return list(talk(sources, station, before, **told))


def empty(*columns: Column) -> Conversation:
    return Conversation(columns=columns)


def text(message: dict[str, Any]) -> str:
    return str(message["content"][0]["text"])


def test_all_columns_fill_and_the_box_is_empty_again(sources: ChatSources, station: ChatStation) -> None:
    updates = send(sources, station, empty(*BOTH, Column("C", "pruned", "Shout.")))
    for id in "ABC":
        parts = station.columns[id]
        question, answer = last_of(updates, parts.chat)
        assert text(question) == "Hello" and text(answer)
        assert ANSWERED in last_of(updates, parts.stats) and not last_of(updates, parts.restart).visible
    assert updates[0][station.stop].interactive
    assert not any(station.prompt in update for update in updates), "what is typed meanwhile stays"
    assert not last_of(updates, station.send).interactive, "what is pressed before gradio is through, it drops"
    freed = freed_after(station, updates)
    assert freed[station.send].interactive and not freed[station.stop].interactive
    conversation = last_of(updates, station.conversation)
    assert len(conversation.turns) == 1 and "at the same time" in last_of(updates, station.note)
    origins = [conversation.answer(id).origin for id in "ABC"]
    assert [origin.model for origin in origins] == ["demo", "pruned", "pruned"]
    assert [origin.system for origin in origins] == ["Be brief.", "Be brief.", "Shout."]
    assert [origin.file for origin in origins] == ["tiny.gguf", "pruned.gguf", "pruned.gguf"]
    assert origins[0].file_bytes == tiny_gguf_once().stat().st_size


def test_the_same_weights_do_not_part_and_another_system_prompt_does(
    sources: ChatSources, station: ChatStation
) -> None:
    same = send(sources, station, empty(*BOTH))[-1][station.parting]
    assert "do not part: 24 tokens are the same" in same
    other = send(sources, station, empty(ALONE[0], Column("B", "pruned", "z" * 40)), probabilities=True)[-1]
    assert "part a" in other[station.parting] and "class='likely'" in other[station.parting]


def test_a_reference_that_has_yet_to_be_converted_says_so(sources: ChatSources, station: ChatStation) -> None:
    updates = send(sources, station, empty(*ALONE))
    assert any(HALF_WAY in update.get(station.columns["A"].stats, "") for update in updates)


def test_waiting_for_a_conversion_can_be_stopped(sources: ChatSources, station: ChatStation) -> None:
    talking = talk(sources, station, empty(*ALONE))
    running = next(update[station.running] for update in talking if update.get(station.running))
    running.stream.stop()
    updates = list(talking)
    assert updates[-1][station.asked] == "Hello"
    assert STOPPED_WAITING in updates[-1][station.problem].value


def test_all_pages_together_have_as_many_chats_at_once_as_the_limit_says(
    sources: ChatSources, station: ChatStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHATS.variable, "1")
    with gr.Blocks():
        hers = chat_station(sources)  # somebody else's page, in the same process
    first = talk(sources, station, empty(*ALONE))
    while "Converting" not in str(update := next(first)):
        assert "being answered" not in str(update)
    second = talk(sources, hers, empty(*ALONE))
    while "1 chat is being answered" not in str(update := next(second)):
        assert "Converting" not in str(update)
    for _ in range(3):
        assert "yours is the next" in str(next(second))
    third = send(sources, station, empty(*ALONE), prompt="Me, too?")
    refused = last_of(third, station.problem).value
    assert "1 chat is being answered, and as many wait" in refused and CHATS.variable in refused
    assert last_of(third, station.asked) == "Me, too?"
    assert ANSWERED in str(list(first))
    answered = list(second)
    assert ANSWERED in str(answered) and "yours is the next" not in str(answered[-1])
    assert ANSWERED in str(send(sources, station, empty(*ALONE)))


def test_waiting_for_a_turn_can_be_stopped_and_whoever_leaves_gives_theirs_up(
    sources: ChatSources, station: ChatStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHATS.variable, "1")
    with ANSWERS.one():
        waiting = talk(sources, station, empty(*ALONE))
        while "yours is the next" not in str(update := next(waiting)):
            if update.get(station.running) is not None:
                running = update[station.running]
        chat._stop(running)
        assert STOPPED_WAITING in last_of(list(waiting), station.problem).value
        leaving = talk(sources, station, empty(*ALONE))
        while "yours is the next" not in str(next(leaving)):
            pass
        leaving.close()  # as gradio does when a tab is closed
        with ANSWERS.one() as turn:
            assert turn.before() == 1, "those two are in line no more"


def test_the_next_question_comes_with_the_answers_before(sources: ChatSources, station: ChatStation) -> None:
    first = last_of(send(sources, station, empty(*BOTH)), station.conversation)
    second = last_of(send(sources, station, first), station.conversation)
    roles = [message["role"] for message in second.messages("B", "Be brief.")]
    assert roles == ["system", "user", "assistant", "user"]


def test_a_column_without_a_model_is_not_asked(sources: ChatSources, station: ChatStation) -> None:
    updates = send(sources, station, empty(ALONE[0], Column("B")))
    assert ANSWERED in last_of(updates, station.columns["A"].stats)
    assert last_of(updates, station.columns["B"].chat) == []
    refused = send(sources, station, empty(Column("A")))[-1]
    assert "No column has a model" in refused[station.problem].value and refused[station.asked] == "Hello"


def test_an_empty_question_is_not_asked(sources: ChatSources, station: ChatStation) -> None:
    assert send(sources, station, empty(*BOTH), prompt="  ") == [gr.skip()]


@pytest.mark.parametrize(
    "wrong", [{"temperature": 9.0}, {"seed": None}, {"max_tokens": -1}, {"budget": -1}, {"min_p": 3}]
)
def test_a_setting_out_of_range_is_named_and_the_question_kept(
    sources: ChatSources, station: ChatStation, wrong: dict[str, Any]
) -> None:
    updates = send(sources, station, empty(*BOTH), **wrong)
    final = updates[-1]
    named = getattr(station.settings, next(iter(wrong))).label
    assert f"“{named}” cannot be" in final[station.problem].value and final[station.asked] == "Hello"
    assert final[station.conversation].turns == () and freed_after(station, updates)[station.send].interactive


def test_a_candidate_that_is_gone_is_named_in_its_column_and_the_others_answer(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    candidates.clear()
    final = send(sources, station, empty(*BOTH))
    assert "pruned is no longer there" in last_of(final, station.columns["B"].problem).value
    assert ANSWERED in last_of(final, station.columns["A"].stats)


def test_a_file_without_a_language_model_and_a_question_too_long_are_told_in_sentences(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path], tmp_path: Path
) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "imatrix.gguf", "imatrix")
    writer.add_tensor("blk.0.ffn_up.weight.in_sum2", np.ones((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    candidates["imatrix"] = tmp_path / "imatrix.gguf"
    updates = send(sources, station, empty(ALONE[0], Column("B", "imatrix")))
    assert "imatrix.gguf holds no language model" in last_of(updates, station.columns["B"].problem).value
    assert ANSWERED in last_of(updates, station.columns["A"].stats)
    long = send(sources, station, empty(*ALONE), prompt="word " * 40_000)
    assert "tokens, and the model is open for" in last_of(long, station.columns["A"].problem).value
    assert not last_of(long, station.columns["A"].restart).visible


def test_where_memory_is_short_the_page_says_so_before_an_answer_starts(
    sources: ChatSources, station: ChatStation, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = model_need(tiny_gguf_once(), sources.pool.loading.context, sources.pool.slots).memory
    monkeypatch.setenv(MEMORY_VARIABLE, str(int(1.5 * need)))
    updates = send(sources, station, empty(*BOTH))
    said = next(index for index, update in enumerate(updates) if "in turn" in update.get(station.note, ""))
    chats = [station.columns[id].chat for id in "AB"]
    texts = [any(isinstance(update.get(part), list) and len(update[part]) > 1 for part in chats) for update in updates]
    assert said < texts.index(True)
    assert all(ANSWERED in last_of(updates, station.columns[id].stats) for id in "AB")


def test_a_server_that_died_is_shown_with_its_log_and_restarts_at_the_press_of_a_button(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    parts = station.columns["B"]
    send(sources, station, empty(*BOTH))
    with sources.pool.lease(candidates["pruned"], 1) as server:
        doomed = server.pid
    os.kill(doomed, signal.SIGSTOP)  # or it might be through before it dies
    updates = []
    talking = talk(sources, station, empty(*BOTH), max_tokens=ENDLESS)
    for update in talking:
        updates.append(update)
        answer = update.get(station.columns["A"].chat)
        if isinstance(answer, list) and len(answer) > 1:  # it answers, so both have been asked
            break
    os.kill(doomed, signal.SIGKILL)
    for update in talking:
        updates.append(update)
        chat._stop(last_of(updates, station.running))
    problem = last_of(updates, parts.problem).value
    assert "was killed" in problem and "<pre class='log'" in problem
    freed = freed_after(station, updates)
    assert freed[parts.restart].visible and not freed[station.columns["A"].restart].visible
    conversation = last_of(updates, station.conversation)
    again = list(chat._restart(sources, station, "B", values_of(station, conversation)))
    assert ANSWERED in last_of(again, parts.stats) and not freed_after(station, again)[parts.restart].visible
    assert last_of(again, station.conversation).answer("A") == conversation.answer("A")


def test_one_column_is_stopped_and_the_other_goes_on(sources: ChatSources, station: ChatStation) -> None:
    updates = []
    for update in talk(sources, station, empty(*BOTH), max_tokens=4000):
        updates.append(update)
        conversation = last_of(updates, station.conversation)
        if conversation.answer("B").text and conversation.answer("A").text:
            chat._stop(last_of(updates, station.running), "B")
    ended = last_of(updates, station.conversation)
    assert ended.answer("B").finish == "stopped" and ended.answer("A").finish == "length"


def test_asking_again_keeps_or_moves_the_seed_and_replaces_the_answers(
    sources: ChatSources, station: ChatStation
) -> None:
    sampled = {"temperature": 1.0, "seed": 4}
    first = last_of(send(sources, station, empty(*ALONE), **sampled), station.conversation)
    values = values_of(station, first, **sampled)
    same = last_of(list(chat._again(sources, station, 0, values)), station.conversation)
    assert len(same.turns) == 1 and same.answer("A").text == first.answer("A").text
    updates = list(chat._again(sources, station, 1, values))
    other = last_of(updates, station.conversation).answer("A")
    assert updates[0][station.settings.seed] == 5 == other.origin.sampler.seed
    assert other.text != first.answer("A").text
    assert list(chat._again(sources, station, 0, values_of(station, empty(*ALONE)))) == [gr.skip()]


def test_a_changed_question_is_asked_and_the_conversation_goes_on_from_there(
    sources: ChatSources, station: ChatStation
) -> None:
    conversation = empty(*BOTH)
    for _ in range(2):
        conversation = last_of(send(sources, station, conversation), station.conversation)
    event = gr.EditData(None, {"index": 0, "previous_value": "Hello", "value": "Good morning"})
    updates = list(chat._edit(sources, station, "A", values_of(station, conversation), event))
    edited = last_of(updates, station.conversation)
    assert [turn.prompt for turn in edited.turns] == ["Good morning"]
    assert all(edited.answer(id).timing.tokens == 24 for id in "AB")
    busy = values_of(station, conversation) | {station.running: Running(Waiting())}
    (refused,) = chat._edit(sources, station, "A", busy, event)
    assert "Answers are coming" in refused[station.problem].value and len(refused[station.conversation].turns) == 2


def test_clear_in_the_middle_leaves_an_empty_chat(
    sources: ChatSources, station: ChatStation, kept: list[Conversation]
) -> None:
    updates = []
    for update in talk(sources, station, empty(*BOTH), max_tokens=ENDLESS):
        updates.append(update)
        conversation = last_of(updates, station.conversation)
        answer, coming = conversation.answer("A"), last_of(updates, station.running)
        if answer and answer.text and coming and not coming.instead:
            running = coming
            values = values_of(station, conversation) | {station.running: running}
            assert not chat._clear(sources, station, values)[station.conversation].turns
    assert updates[-1][station.conversation] == empty(*BOTH) == kept[-1]
    assert all(updates[-1][parts.chat] == [] for parts in station.columns.values())
    again = chat._clear(sources, station, values_of(station, empty(*BOTH)) | {station.running: running})
    assert again[station.conversation] == empty(*BOTH)  # once more, with nothing coming


def test_a_tab_that_closes_stops_its_answers_and_what_came_is_kept(
    sources: ChatSources, station: ChatStation, kept: list[Conversation]
) -> None:
    talking = talk(sources, station, empty(*ALONE), max_tokens=ENDLESS)
    updates = []
    for update in talking:
        updates.append(update)
        if last_of(updates, station.conversation).answer("A").text:
            break
    talking.close()  # what gradio does when the browser is gone
    last = [event for _, event in last_of(updates, station.running).stream]
    assert last[-1].finish == "stopped"
    assert kept[-1].answer("A").text and kept[-1].answer("A").finish == "stopped"


def test_columns_are_added_and_removed(sources: ChatSources, station: ChatStation, candidates: dict[str, Path]) -> None:
    candidates["other"] = candidates["pruned"]
    added = chat._add(sources, station, values_of(station, empty(*BOTH)))
    assert added[station.conversation].columns == (*BOTH, Column("C", "other"))
    assert added[station.columns["C"].group].visible and added[station.columns["C"].model].value == "other"
    full = chat._add(sources, station, values_of(station, added[station.conversation]))
    assert len(full[station.conversation].columns) == 4 and not full[station.add].interactive
    assert full[station.conversation].columns[3] == Column("D", REFERENCE)
    said = full[station.conversation].asked("Hi", "ABCD")
    left = chat._remove(sources, station, "B", values_of(station, said))
    assert [column.id for column in left[station.conversation].columns] == ["A", "C", "D"]
    assert list(left[station.conversation].turns[0].answers) == ["A", "C", "D"]
    back = chat._add(sources, station, values_of(station, left[station.conversation]))
    assert [column.id for column in back[station.conversation].columns] == ["A", "B", "C", "D"]


def test_another_model_in_a_column_begins_anew_there_alone(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    candidates["other"] = candidates["pruned"]
    said = empty(*BOTH).asked("Hi", "AB")
    values = values_of(station, said) | {station.columns["B"].model: "other"}
    changed = chat._another_model(sources, station, "B", values)[station.conversation]
    assert changed.column("B").model == "other" and list(changed.turns[0].answers) == ["A"]
    assert station.conversation not in chat._another_model(sources, station, "B", values_of(station, said))


def test_refresh_keeps_what_can_be_kept_and_brings_back_what_was_said(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path], kept: list[Conversation]
) -> None:
    first = station.refresh(values_of(station, empty(Column("A"), Column("B"))))
    assert first[station.conversation] == empty(*BOTH)
    assert first[station.columns["B"].model].value == "pruned"
    known = {station.known: first[station.known]}
    candidates.clear()
    said = empty(*ALONE).asked("Hi", "A")
    kept.append(said.cut_off())
    again = station.refresh(values_of(station, empty(Column("A"), Column("B"))))
    assert again[station.conversation] == kept[-1]
    assert text(again[station.columns["A"].chat].value[0]) == "Hi" and not again[station.columns["B"].group].visible
    same = station.refresh(values_of(station, said) | known)
    assert station.conversation not in same
    gone = station.refresh(values_of(station, empty(*BOTH)) | known)
    assert gone[station.columns["B"].model].value is None
    assert gone[station.columns["B"].chat].placeholder == NO_MODEL


def test_what_was_just_built_is_chosen_unless_a_conversation_is_under_way(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    known = {station.known: ("demo", (REFERENCE, "pruned"))}
    candidates["newer"] = candidates["pruned"]
    fresh = station.refresh(values_of(station, empty(*BOTH)) | known)
    assert fresh[station.conversation].column("B").model == "newer"
    under_way = station.refresh(values_of(station, empty(*BOTH).asked("Hi", "AB")) | known)
    assert under_way[station.columns["B"].model].value == "pruned"


def test_a_page_opened_again_before_anybody_asked_chooses_what_was_built_meanwhile(
    sources: ChatSources, station: ChatStation, candidates: dict[str, Path]
) -> None:
    as_laid_out = values_of(station, empty(Column("A"), Column("B")))
    station.refresh(as_laid_out)
    candidates |= {"newer": candidates["pruned"], "pruned": candidates.pop("pruned")}
    assert station.refresh(as_laid_out)[station.conversation].column("B").model == "newer"


def test_a_source_that_fails_is_reported(pool: ServerPool) -> None:
    def fails() -> Any:
        raise InputError("The reference is damaged.")

    broken = ChatSources(pool, fails, EXAMPLES, fails, fails, lambda conversation: None)
    with gr.Blocks():
        station = chat_station(broken)
    values = values_of(station, empty(*BOTH))
    assert "The reference is damaged." in station.refresh(values)[station.problem].value
    assert "The reference is damaged." in list(chat._send(broken, station, values))[-1][station.problem].value
    assert "The reference is damaged." in chat._add(broken, station, values)[station.problem].value


def test_settings_reach_the_sampler_by_name(station: ChatStation) -> None:
    told = {"system": None, "thinking": True, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "seed": 7}
    values = values_of(station, empty(*BOTH), **told, max_tokens=100, budget=30, min_p=0.1, repeat_penalty=1.1)
    asked = asked_with(station.settings, values)
    assert (asked.system, asked.thinking, asked.probabilities) == ("", True, False)
    assert asked.sampler.model_dump() == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "seed": 7,
        "max_tokens": 100,
        "reasoning_budget": 30,
    }


def test_official_samplers_are_those_of_the_family_and_of_whether_it_thinks(
    sources: ChatSources, station: ChatStation
) -> None:
    qwen, gemma, mixtral = (family_named(name) for name in ("qwen3_moe", "gemma4", "mixtral"))
    assert [key for _, key in how_choices(qwen)] == ["greedy", "official", "own"]
    assert [key for _, key in how_choices(mixtral)] == [key for _, key in how_choices(None)] == ["greedy", "own"]
    assert sampling_values(OFFICIAL, qwen, thinking=True)["temperature"] == 0.6
    assert sampling_values(OFFICIAL, qwen, thinking=False)["top_p"] == 0.8
    both = [sampling_values(OFFICIAL, gemma, thinking) for thinking in (False, True)]
    assert both[0] == both[1] and both[0]["top_k"] == 64 and both[0]["temperature"] == 1.0
    assert sampling_values(GREEDY, None, thinking=False)["temperature"] == 0
    assert sampling_values("own", gemma, thinking=True) == {}
    updates = chat._sampler(sources, station, values_of(station, empty(*BOTH), how=OFFICIAL, thinking=True))
    assert updates[station.settings.temperature] == 0.6 and updates[station.settings.top_k] == 20


def test_a_saved_file_has_its_name_in_the_first_line_and_an_empty_chat_gives_none(
    sources: ChatSources, station: ChatStation
) -> None:
    conversation = last_of(send(sources, station, empty(*ALONE)), station.conversation)
    name, _, content = chat._file(chat.conversation_json, "json", conversation).partition("\n")
    assert name == "conversation.json" and chat.conversation_json(conversation) == content
    assert chat._file(chat.conversation_markdown, "md", empty(*ALONE)) == ""
