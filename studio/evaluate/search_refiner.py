"""A greedy refinement: experts near the boundary change places, and what the measurement likes better stays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from studio.contributions.model import Contributions
from studio.errors import InputError
from studio.recipes.apply import make_map, scores
from studio.recipes.overrule import overrule
from studio.recipes.recipe import Recipe

NEARNESS = 0.2
"""Chance that the next expert from the boundary is the one that is swapped; otherwise the one after it, and so on."""
PATIENCE = 3
"""After so many failures fewer layers swap at once."""
_ATTEMPTS = 20


class Refiner:
    """Swaps a kept and a dropped expert in one or several layers of a recipe, said by hand in it.

    It begins with a swap in a quarter of the layers at once, and comes down to one where that does not help any more. A
    swap stays within a group where the router chooses among groups. The same `seed` and answers give the same swaps.
    """

    def __init__(self, contributions: Contributions, seed: int) -> None:
        self._contributions = contributions
        self._lots = np.random.default_rng(seed)
        self._width = self._widest
        self._failures = 0
        self._base: Recipe | None = None
        self._divergence = float("inf")
        self._order = np.empty(0)
        self._proposed: Recipe | None = None
        self._tried: set[str] = set()

    def begin(self, recipe: Recipe, divergence: float) -> None:
        """Go on from `recipe` where it is better than what was reached so far."""
        if divergence < self._divergence and recipe != self._base:
            self._take(recipe, divergence)
            self._width, self._failures = self._widest, 0
            self._order = scores(self._contributions, recipe)

    def ask(self) -> Recipe | None:
        """A recipe a swap or a few away from the best; None when nothing new comes up."""
        assert self._base is not None, "begin comes first"
        dropped = make_map(self._contributions, self._base).mask
        for _ in range(_ATTEMPTS):
            wanted = dropped.copy()
            rows = sorted(self._lots.choice(len(dropped), size=self._width, replace=False).tolist())
            recipe = self._base
            for row in rows:
                swap = self._swap(row, dropped[row])
                if swap is None:
                    continue
                gone, back = swap
                wanted[row, gone], wanted[row, back] = True, False
                recipe = self._swapped(recipe, row, gone, back)
            if recipe is not self._base and self._is_new(recipe, wanted):
                self._proposed = recipe
                return recipe
        return None

    def tell(self, divergence: float | None) -> bool:
        """What the last recipe does; whether it is better, and taken from here on."""
        assert self._proposed is not None, "ask comes first"
        if divergence is not None and divergence < self._divergence:
            self._take(self._proposed, divergence)
            self._failures = 0
            return True
        self._failures += 1
        if self._failures >= PATIENCE and self._width > 1:
            self._width, self._failures = self._width // 2, 0
        return False

    @property
    def _widest(self) -> int:
        return max(1, self._contributions.shape.layers // 4)

    def _take(self, recipe: Recipe, divergence: float) -> None:
        self._base, self._divergence = recipe, divergence

    def _swap(self, row: int, dropped: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
        """(expert that leaves, expert that comes back) of one layer, both near the boundary."""
        order = np.argsort(self._order[row], kind="stable")
        leaving = self._near([int(expert) for expert in order if not dropped[expert]])
        if leaving is None:
            return None
        size = len(dropped) // self._contributions.shape.groups
        back = self._near(
            [int(expert) for expert in order[::-1] if dropped[expert] and expert // size == leaving // size]
        )
        return None if back is None else (leaving, back)

    def _near(self, experts: list[int]) -> int | None:
        """One of `experts`, which stand by their distance from the boundary; the first ones most likely."""
        if not experts:
            return None
        return experts[(int(self._lots.geometric(NEARNESS)) - 1) % len(experts)]

    def _swapped(self, recipe: Recipe, row: int, gone: int, back: int) -> Recipe:
        shape = self._contributions.shape
        return overrule(overrule(recipe, shape, [row], [gone], "drop"), shape, [row], [back], "keep")

    def _is_new(self, recipe: Recipe, wanted: npt.NDArray[np.bool_]) -> bool:
        """Whether `recipe` gives just the map that was meant, and one that was not tried."""
        try:
            made = make_map(self._contributions, recipe)
        except InputError:
            return False
        if (made.mask != wanted).any() or made.content_hash in self._tried:
            return False
        self._tried.add(made.content_hash)
        return True
