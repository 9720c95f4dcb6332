"""`Contributions`: what every expert did for every question, as sums from which each published criterion is derived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.errors import InputError
from studio.families.base import MoeShape

Array = npt.NDArray[np.float64]

SUMS = ("tokens", "gate", "norm", "norm_squared", "weighted_norm", "weighted_norm_squared")
"""The six sums over the tokens routed to an expert: N, Σg, Σ‖f‖, Σ‖f‖², Σ‖g·f‖, Σ‖g·f‖².

f is the expert's output for a token, before weighting; g is the weight that the model multiplies it with. Where an
architecture folds a scale per expert into that weight (Gemma 4's `per_expert_scale`), so does g.
"""

UNKNOWN_FAMILY = "unknown"
"""`MoeShape.family` of an imported analysis that does not say which model it was made from."""


@dataclass(frozen=True)
class Question:
    """One row of the sums: a prompt, or all prompts of a class where an imported analysis kept no more than that."""

    id: str
    klass: str
    prompts: int = 1
    truncated: bool = False
    """Whether the prompt was cut to the collector's limit of tokens."""
    skipped_tokens: int = 0
    """Tokens left out because their hidden state was not finite in some layer."""


@dataclass(frozen=True, eq=False)
class Contributions:
    """Sums per question × layer × expert: arrays `[Q, L, E]`, float64, read-only.

    `sums` holds those of `SUMS` that are known (arrays are not copied); an imported analysis lacks some. L follows
    `shape.layer_ids`.
    `source` says in one line where the numbers come from. Raises `InputError` when the parts do not fit each other.
    """

    shape: MoeShape
    model: str
    questions: tuple[Question, ...]
    sums: Mapping[str, Array]
    source: str = ""
    estimated: tuple[str, ...] = ()
    """Those of `sums` that nobody measured, but that were estimated from something else; `source` says from what."""

    def __post_init__(self) -> None:
        expected = (len(self.questions), self.shape.layers, self.shape.experts)
        if not self.questions or not self.sums:
            raise InputError("A contribution analysis needs at least one question and one sum.")
        if (duplicate := _first_duplicate(question.id for question in self.questions)) is not None:
            raise InputError(f"Two questions of the analysis are called {duplicate!r}.", "Give each its own id.")
        frozen = {}
        for name, values in self.sums.items():
            if name not in SUMS:
                raise InputError(f"{name!r} is not one of the sums {', '.join(SUMS)}.")
            array = np.ascontiguousarray(values, dtype=np.float64).view()
            if array.shape != expected:
                raise InputError(
                    f"The sum {name!r} has shape {list(array.shape)} and not {list(expected)} = [Q, L, E]."
                )
            array.flags.writeable = False
            frozen[name] = array
        ordered = {name: frozen[name] for name in SUMS if name in frozen}
        object.__setattr__(self, "sums", MappingProxyType(ordered))
        if unknown := set(self.estimated) - set(ordered):
            raise InputError(f"{min(unknown)!r} is said to be estimated, and is none of the sums {', '.join(ordered)}.")

    def sum(self, name: str) -> Array:
        """One of `SUMS`, `[Q, L, E]`; `InputError` when this analysis has none of that name."""
        try:
            return self.sums[name]
        except KeyError:
            known = ", ".join(self.sums)
            raise InputError(
                f"This analysis of {self.model or 'an unnamed model'} has no sum {name!r}; it has {known}.",
                "Choose a criterion that needs only those, or analyze the model again with Espalier.",
            ) from None

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of the questions, in order of first appearance."""
        return tuple(dict.fromkeys(question.klass for question in self.questions))

    @cached_property
    def class_index(self) -> npt.NDArray[np.int64]:
        """For each question the index of its class in `classes`, `[Q]`."""
        position = {klass: index for index, klass in enumerate(self.classes)}
        return np.array([position[question.klass] for question in self.questions], dtype=np.int64)

    def per_class(self, values: Array) -> Array:
        """`values` `[Q, L, E]` summed over the questions of each class: `[C, L, E]`, in the order of `classes`."""
        total = np.zeros((len(self.classes), *values.shape[1:]), dtype=np.float64)
        for question, klass in enumerate(self.class_index):  # numpy's add.at is seven times slower
            total[klass] += values[question]
        return total

    def question_norm(self, weighted: bool = True) -> Array:
        """Norm of a question's whole stack of expert outputs, `[Q, L, E]`: sqrt(Σ_tokens ‖g·f‖²), or without g.

        This is the `wnorm` (and `rnorm`) of published analyses.
        """
        result: Array = np.sqrt(self.sum("weighted_norm_squared" if weighted else "norm_squared"))
        return result

    @cached_property
    def nonfinite(self) -> npt.NDArray[np.bool_]:
        """Where any sum is NaN or infinite, `[Q, L, E]`: outliers that were imported as they are."""
        bad = np.zeros((len(self.questions), self.shape.layers, self.shape.experts), dtype=np.bool_)
        for values in self.sums.values():
            bad |= ~np.isfinite(values)
        return bad

    def nonfinite_places(self, limit: int = 20) -> tuple[str, ...]:
        """The first `limit` places of `nonfinite`, for a person: question, layer, expert, sum and value."""
        places = []
        for question, layer, expert in np.argwhere(self.nonfinite)[:limit]:
            values = {name: array[question, layer, expert] for name, array in self.sums.items()}
            bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not np.isfinite(value))
            where = f"{self.questions[question].id}, layer {self.shape.layer_ids[layer]}, expert {expert}"
            places.append(f"{where}: {bad}")
        return tuple(places)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over shape, questions and sums; it does not depend on the layout of any file."""
        described: dict[str, Any] = {
            "shape": self.shape.fields,
            "questions": [asdict(question) for question in self.questions],
        }
        if self.estimated:
            described["estimated"] = sorted(self.estimated)
        digest = hashlib.sha256(json.dumps(described, sort_keys=True, ensure_ascii=True).encode())
        for name, values in self.sums.items():
            digest.update(name.encode())
            digest.update(values.astype("<f8", copy=False).tobytes())
        return digest.hexdigest()


def _first_duplicate(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
