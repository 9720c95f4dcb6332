"""Prompts that a model is measured on, as tokens: which of them count, and whether they are new to an analysis."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.contributions.calibration import Calibration
from studio.contributions.encoding import encode, is_open
from studio.contributions.model import Contributions
from studio.contributions.prompts import Prompt
from studio.contributions.sources import BUILTIN
from studio.errors import InputError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
DEMO_MODEL, DEMO_PROMPTS = ASSETS / "demo-model", ASSETS / "demo-heldout.jsonl"

MAX_TOKENS = 4096
CONTINUATION_TOKENS = 64
"""What the reference answers where a prompt has no answer."""
COUNTED_TOKENS = 512
"""Of one prompt at most so many tokens count, its first: one long passage would outweigh a class otherwise."""
PER_CLASS = 40
"""Prompts of each class that are measured on, unless someone asks for more."""


@dataclass(frozen=True)
class Passage:
    """One prompt with its answer, as tokens. Those from `first` on count, each predicted by all before it.

    Of a conversation these are the tokens of the answer: what the person says is not the model's to predict. Of a plain
    passage they are all but its first. The end of the turn is in no given answer, and counts nowhere.
    """

    klass: str
    tokens: tuple[int, ...]
    first: int
    open: bool = False
    """Whether the reference has yet to answer."""

    @property
    def counted(self) -> int:
        """How many tokens count."""
        return min(len(self.tokens) - self.first, COUNTED_TOKENS)

    def answered(self, tokens: Sequence[int]) -> Passage:
        """This prompt with the reference's own answer, up to its end."""
        return replace(self, tokens=tuple(tokens), open=False)


@dataclass(frozen=True)
class HeldOut:
    """Prompts as one tokenizer and chat template make them."""

    passages: tuple[Passage, ...]
    story: str
    """Where they come from, and their fingerprint."""

    @property
    def classes(self) -> tuple[str, ...]:
        """In order of first appearance."""
        return tuple(dict.fromkeys(passage.klass for passage in self.passages))


def held_out(
    tokenizer: Any, calibration: Calibration, *, max_tokens: int = MAX_TOKENS, thinking: bool = False
) -> HeldOut:
    """What `calibration` is for a model with that tokenizer, each prompt cut to `max_tokens`.

    A prompt of which no answer is left is passed over. Raises what `encode` raises, and `InputError` when nothing is
    left at all.
    """
    found = (_passage(tokenizer, prompt, max_tokens, thinking) for prompt in calibration.prompts)
    passages = tuple(passage for passage in found if passage.open or passage.counted > 0)
    if not passages:
        raise InputError("There is no token to measure on.", "Give prompts with answers, or longer passages.")
    return HeldOut(passages, calibration.story)


def own_prompts(model_dir: Path) -> str:
    """The source of prompts to measure a model on when nobody names one: the demo model has exercises of its own."""
    return str(DEMO_PROMPTS) if Path(model_dir).resolve() == DEMO_MODEL else BUILTIN


def split(calibration: Calibration, share: float, seed: int = 0) -> tuple[Calibration, Calibration]:
    """Two disjoint parts of `calibration`: of every class `share` (0 to 1) of the prompts, and the rest.

    Which ones depends on `seed` and what the prompts say, so that the same question never stands in both. Raises
    `InputError` when a class has a single prompt.
    """
    by_class: dict[str, dict[bytes, list[Prompt]]] = {}
    for prompt in calibration.prompts:
        lot = hashlib.sha256(f"{seed}\n{question_of(prompt)}".encode()).digest()
        by_class.setdefault(prompt.klass, {}).setdefault(lot, []).append(prompt)
    first: set[str] = set()
    for klass, drawn in by_class.items():
        if len(drawn) < 2:
            raise InputError(f"The class {klass!r} has one prompt, and two parts are needed.", "Give it more.")
        size = min(len(drawn) - 1, max(1, round(share * len(drawn))))
        first.update(prompt.id for lot in sorted(drawn)[:size] for prompt in drawn[lot])
    parts = [tuple(p for p in calibration.prompts if (p.id in first) == wanted) for wanted in (True, False)]
    return replace(calibration, prompts=parts[0]), replace(calibration, prompts=parts[1])


def question_of(prompt: Prompt) -> str:
    """What is asked in `prompt`, whatever it is called: the same for the same question."""
    return repr([[dict(message) for message in prompt.messages], prompt.passage])


def overlap(contributions: Contributions, calibration: Calibration) -> str:
    """What is wrong with measuring on `calibration` what was chosen by `contributions`, in a sentence; empty: nothing.

    An analysis says which prompts it was made with, by name and fingerprint. Where only a name agrees, some of the
    prompts may be the same.
    """
    made_with = contributions.source
    if f"sha256 {calibration.digest[:12]}" in made_with:
        return "These prompts are those of the analysis: whatever it chose looks better on them than it is."
    names = [name for name in calibration.sources if name in made_with.partition("prompts: ")[2]]
    return f"{names[0]} was a source of the analysis too: some of its prompts may be among these." if names else ""


def _passage(tokenizer: Any, prompt: Prompt, max_tokens: int, thinking: bool) -> Passage:
    question, answer = encode(tokenizer, prompt, thinking=thinking)
    tokens = tuple((question + answer)[:max_tokens])
    return Passage(prompt.klass, tokens, 1 if prompt.passage is not None else len(question), is_open(prompt))
