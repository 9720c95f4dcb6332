"""What people said is found again by them alone."""

from __future__ import annotations

from pathlib import Path

from components.kept_conversations import KeptConversations
from studio.serve.conversation import Column, Conversation

SAID = Conversation(columns=(Column("A", "@reference"),)).asked("A secret?", "A").cut_off()


def test_everybody_finds_their_own_and_per_reference(tmp_path: Path) -> None:
    kept = KeptConversations(tmp_path)
    kept.write("ann", "demo", SAID)
    assert kept.read("ann", "demo") == SAID
    for user, reference in (("bob", "demo"), ("ann", "other"), ("", "demo"), ("ann/../ann", "demo"), ("annd", "emo")):
        assert kept.read(user, reference) is None


def test_nothing_is_written_while_it_is_not_known_whose_it_is(tmp_path: Path) -> None:
    KeptConversations(tmp_path).write("", "demo", SAID)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_a_chat_that_begins_anew(tmp_path: Path) -> None:
    kept = KeptConversations(tmp_path)
    kept.path("ann", "demo").write_text("{")
    assert kept.read("ann", "demo") is None
    kept.write("ann", "demo", SAID)
    assert kept.read("ann", "demo") == SAID
