"""What exactly a model will see of each prompt, and how many tokens that is, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from studio.contributions.encoding import encode, is_open
from studio.contributions.prompts import Prompt


@dataclass(frozen=True)
class SeenPrompt:
    """One prompt as the model sees it: first `question`, then `answer`; texts with special tokens written out.

    The model is observed on all tokens of both, from the first one on. `cut` lay beyond the limit of tokens, and is
    seen by nobody. Where `continuation_tokens` is not 0, at most that many words of the model's own come after.
    """

    id: str
    klass: str
    question: str
    answer: str
    cut: str
    question_tokens: int
    answer_tokens: int
    cut_tokens: int
    continuation_tokens: int

    @property
    def tokens(self) -> int:
        """Those that are known to be observed: without what the model will add."""
        return self.question_tokens + self.answer_tokens


@dataclass(frozen=True)
class Lengths:
    """Observed tokens of a class, without what the model adds itself."""

    prompts: int
    shortest: int
    median: float
    longest: int
    total: int
    cut: int
    """How many of its prompts are cut."""
    open: int
    """How many the model answers itself."""


@dataclass(frozen=True)
class PromptPreview:
    """All prompts as the model sees them, and how long they are, per class in order of first appearance."""

    prompts: tuple[SeenPrompt, ...]
    classes: Mapping[str, Lengths]


def preview_prompts(
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int = 4096,
    continuation_tokens: int = 128,
    thinking: bool = False,
) -> PromptPreview:
    """Foretell what `collect` with the same arguments observes. Raises what `encode` raises."""
    seen = tuple(_seen(tokenizer, prompt, max_tokens, continuation_tokens, thinking) for prompt in prompts)
    of_class: dict[str, list[SeenPrompt]] = {}
    for one in seen:
        of_class.setdefault(one.klass, []).append(one)
    return PromptPreview(seen, {klass: _lengths(members) for klass, members in of_class.items()})


def _seen(tokenizer: Any, prompt: Prompt, max_tokens: int, continuation_tokens: int, thinking: bool) -> SeenPrompt:
    question, answer = encode(tokenizer, prompt, thinking=thinking)
    kept_question, kept_answer = question[:max_tokens], answer[: max(0, max_tokens - len(question))]
    cut = (question + answer)[max_tokens:]

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    return SeenPrompt(
        id=prompt.id,
        klass=prompt.klass,
        question=text(kept_question),
        answer=text(kept_answer),
        cut=text(cut),
        question_tokens=len(kept_question),
        answer_tokens=len(kept_answer),
        cut_tokens=len(cut),
        continuation_tokens=continuation_tokens if is_open(prompt) else 0,
    )


def _lengths(seen: Sequence[SeenPrompt]) -> Lengths:
    tokens = [one.tokens for one in seen]
    return Lengths(
        prompts=len(seen),
        shortest=min(tokens),
        median=median(tokens),
        longest=max(tokens),
        total=sum(tokens),
        cut=sum(one.cut_tokens > 0 for one in seen),
        open=sum(one.continuation_tokens > 0 for one in seen),
    )
