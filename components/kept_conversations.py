"""What people said last to each reference, in the workspace: nobody finds what somebody else said."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from studio.errors import EspalierError
from studio.serve.conversation import Conversation
from studio.serve.saved import conversation_from_json, conversation_json
from studio.staging import staged

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptConversations:
    """One conversation per user and reference, in `folder`."""

    folder: Path

    def path(self, user: str, reference: str) -> Path:
        """The file of a user and a reference, whatever letters their names have."""
        return self.folder / f"{_digest(user)}.{_digest(reference)}.chat.json"

    def read(self, user: str, reference: str) -> Conversation | None:
        """What `user` and `reference` said; None where nothing is known."""
        path = self.path(user, reference)
        if not user or not path.is_file():
            return None
        try:
            return conversation_from_json(path.read_bytes(), path.name)
        except EspalierError as error:
            _LOG.warning("%s", error)  # of another version: better a chat that begins anew than none
            return None

    def write(self, user: str, reference: str, conversation: Conversation) -> None:
        """Remember a conversation; nothing is written while it is not known whose it is."""
        if not user:
            return
        with staged(self.path(user, reference), overwrite=True) as partial:
            partial.write_text(conversation_json(conversation), encoding="utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
