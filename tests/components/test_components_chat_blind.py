"""Blind comparisons as gradio calls them, on real models: nothing tells who is who before the vote."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from components import chat
from components.chat import ChatModel, ChatSources, ChatStation, chat_station
from components.chat_answers import Running, Waiting
from components.chat_parts import REFERENCE, Ballots
from studio.checkpoints.digests import digest_file
from studio.evaluate.votes import VoteStore
from studio.families import family_named
from studio.serve import blind
from studio.serve.conversation import Column, Conversation
from studio.serve.pool import ServerPool
from studio.serve.served import GgufModel
from tests.components.test_components_chat import freed_after, last_of, values_of
from tests.serve.serve_models import tiny_gguf_once

BOTH = (Column("A", REFERENCE), Column("B", "pruned"))
SECRETS = ("tiny.gguf", "pruned.gguf", "MiB", "tokens/s", "first token", "Reference", "Candidate")


@pytest.fixture
def store(tmp_path: Path) -> VoteStore:
    return VoteStore(tmp_path / "votes")


@pytest.fixture
def kept() -> list[Conversation]:
    return []


@pytest.fixture
def sources(tmp_path: Path, store: VoteStore, kept: list[Conversation]) -> Iterator[ChatSources]:
    """Two files with the same weights: whatever differs on the page is not what the models say."""
    candidate = Path(shutil.copy(tiny_gguf_once(), tmp_path / "pruned.gguf"))
    pool = ServerPool(tmp_path / "logs")

    steps = ["Converting …", GgufModel(tiny_gguf_once())]

    def models() -> dict[str, ChatModel]:
        return {
            REFERENCE: ChatModel("pear", "Reference", None, partial(iter, steps)),
            "pruned": ChatModel("plum", "Candidate", candidate, partial(iter, [GgufModel(candidate)])),
        }

    yield ChatSources(
        pool,
        models,
        {},
        lambda: family_named("gemma4"),
        lambda: kept[-1] if kept else None,
        kept.append,
        ballots=Ballots(store, tmp_path / "digests", lambda: "ann"),
    )
    pool.close()


@pytest.fixture
def station(sources: ChatSources) -> ChatStation:
    with gr.Blocks():
        return chat_station(sources)


def valued(station: ChatStation, conversation: Conversation, **told: Any) -> dict[Any, Any]:
    return {**values_of(station, conversation, **told), station.blind: conversation.blind is not None}


def shown(value: Any) -> Any:
    """What the browser is sent of a part."""
    return value.constructor_args if isinstance(value, gr.blocks.Block) else value


def begun(sources: ChatSources, station: ChatStation) -> Conversation:
    switched = chat._blind(sources, station, {**valued(station, Conversation(columns=BOTH)), station.blind: True})
    assert not switched[station.columns["A"].model].visible and not switched[station.add].visible
    return switched[station.conversation]


def test_nothing_that_is_sent_before_the_vote_differs_between_the_columns(
    sources: ChatSources, station: ChatStation, kept: list[Conversation]
) -> None:
    updates = list(chat._send(sources, station, valued(station, begun(sources, station))))
    columns = [station.columns[id] for id in "AB"]
    for update in updates:
        for name in vars(columns[0]):
            left, right = (update.get(getattr(parts, name), "nothing") for parts in columns)
            if name == "model":  # the lists say who takes part, in the order in which they were chosen
                assert left == "nothing" or not shown(left).get("visible", False)
            elif name == "heading":
                assert str(left).replace("<strong>A", "<strong>B") == str(right)
            else:
                assert str(shown(left)).replace("'A", "'B") == str(shown(right)).replace("'A", "'B")
        own = [station.states, [parts.model for parts in station.columns.values()]]
        hidden = {station.conversation, station.running, *own[0], *own[1]}
        text = str([shown(value) for part, value in update.items() if part not in hidden])
        assert not [secret for secret in SECRETS if secret in text], text
    assert "data-choice='both bad'" in last_of(updates, station.ballot)
    assert last_of(updates, station.parting) == "" and "ended" in last_of(updates, columns[0].stats).replace(
        "cut off, no tokens left", "ended"
    )
    conversation = last_of(updates, station.conversation)
    for written, ending in ((chat.conversation_json, "json"), (chat.conversation_markdown, "md")):
        file = chat._file(written, ending, conversation)
        assert not [secret for secret in ("pear", "plum", *SECRETS) if secret in file]
    assert blind.sealed(kept[-1])


def test_a_vote_is_stored_with_who_was_where_and_tells_it(
    sources: ChatSources, station: ChatStation, store: VoteStore, kept: list[Conversation], monkeypatch: Any
) -> None:
    conversation, lots, seats = begun(sources, station), random.Random(4), []
    monkeypatch.setattr(blind, "SystemRandom", lambda: lots)
    for choice in ("better", "worse", "better", "both bad"):
        updates = list(chat._send(sources, station, valued(station, conversation)))
        asked = last_of(updates, station.conversation)
        seats.append(asked.blind.seats)
        told = chat._vote(sources, station, choice, valued(station, asked))
        again = chat._vote(sources, station, choice, valued(station, told[station.conversation]))
        assert "nothing to vote on" in again[station.problem].value
        conversation = told[station.conversation]
        names = {"A": "pear", "B": "plum"}
        for place, seat in zip("AB", seats[-1], strict=True):
            assert names[seat] in told[station.columns[place].heading]
            assert "tokens/s" in told[station.columns[place].stats]
        assert kept[-1].blind and kept[-1].blind.choice == choice
    assert len(set(seats)) == 2, "the lots have to matter"
    votes, damaged = store.read("ann")
    assert not damaged and [vote.choice for vote in votes] == ["better", "worse", "better", "both bad"]
    for vote, (left, _) in zip(votes, seats, strict=True):
        assert (vote.left.name, vote.right.name) == (("pear", "plum") if left == "A" else ("plum", "pear"))
        assert vote.prompt == "Hello" and vote.configuration["sampler"]["max_tokens"] == 24
        assert vote.left.sha256 == digest_file(tiny_gguf_once()) == vote.right.sha256
    assert "Your 4 blind votes" in told[station.tally]
    # The reload in the middle: still blind, and what was voted before is counted.
    unvoted = last_of(list(chat._send(sources, station, valued(station, conversation))), station.conversation)
    back = station.refresh(valued(station, Conversation(columns=BOTH)))
    assert back[station.conversation] == unvoted and back[station.blind] is True
    assert "data-choice" in back[station.ballot] and "Your 4 blind votes" in back[station.tally]
    assert "pear" not in back[station.columns["A"].heading] + back[station.columns["B"].heading]
    off = chat._blind(sources, station, {**valued(station, unvoted), station.blind: False})
    assert off[station.ballot] == "" == off[station.tally] and off[station.conversation].blind is None
    assert off[station.columns["A"].model].visible and len(off[station.conversation].turns) == 1


def test_a_model_that_fails_is_named_and_cannot_be_voted_on(
    sources: ChatSources, station: ChatStation, tmp_path: Path
) -> None:
    conversation = begun(sources, station)
    (tmp_path / "pruned.gguf").write_bytes(b"no model")
    updates = list(chat._send(sources, station, valued(station, conversation)))
    assert "no vote any more" in last_of(updates, station.ballot)
    headings = "".join(last_of(updates, station.columns[id].heading) for id in "AB")
    assert "pear" in headings and not freed_after(station, updates)[station.columns["A"].restart].visible


def test_three_columns_are_not_compared_blind(sources: ChatSources, station: ChatStation) -> None:
    values = valued(station, Conversation(columns=(*BOTH, Column("C", "pruned"))))
    refused = chat._blind(sources, station, {**values, station.blind: True})
    assert refused[station.blind] is False and "between two models" in refused[station.problem].value
    busy = chat._blind(sources, station, {**values, station.blind: True, station.running: Running(Waiting())})
    assert "Answers are coming" in busy[station.problem].value


def test_clear_leaves_the_chat_blind_and_empty(sources: ChatSources, station: ChatStation) -> None:
    asked = last_of(list(chat._send(sources, station, valued(station, begun(sources, station)))), station.conversation)
    empty = chat._clear(sources, station, valued(station, asked))[station.conversation]
    assert empty.turns == () and empty.blind == blind.Blind()
