"""A whole search: prompts in two parts, a journal, and a last table on the part that the search has not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.checkpoints.reference import open_reference
from studio.contributions.calibration import Calibration
from studio.contributions.checkpoint import model_key
from studio.contributions.model import Contributions
from studio.errors import FormatError, InputError
from studio.evaluate.held_out import MAX_TOKENS, held_out, overlap, question_of, split
from studio.evaluate.search import check_drops, search
from studio.evaluate.search_candidates import fixed_recipes, random_map
from studio.evaluate.search_points import Journal, Point, best, frontier
from studio.evaluate.virtual import Measurement, Ruler, VirtualModel
from studio.progress import Progress, silent
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
from studio.staging import staged

RESULT = "search.json"
PER_CLASS = 80
"""Prompts of each class, for both parts together, unless someone asks for more."""
SEARCH_SHARE = 0.5
"""Of them the search goes by this share, and the rest is kept for the end."""


@dataclass(frozen=True)
class SearchRequest:
    """What is searched for, and by which prompts."""

    model_dir: Path
    contributions: Contributions
    prompts: Calibration
    drops: tuple[int, ...]
    seed: int = 0
    dtype: str = "auto"
    max_tokens: int = MAX_TOKENS
    thinking: bool = False
    unseen: Calibration | None = None
    """What the end is measured on; None: a part of `prompts` that the search then never sees."""

    def parts(self) -> tuple[Calibration, Calibration]:
        """The prompts that the search goes by, and those that it never sees; `InputError` where they share one."""
        if self.unseen is None:
            return split(self.prompts, SEARCH_SHARE, self.seed)
        if shared := {*map(question_of, self.prompts.prompts)} & {*map(question_of, self.unseen.prompts)}:
            raise InputError(
                f"{len(shared)} prompts that the search goes by are to be unseen at the end.", "Take them out of one."
            )
        return self.prompts, self.unseen

    def check(self) -> None:
        """Raise `InputError` for drop counts that cannot be, prompts that the analysis was made with, and parts that
        cannot be made; `MismatchError` for contributions of another model.
        """
        reference = open_reference(self.model_dir)
        if reference.kind != "safetensors":
            raise InputError(f"{reference.name} is a GGUF file, and cannot be searched.", "Open the checkpoint.")
        check_drops(self.contributions, self.drops)
        random_map(self.contributions, self.drops[0], 0).check(reference.shape)
        for prompts in filter(None, (self.prompts, self.unseen)):
            if problem := overlap(self.contributions, prompts):
                raise InputError(problem, "Search on prompts that the analysis has not seen.")
        self.parts()

    @property
    def asked(self) -> dict[str, Any]:
        """What the answer depends on, as a journal says it."""
        return {
            "model": model_key(self.model_dir),
            "contributions": self.contributions.content_hash,
            "prompts": self.prompts.digest,
            "drops": list(self.drops),
            "seed": self.seed,
            "dtype": self.dtype,
            "max_tokens": self.max_tokens,
            "thinking": self.thinking,
        }


@dataclass(frozen=True)
class Finalist:
    """A way to choose experts, measured on prompts that the search has not seen."""

    drop: int
    label: str
    """A fixed criterion, "random", or what the search found: "optimised", "refined"."""
    recipe: Recipe | None
    """None where the experts were drawn by lot."""
    drop_map: DropMap
    searched: Measurement | None
    """On the prompts that the search went by; None where it did not try this map."""
    unseen: Measurement


@dataclass(frozen=True)
class SearchResult:
    """All points, and the finalists on unseen prompts."""

    points: tuple[Point, ...]
    finalists: tuple[Finalist, ...]
    parameters: Mapping[int, int]
    """Of the pruned model, by number of dropped experts."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.points[0].measurement.classes)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: points by number, frontiers as numbers of points, and the table."""
        fronts = {klass or "all": [p.number for p in frontier(self.points, klass)] for klass in (None, *self.classes)}
        return {
            "points": [
                {**point.to_json(), "parameters": self.parameters[point.drop], "kl": point.kl()}
                for point in self.points
            ],
            "frontier": fronts,
            "table": [
                {
                    "drop": one.drop,
                    "label": one.label,
                    "parameters": self.parameters[one.drop],
                    "recipe": None if one.recipe is None else json.loads(one.recipe.to_json()),
                    "map_hash": one.drop_map.content_hash,
                    "searched": None if one.searched is None else one.searched.to_json(),
                    "unseen": one.unseen.to_json(),
                }
                for one in self.finalists
            ],
        }


@dataclass(frozen=True)
class Unseen:
    """A row of the table at a search's end."""

    drop: int
    label: str
    found: Measurement
    """On prompts that the search has not seen."""


def read_unseen(folder: Path) -> tuple[Unseen, ...]:
    """The table of the finished search in `folder`, else nothing; `FormatError` when it is damaged."""
    path = folder / RESULT
    if not path.exists():
        return ()
    try:
        rows = json.loads(path.read_bytes())["table"]
        return tuple(Unseen(int(row["drop"]), str(row["label"]), Measurement.from_json(row["unseen"])) for row in rows)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(path, "table", f"this is no search ({error})", "Remove the folder.") from error


def run_search(
    request: SearchRequest,
    folder: Path,
    *,
    budget_s: float,
    most: int | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> SearchResult:
    """Search for `budget_s` seconds, measure the best on unseen prompts, and write all of it into `folder`.

    There, `journal.jsonl` has every point as soon as it is measured: a search that was cancelled or killed goes on from
    it, and so does one that is asked for again with a larger budget. `search.json` is the result; beside it lie recipe
    and map of the best for each drop count. The reference's own pass and the last table come on top of the budget.

    Raises as `SearchRequest.check` and `VirtualModel.load` do, `MismatchError` when `folder` holds another search.
    """
    request.check()
    journal = Journal(folder, request.asked)
    progress(0, int(budget_s), "seconds", "loading the reference")
    virtual = VirtualModel.load(request.model_dir, request.dtype)
    seen, unseen = (
        Ruler(
            virtual,
            held_out(virtual.tokenizer, part, max_tokens=request.max_tokens, thinking=request.thinking),
            cache,
        )
        for part in request.parts()
    )
    points = search(
        seen,
        request.contributions,
        journal,
        drops=request.drops,
        budget_s=budget_s,
        seed=request.seed,
        most=most,
        progress=progress,
    )
    if not points:
        raise InputError("Not a single recipe gives a map of this model.", "Drop fewer experts.")
    chosen = list(finalists(request.contributions, points, request.drops, request.seed))
    measured = []
    for number, (drop, label, recipe, drop_map, searched) in enumerate(chosen):
        progress(number, len(chosen), "recipes", f"measuring on unseen prompts: {label}")
        measured.append(Finalist(drop, label, recipe, drop_map, searched, unseen.measure(drop_map)))
    progress(len(chosen), len(chosen), "recipes", "measured on unseen prompts")
    reference = open_reference(request.model_dir)
    kept = {drop: reference.parameters_with(request.contributions.shape.experts - drop) for drop in request.drops}
    result = SearchResult(tuple(points), tuple(measured), kept)
    _write(result, request, folder)
    return result


def finalists(
    contributions: Contributions, points: Sequence[Point], drops: Sequence[int], seed: int
) -> Iterator[tuple[int, str, Recipe | None, DropMap, Measurement | None]]:
    """(drop, label, recipe, map, what the search saw of it) of lots, fixed criteria, and the best of either search."""
    by_map = {point.measurement.map_hash: point.measurement for point in points}
    for drop in drops:
        lots = random_map(contributions, drop, seed)
        yield drop, "random", None, lots, by_map.get(lots.content_hash)
        for label, recipe in fixed_recipes(contributions, drop).items():
            made = make_map(contributions, recipe)
            yield drop, label, recipe, made, by_map.get(made.content_hash)
        of_drop = [point for point in points if point.drop == drop]
        for label, stages in (("optimised", ("optimised", "weights")), ("refined", ("refined",))):
            if any(point.stage in stages for point in of_drop):
                found = best(of_drop, drop, [stage for stage in ("optimised", "weights", "refined") if stage in stages])
                yield drop, label, found.recipe, make_map(contributions, found.recipe), found.measurement


def _write(result: SearchResult, request: SearchRequest, folder: Path) -> None:
    with staged(folder / RESULT, overwrite=True) as partial:
        content = {"asked": request.asked, **result.to_json()}
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for drop in request.drops:
        if not any(point.drop == drop for point in result.points):
            continue
        recipe = best(result.points, drop).recipe
        made = make_map(request.contributions, recipe)
        for name, text in ((f"drop-{drop}.recipe.json", recipe.to_json()), (f"drop-{drop}.map.json", made.to_json())):
            with staged(folder / name, overwrite=True) as partial:
                partial.write_text(text, encoding="utf-8")
