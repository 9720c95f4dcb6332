"""The questions that a person has about an analysis, answered in numbers and in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from studio.contributions.insights import (
    MEASURES,
    SURE,
    Array,
    Counts,
    Specialist,
    class_overlap,
    enough_questions,
    experts_for,
    gini,
    layer_importance,
    measured,
    measuring_sum,
    specialists,
    split_half,
    unused,
)
from studio.contributions.model import Contributions

MOST, HALF = 0.8, 0.5
"""Shares of a layer's contribution, for which experts are counted."""
TOP_SHARE = 4
"""A quarter of the experts of a layer are its strongest: as many as a common pruning keeps at the least."""
SPECIALISTS = 10
"""Named; there may be more."""
_LISTED = 12
"""Experts without a token that a sentence names."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What `contributions` say. What an analysis does not tell is None, and why stands in the sentences."""

    contributions: Contributions
    curve: Array
    """Share of its layer's contribution that the n strongest experts give, `[L, E]`."""
    needed: Counts
    """Experts that give `MOST` of a layer's contribution, `[L]`."""
    half: Counts
    """Those that give `HALF` of it."""
    gini: Array
    """`[L]`."""
    importance: Array
    """Contribution of each layer, of the largest, `[L]`."""
    top: int
    """How many experts of a layer are its strongest."""
    overlap: Array | None
    """How many of those two classes share, `[C, C]`."""
    unused: tuple[tuple[int, int], ...] | None
    specialists: tuple[Specialist, ...]
    halves: Array | None
    """How well two halves of the questions agree about each layer, `[L]`."""
    enough: int | None
    """Questions that would make every layer's ranking sure."""
    skipped_tokens: int
    truncated: int
    """Questions that were cut."""
    outliers: int
    """Numbers that are not finite."""


def answers_of(contributions: Contributions) -> Answers:
    """Everything that `contributions` tell; some tens of milliseconds, a second where there are thousands of questions.

    Raises `InputError` when they hold neither norms nor tokens.
    """
    values = measured(contributions)
    total = values.sum(axis=0)
    per_class = contributions.per_class(values)
    top = max(1, contributions.shape.experts // TOP_SHARE)
    several = len(contributions.classes) > 1
    divisible = _has_questions(contributions)
    ordered = -np.sort(-total, axis=1)
    whole = ordered.sum(axis=1, keepdims=True)
    return Answers(
        contributions=contributions,
        curve=np.divide(np.cumsum(ordered, axis=1), whole, out=np.zeros_like(ordered), where=whole > 0),
        needed=experts_for(total, MOST),
        half=experts_for(total, HALF),
        gini=gini(total),
        importance=layer_importance(total),
        top=top,
        overlap=class_overlap(per_class, top) if several else None,
        unused=unused(contributions) if "tokens" in contributions.sums else None,
        specialists=specialists(contributions, SPECIALISTS) if several else (),
        halves=split_half(values) if divisible else None,
        enough=enough_questions(values) if divisible else None,
        skipped_tokens=sum(question.skipped_tokens for question in contributions.questions),
        truncated=sum(question.truncated for question in contributions.questions),
        outliers=int(contributions.nonfinite.sum()),
    )


def _has_questions(contributions: Contributions) -> bool:
    """Whether rows are single questions and there are several of them, not classes that were added up elsewhere."""
    questions = contributions.questions
    added_up = any(question.prompts > 1 for question in questions) or len(questions) == len(contributions.classes)
    return len(questions) >= 2 and not added_up


@dataclass(frozen=True)
class Finding:
    """An answer: what was found in a few words, and the rest in sentences."""

    title: str
    text: str


def findings(answers: Answers) -> dict[str, Finding]:
    """The answers in words: `concentration`, `layers`, `sharing`, `specialists`, `unused`, `stability`, `quality`."""
    return {
        "concentration": _concentration(answers),
        "layers": _layers(answers),
        "sharing": _sharing(answers),
        "specialists": _specialists(answers),
        "unused": _unused(answers),
        "stability": _stability(answers),
        "quality": _quality(answers),
    }


def measure(contributions: Contributions) -> str:
    """What the answers are about: what an expert's contribution is measured by."""
    name = measuring_sum(contributions)
    how = "an estimate that nobody measured" if name in contributions.estimated else "measured"
    return f"{MEASURES[name]}, {how}"


def _concentration(answers: Answers) -> Finding:
    experts = answers.contributions.shape.experts
    half, most = (round(float(np.median(counts))) for counts in (answers.half, answers.needed))
    return Finding(
        f"Half of what experts give comes from {half} of {experts}",
        f"In the median layer {half} of {experts} experts give half of the contribution and {most} give 80 % of it "
        f"(between {answers.needed.min()} and {answers.needed.max()} by layer). The Gini coefficient is "
        f"{np.median(answers.gini):.2f} ({answers.gini.min():.2f} to {answers.gini.max():.2f}; 0 where all give the "
        "same, 1 where one gives all).",
    )


def _layers(answers: Answers) -> Finding:
    ids, importance = answers.contributions.shape.layer_ids, answers.importance
    first, last = int(importance.argmax()), int(importance.argmin())
    if len(ids) == 1:
        return Finding(f"Layer {ids[0]} is the only one", "There is nothing to compare it with.")
    return Finding(
        f"Layer {ids[first]} contributes most, layer {ids[last]} least",
        f"The experts of layer {ids[last]} contribute {_percent(importance[last])} of what those of layer {ids[first]} "
        f"do; the median layer {_percent(np.median(importance))}.",
    )


def _sharing(answers: Answers) -> Finding:
    overlap, classes, experts = answers.overlap, answers.contributions.classes, answers.contributions.shape.experts
    if overlap is None:
        return Finding("There is one class only", "What classes share is not known for this analysis.")
    pairs = {(a, b): float(overlap[a, b]) for a, b in combinations(range(len(classes)), 2)}
    mean = float(np.mean(list(pairs.values())))
    most, least = max(pairs, key=lambda pair: pairs[pair]), min(pairs, key=lambda pair: pairs[pair])
    extremes = (
        f", most of all {classes[most[0]]} and {classes[most[1]]} ({pairs[most]:.1f}), least {classes[least[0]]} and "
        f"{classes[least[1]]} ({pairs[least]:.1f})"
        if len(pairs) > 1
        else ""
    )
    return Finding(
        f"Two classes share {mean:.1f} of their {answers.top} strongest experts",
        f"Of the {answers.top} strongest experts in a layer two classes have {mean:.1f} in common{extremes}. By chance "
        f"it would be {answers.top**2 / experts:.1f}.",
    )


def _specialists(answers: Answers) -> Finding:
    if not answers.specialists:
        return Finding("Specialists cannot be told", "Only an analysis of several classes tells them.")
    first, classes = answers.specialists[0], len(answers.contributions.classes)
    return Finding(
        f"The clearest specialist works for {first.klass}",
        f"Expert {first.expert} of layer {first.layer} gives {first.klass} {_percent(first.share)} of its "
        f"contribution, each class counting the same; without preference it would give each {_percent(1 / classes)}.",
    )


def _unused(answers: Answers) -> Finding:
    shape = answers.contributions.shape
    if answers.unused is None:
        return Finding("Which experts are never used is not known", "This analysis does not count tokens.")
    if not answers.unused:
        return Finding("Every expert is used", "Each of them saw at least one token.")
    named = [f"{expert} in layer {layer}" for layer, expert in answers.unused]
    more = f", and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
    count, all_experts = len(named), shape.layers * shape.experts
    return Finding(
        f"{count} of {all_experts} experts {'is' if count == 1 else 'are'} never used",
        f"No token reached expert {', '.join(named[:_LISTED])}{more}.",
    )


def _stability(answers: Answers) -> Finding:
    count = len(answers.contributions.questions)
    if answers.halves is None or answers.enough is None:
        why = "has one question" if count == 1 else "has no single questions, only classes that were added up"
        return Finding("How sure the ranking is, is not known", f"This analysis {why}.")
    worst = answers.contributions.shape.layer_ids[int(answers.halves.argmin())]
    enough = answers.enough
    return Finding(
        f"{count:,} questions make a sure ranking"
        if enough <= count
        else f"A sure ranking of every layer takes about {enough:,} questions",
        f"Two halves of the questions, taken by lot, rank experts alike to {answers.halves.mean():.2f} (Spearman's "
        f"correlation, mean over layers; {answers.halves.min():.2f} in layer {worst}). About {enough:,} questions like "
        f"these make the ranking of every layer reliable to {SURE:.2f}; there are {count:,}.",
    )


def _quality(answers: Answers) -> Finding:
    faults = [
        f"{what}: {number:,}"
        for number, what in (
            (answers.outliers, "Numbers that are not finite, and count as the median of their layer"),
            (answers.skipped_tokens, "Tokens that were skipped, because the model's own numbers overflowed"),
            (answers.truncated, "Questions that were cut to the limit of tokens"),
        )
        if number
    ]
    if not faults:
        return Finding("Nothing was lost on the way", "All numbers are finite; no token was skipped, no question cut.")
    return Finding("Not everything could be counted", f"{'. '.join(faults)}.")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
