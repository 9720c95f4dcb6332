"""The verb that counts blind votes."""

from __future__ import annotations

from typing import Annotated

import typer

from studio.cli.terminal import Json, note, result
from studio.workspace import Workspace


def votes(
    *,
    user: Annotated[str | None, typer.Option(help="Only this person's; a page without a login has one, local.")] = None,
    json: Json = False,
) -> None:
    """Say which models people preferred without knowing which was which.

    Each pair of models has its tally, with Wilson's interval over the votes that preferred one of the two.
    """
    from studio.evaluate.votes import VoteStore, in_words, tallies

    found, damaged = VoteStore(Workspace.open().votes).read(user)
    for error in damaged:
        note(str(error))
    counted = tallies(found)
    text = "\n".join(map(in_words, counted)) or "Nobody has voted yet: switch “Blind” on in the chat, and ask."
    fields = {"votes": [vote.model_dump(mode="json") for vote in found], "tallies": [one.to_json() for one in counted]}
    result(json, fields, text)
