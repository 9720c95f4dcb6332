"""`Calibration`: the prompts of an analysis, where they come from, and fair parts of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from studio.contributions.prompts import Prompt


@dataclass(frozen=True)
class Calibration:
    """Prompts with different ids, and the names of the sources that they were read from."""

    prompts: tuple[Prompt, ...]
    sources: tuple[str, ...]

    @cached_property
    def classes(self) -> Mapping[str, int]:
        """How many prompts each class has, in order of first appearance."""
        return Counter(prompt.klass for prompt in self.prompts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that the prompts say, in their order; where they lay does not matter."""
        said = [[p.id, p.klass, [dict(turn) for turn in p.messages], p.answer, p.passage] for p in self.prompts]
        return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=True).encode()).hexdigest()

    @property
    def story(self) -> str:
        """Sources and fingerprint in a few words, for the analysis that is made with these prompts."""
        return f"{' + '.join(self.sources)} (sha256 {self.digest[:12]})"

    def without_answers(self) -> Calibration:
        """The same questions, to be answered by the model itself; passages stay as they are."""
        return replace(self, prompts=tuple(replace(prompt, answer=None) for prompt in self.prompts))

    def at_most(self, per_class: int, seed: int = 0) -> Calibration:
        """At most `per_class` prompts of each class, in their order.

        Which ones depends on `seed` and ids alone, so that a larger part holds the smaller one, and prompts that are
        added to one class change nothing in another.
        """

        def draw(prompt: Prompt) -> bytes:
            return hashlib.sha256(f"{seed}\n{prompt.id}".encode()).digest()

        drawn: dict[str, int] = {}
        chosen = set()
        for prompt in sorted(self.prompts, key=draw):
            drawn[prompt.klass] = drawn.get(prompt.klass, 0) + 1
            if drawn[prompt.klass] <= per_class:
                chosen.add(prompt.id)
        return replace(self, prompts=tuple(prompt for prompt in self.prompts if prompt.id in chosen))
