"""What a trial of a map looks like: a sentence, a table per class, and how it compares with another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from components.jobs import bar_html
from components.markup import class_label, failure, notice, percent_text, table
from studio.errors import Cancelled
from studio.evaluate.divergence import Divergence
from studio.evaluate.trials import Trial
from studio.evaluate.virtual import Measurement

KEPT = 8
"""So many results can be compared with."""
ERRORS = 2.0
"""Differences of more than so many standard errors are called one."""

NOTHING = notice(
    "This map has not been tried.",
    "The reference is loaded once, which takes a moment; after that a map takes one pass over the prompts.",
)


@dataclass(frozen=True)
class Tried:
    """A map that was measured."""

    number: int
    """1, 2, … as this tab measured them."""
    label: str
    map_hash: str
    dropped: int
    experts: int
    warning: str
    """What is wrong with the prompts; empty for nothing."""
    found: Measurement

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**vars(self), "found": self.found.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Tried:
        """The counterpart of `to_json`; `KeyError` and the like for anything else."""
        return cls(**{**content, "found": Measurement.from_json(content["found"])})

    @property
    def name(self) -> str:
        return f"{self.number}: {self.label}, {self.dropped} dropped"

    @property
    def same_as(self) -> tuple[str, str]:
        """Equal for the same map on the same prompts."""
        return self.map_hash, self.found.story


def with_tried(kept: Sequence[Tried], tried: Tried) -> tuple[Tried, ...]:
    """`kept` with `tried` as the latest; what was measured again keeps its number."""
    same = next((one.number for one in kept if one.same_as == tried.same_as), None)
    number = same or max((one.number for one in kept), default=0) + 1
    others = [one for one in kept if one.same_as != tried.same_as]
    renumbered = Tried(**{**vars(tried), "number": number})
    return (*others, renumbered)[-KEPT:]


def other_choices(kept: Sequence[Tried]) -> list[tuple[str, int]]:
    """What the latest can be compared with: 0 is the one before it."""
    return [("The one before", 0), *((one.name, one.number) for one in reversed(kept[:-1]))]


def progress_html(trial: Trial) -> str:
    """How far a trial is, or why it failed; empty when it has a result."""
    if isinstance(trial.error, Cancelled):
        return notice("Cancelled.", "Nothing of it was kept.")
    if trial.error:
        return failure(trial.error)
    if trial.result:
        return ""
    message = trial.message[:1].upper() + trial.message[1:]
    amount = f"{trial.done} of {trial.total} {trial.unit}" if trial.total else ""
    return bar_html(trial.done / trial.total if trial.total else 0.0, f"{message} …", amount, "Progress of the trial")


def tried_html(kept: Sequence[Tried], other: int, here: str) -> str:
    """The latest of `kept`, beside the one with the number `other` (0: the one before). `here` is the hash of the map
    that is shown."""
    if not kept:
        return NOTHING
    tried = kept[-1]
    before = next((one for one in kept if one.number == other and one is not tried), None)
    before = before or (kept[-2] if len(kept) > 1 else None)
    stale = notice(f"These numbers are of another map: {tried.label}, {tried.dropped} dropped.", "", "warning")
    warning = notice(tried.warning, "", "warning") if tried.warning else ""
    return (
        f"{stale if tried.map_hash != here else ''}{warning}<h3 class='panel-title'>{escape(_title(tried))}</h3>"
        f"<p>{escape(_sentence(tried.found))}</p>{_compared(tried, before) if before else ''}"
        f"{_table(tried.found, before.found if before and _comparable(tried, before) else None)}"
        f"<p class='quiet'>{escape(tried.found.story)}; measured in {tried.found.seconds:.1f} s.</p>"
    )


def _title(tried: Tried) -> str:
    return (
        f"With {tried.dropped} of {tried.experts} experts dropped, predictions move by "
        f"{nats(tried.found.kl)} nats per token"
    )


def _sentence(found: Measurement) -> str:
    worst = max(found.classes, key=lambda klass: _ranked(found.classes[klass].kl_mean))
    tokens, same = f"{found.overall.tokens:,} tokens of {found.prompts} prompts", percent_text(found.overall.same_top)
    return (
        f"That is the KL divergence from the reference, the mean of {len(found.classes)} classes, on {tokens}. "
        f"{class_label(worst)} moves most ({nats(found.classes[worst].kl_mean)}). "
        f"The likeliest token stays the same on {same} of them."
    )


def _comparable(tried: Tried, before: Tried) -> bool:
    return tried.found.story == before.found.story


def _compared(tried: Tried, before: Tried) -> str:
    if not _comparable(tried, before):
        return notice(f"{before.name} was measured on other prompts.", "Measure both on the same to compare them.")
    apart = tried.found.kl - before.found.kl
    error = math.hypot(_error(tried.found), _error(before.found))
    if abs(apart) <= ERRORS * error or not math.isfinite(error):
        verdict = f"which is no difference that {before.found.overall.tokens:,} tokens could tell"
    else:
        verdict = f"so this map is {nats(abs(apart))} {'closer to' if apart < 0 else 'further from'} the reference"
    return f"<p>{escape(before.name)}, moves them by {nats(before.found.kl)}, {escape(verdict)}.</p>"


def _error(found: Measurement) -> float:
    """Standard error of the mean of classes."""
    return math.hypot(*(one.kl_mean_error for one in found.classes.values())) / len(found.classes)


def _table(found: Measurement, before: Measurement | None) -> str:
    rows = {**found.classes, "all tokens": found.overall}
    finite = [one.kl_mean for one in rows.values() if math.isfinite(one.kl_mean)]
    others = {**before.classes, "all tokens": before.overall} if before else {}
    finite += [one.kl_mean for one in others.values() if math.isfinite(one.kl_mean)]
    reach = max(finite, default=0.0) or 1.0
    head = ["Class", "Tokens", "", "KL mean", *(["Before"] if before else []), "Median", "99 %", "Same top token"]
    shown = table(
        [*head, "Perplexity"],
        [_row(klass, one, reach, others.get(klass), bool(before)) for klass, one in rows.items()],
        numeric=[1, *range(3, len(head) + 1)],
        caption="KL divergence in nats per token, with its standard error; perplexity in units of the reference's",
    )
    return f"<div class='tried'>{shown}</div>"


def _row(klass: str, one: Divergence, reach: float, before: Divergence | None, compared: bool) -> list[str]:
    width = 100 * min(1.0, one.kl_mean / reach) if math.isfinite(one.kl_mean) else 100.0
    mark = ""
    if before is not None and math.isfinite(before.kl_mean):
        mark = f"<b style='left:{100 * before.kl_mean / reach:.1f}%'></b>"
    bar = f"<span class='meter' aria-hidden='true'><i style='width:{width:.1f}%'></i>{mark}</span>"
    mean = f"{nats(one.kl_mean)} <small>± {nats(one.kl_mean_error)}</small>"
    was = [nats(before.kl_mean) if before is not None else "–"] if compared else []
    ratio = f"× {one.perplexity_ratio:.3f}" if math.isfinite(one.perplexity_ratio) else "–"
    numbers = [nats(one.kl_median), nats(one.kl_p99), percent_text(one.same_top) if one.tokens else "–", ratio]
    return [escape(class_label(klass)), f"{one.tokens:,}", bar, mean, *was, *numbers]


def nats(value: float) -> str:
    """A divergence as people read it."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if 0 < value < 0.00005:
        return "< 0.0001"
    return f"{value:.4f}" if value < 10 else f"{value:.3g}"


def _ranked(value: float) -> float:
    return -1.0 if math.isnan(value) else value
