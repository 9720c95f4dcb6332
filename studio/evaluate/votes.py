"""Blind votes: which of two answers a person found better, without knowing whose they were, and what they come to.

Each person's votes are lines of JSON in a file of their own, in the room `votes` of the workspace. Lines are only ever
added. A vote is about the left answer against the right one, and says which model was where.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import InputError
from studio.evaluate.statistics import CONFIDENCE, Interval, wilson
from studio.serve.blind import can_vote
from studio.serve.conversation import Conversation, Origin

Choice = Literal["better", "worse", "same", "both bad"]
"""Of the left answer against the right one."""
CHOICES: tuple[Choice, ...] = ("better", "worse", "same", "both bad")
_EVEN = 0.5


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Contestant(_Record):
    """A model that answered."""

    name: str
    file: str
    bytes: int = Field(ge=0)
    sha256: str
    """Of the weights: models with the same are the same, whatever they are called."""
    system: str = ""
    """The system prompt that it had."""


class Vote(_Record):
    """One judgement."""

    version: Literal[1] = 1
    time: datetime
    prompt: str
    left: Contestant
    right: Contestant
    choice: Choice
    configuration: dict[str, Any]
    """The sampler and whether it thought, the same for both."""


def vote_of(conversation: Conversation, choice: str) -> Vote:
    """A vote that is cast now about the last answers of a blind conversation.

    Raises `InputError` where there is nothing to vote on, and for a `choice` that is none.
    """
    known: Choice | None = next((one for one in CHOICES if one == choice), None)
    if known is None:
        raise InputError(f"{choice!r} is no vote.", f"Vote {', '.join(CHOICES)}.")
    if conversation.blind is None or not can_vote(conversation):
        raise InputError("There is nothing to vote on.", "Ask a question, and vote once when both have answered.")
    turn = conversation.turns[-1]
    left, right = (turn.answers[seat].origin for seat in conversation.blind.seats)
    assert left is not None and right is not None, "answers that ended have an origin"
    return Vote(
        time=datetime.now(UTC).replace(microsecond=0),
        prompt=turn.prompt,
        left=_contestant(left),
        right=_contestant(right),
        choice=known,
        configuration={"sampler": left.sampler.model_dump(mode="json"), "thinking": left.thinking},
    )


def _contestant(origin: Origin) -> Contestant:
    return Contestant(
        name=origin.model, file=origin.file, bytes=origin.file_bytes, sha256=origin.sha256, system=origin.system.strip()
    )


@dataclass(frozen=True)
class VoteStore:
    """The votes of all people, in `folder`."""

    folder: Path

    def path(self, user: str) -> Path:
        """The file of a user, whatever letters the name has."""
        return self.folder / f"{hashlib.sha256(user.encode()).hexdigest()[:16]}.jsonl"

    def add(self, user: str, vote: Vote) -> None:
        """Write a vote down; it is on the disk when this returns. A line that a crash tore off is left behind."""
        path = self.path(user)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            length = file.seek(0, os.SEEK_END)
            if length:
                file.seek(length - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(vote.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self, user: str | None = None) -> tuple[list[Vote], list[InputError]]:
        """The votes of `user`, or of all for None, and an error for each line that is none."""
        votes: list[Vote] = []
        damaged: list[InputError] = []
        for path in sorted(self.folder.glob("*.jsonl")) if user is None else [self.path(user)]:
            lines = path.read_bytes().splitlines() if path.is_file() else []
            for number, line in enumerate(lines, 1):
                try:
                    votes.append(Vote.model_validate_json(line))
                except ValidationError:
                    damaged.append(InputError(f"{path}, line {number} is no vote.", "It is not counted."))
        return votes, damaged


@dataclass(frozen=True)
class Tally:
    """What the votes about two models come to; ties count apart."""

    first: Contestant
    second: Contestant
    first_better: int = 0
    second_better: int = 0
    same: int = 0
    both_bad: int = 0

    @property
    def votes(self) -> int:
        """All votes."""
        return self.decided + self.same + self.both_bad

    @property
    def decided(self) -> int:
        """Votes that preferred one of the two."""
        return self.first_better + self.second_better

    @property
    def share(self) -> float | None:
        """Share of the decided votes for the first; None where there are none."""
        return self.first_better / self.decided if self.decided else None

    @property
    def interval(self) -> Interval:
        """Wilson's, of `share`."""
        return wilson(self.first_better, self.decided)

    def counting(self, vote: Vote) -> Tally:
        """With one more vote, which has to be about these two models."""
        if vote.choice == "same":
            return replace(self, same=self.same + 1)
        if vote.choice == "both bad":
            return replace(self, both_bad=self.both_bad + 1)
        winner = vote.left if vote.choice == "better" else vote.right
        if _identity(winner) == _identity(self.first):
            return replace(self, first_better=self.first_better + 1)
        return replace(self, second_better=self.second_better + 1)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        counts = {name: getattr(self, name) for name in ("first_better", "second_better", "same", "both_bad")}
        return {
            "first": self.first.model_dump(),
            "second": self.second.model_dump(),
            **counts,
            "share": self.share,
            "interval": [self.interval.low, self.interval.high],
            "says": in_words(self),
        }


def tallies(votes: Iterable[Vote]) -> list[Tally]:
    """One tally for each pair of models, those with the most votes first.

    Models are told apart by their weights and system prompts. Which of the two is the first does not depend on the
    order of the votes, nor on who was on which side.
    """
    pairs: dict[tuple[tuple[str, str], ...], Tally] = {}
    for vote in sorted(votes, key=lambda vote: vote.time):
        first, second = sorted((vote.left, vote.right), key=_identity)
        key = (_identity(first), _identity(second))
        # A model that was renamed goes by its last name.
        known = replace(pairs[key], first=first, second=second) if key in pairs else Tally(first, second)
        pairs[key] = known.counting(vote)
    ordered = sorted(pairs.values(), key=lambda tally: (tally.first.name, tally.second.name))
    return sorted((_by_name(tally) for tally in ordered), key=lambda tally: -tally.votes)


def in_words(tally: Tally) -> str:
    """`a was better in 9 of 12 votes between them (75 %, 95 % interval 47 % to 91 %); 3 the same: no evidence …`."""
    ties = [f"{tally.same} the same"] * bool(tally.same) + [f"{tally.both_bad} both bad"] * bool(tally.both_bad)
    first, second = names_of(tally)
    if tally.share is None:
        return f"{first} against {second}: no vote preferred one of them; {', '.join(ties) or 'no votes yet'}."
    low, high = tally.interval.low, tally.interval.high
    if low > _EVEN:
        verdict = f"{first} is preferred"
    elif high < _EVEN:
        verdict = f"{second} is preferred"
    else:
        verdict = "no evidence that either is preferred"
    said = f"{tally.decided} vote{'s' if tally.decided != 1 else ''} that preferred one"
    counts = f"{first} was better than {second} in {tally.first_better} of {said}"
    interval = f"{tally.share:.0%}, {CONFIDENCE:.0%} interval {low:.0%} to {high:.0%}".replace("%", " %")
    return f"{counts} ({interval}); {', '.join(ties) or 'no ties'}: {verdict}."


def names_of(tally: Tally) -> tuple[str, str]:
    """Names that tell the two apart: with the start of their hash where they are called the same, or with "with a
    system prompt" where only that differs."""
    first, second = tally.first, tally.second
    if first.name != second.name:
        return first.name, second.name
    if first.sha256 != second.sha256:
        return f"{first.name} ({first.sha256[:8]})", f"{second.name} ({second.sha256[:8]})"
    return _with_prompt(first), _with_prompt(second)


def _with_prompt(one: Contestant) -> str:
    return f"{one.name} (prompt “{one.system[:30]}”)" if one.system.strip() else f"{one.name} (no system prompt)"


def _by_name(tally: Tally) -> Tally:
    """The same with the names in the order of the alphabet."""
    if (tally.first.name, _identity(tally.first)) <= (tally.second.name, _identity(tally.second)):
        return tally
    return replace(
        tally,
        first=tally.second,
        second=tally.first,
        first_better=tally.second_better,
        second_better=tally.first_better,
    )


def _identity(one: Contestant) -> tuple[str, str]:
    return one.sha256, one.system
