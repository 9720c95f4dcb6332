"""What is open on this machine: models, analyses and the maps made of them, shared by all tabs.

Tabs keep names and hashes (`StudioState`); the arrays lie here once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from components.state import StudioState, most_dropped
from studio.checkpoints.gguf_header import GgufHeader
from studio.checkpoints.gguf_outline import outline
from studio.checkpoints.reference import Reference, open_reference
from studio.contributions.answers import Answers, answers_of
from studio.contributions.merge import merge
from studio.contributions.model import Contributions
from studio.errors import InputError, MismatchError, OutputExistsError
from studio.families import MoeShape
from studio.jobs.adopt import adopted_analysis, adopted_reference
from studio.jobs.task import ASSETS, reference_names, reference_path
from studio.quantize.dynamic import ranking_of_contributions, ranking_of_imatrix
from studio.quantize.imatrix import Coverage
from studio.quantize.imatrix_contributions import import_any
from studio.quantize.writer import fitting_imatrix, kept_experts
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.preview import Preview, preview
from studio.staging import staged
from studio.workspace import Workspace

DEMO_ANALYSIS = ASSETS / "demo-contributions.safetensors"
QUICK_BYTES = 1 << 30
"""Of a model, whose experts are read within seconds while a person waits for an importance matrix to be opened."""


def _signature(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a model is replaced by another one of its name."""
    files = [*sorted(path.glob("*.safetensors*")), path / "config.json"] if path.is_dir() else [path]
    found = ((file.name, file.stat()) for file in files if file.exists())
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)


@dataclass(frozen=True)
class Opened:
    """A tab's state with everything it names: what the stations render."""

    state: StudioState
    reference: Reference | None
    contributions: Contributions | None
    second: Contributions | None
    """The second analysis, where one is chosen."""
    analysis_path: str | None
    second_path: str | None
    drop: DropMap | None
    """None while there is neither an analysis nor an imported map."""
    preview: Preview | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.contributions.classes if self.contributions else ()

    @property
    def taking_part(self) -> tuple[str, ...]:
        """The classes that the recipe looks at."""
        return tuple(self.state.recipe.classes or self.classes)

    @property
    def shape(self) -> MoeShape | None:
        """The grid of the map that a recipe makes."""
        return self.contributions.shape if self.contributions else None

    @property
    def most(self) -> int:
        """The most experts that a layer can lose."""
        model = self.reference or self.contributions
        return max(1, most_dropped(model.shape)) if model else 1

    @property
    def step(self) -> int:
        """Experts are dropped by multiples of it: one of each group that the router chooses among."""
        model = self.reference or self.contributions
        return model.shape.groups if model else 1

    @property
    def name(self) -> str:
        """What files made of this model are called."""
        return self.reference.name.rpartition("/")[2].removesuffix(".gguf") if self.reference else "model"


@dataclass(frozen=True)
class Guidance:
    """What is known about the weights of a model beside themselves, for tiers that go by it."""

    imatrix: frozenset[str] | None
    """Names of the tensors that an importance matrix covers; None without one."""
    ranking: tuple[int, ...] | None
    """Layers, the most important first."""
    coverage: Mapping[int, Coverage]
    """Layer → how the importance matrix covers its experts."""
    problem: MismatchError | None = None
    """Why the importance matrix cannot be used with the map that is shown."""


@dataclass
class Library:
    """The models and analyses of one workspace."""

    workspace: Workspace
    _analyses: dict[str, tuple[Path, Contributions]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._references = lru_cache(16)(lambda path, _signature: open_reference(path))
        self._outlines = lru_cache(4)(lambda path, _signature: outline(self._reference(path)))
        self._imatrix = lru_cache(2)(self._fit_imatrix)
        self._answers = lru_cache(4)(lambda key: answers_of(self.analysis(key)))
        self._ranking = lru_cache(8)(self._rank_layers)

    def _reference(self, path: Path) -> Reference:
        return self._references(path, _signature(path))

    def _outline(self, path: Path) -> GgufHeader:
        return self._outlines(path, _signature(path))

    def _rank_layers(self, key: str) -> tuple[int, ...] | None:
        try:
            return ranking_of_contributions(self.analysis(key))
        except InputError:  # it has no norms; an importance matrix may rank layers
            return None

    def _fit_imatrix(self, reference: Path, path: Path, drop: DropMap) -> Guidance:
        header = self._outline(reference)
        imatrix = fitting_imatrix(path, header, kept_experts(header, drop))
        return Guidance(frozenset(imatrix.entries), ranking_of_imatrix(imatrix) or None, imatrix.coverage)

    def outline(self, reference: Reference) -> GgufHeader:
        """The GGUF header that `reference` has, or would have once converted."""
        return self._outline(reference.path)

    def guidance(self, opened: Opened) -> Guidance:
        """What the analysis and the importance matrix that are open say about tensors and layers, as a job uses it."""
        key, name = opened.state.analysis, opened.state.imatrix
        ranking = self._ranking(key) if key else None
        if name is None or opened.reference is None or opened.drop is None:
            return Guidance(None, ranking, {})
        try:
            known = self._imatrix(opened.reference.path, self.workspace.imatrix / name, opened.drop)
        except MismatchError as problem:
            return Guidance(None, ranking, {}, problem)
        return replace(known, ranking=ranking or known.ranking)

    def reference_names(self) -> list[str]:
        """What can be opened by name: the demo, and what lies in the workspace."""
        return reference_names(self.workspace)

    def reference(self, name: str) -> Reference:
        """The model called `name`; raises as `open_reference` does, and for paths outside the workspace."""
        return self._reference(reference_path(self.workspace, name))

    def adopt_reference(self, path: Path) -> str:
        """The name of a model that lies anywhere: a link to it is put into the workspace.

        Only for paths from the command line; a page must not choose what is read. Raises `InputError` when another
        model has that name.
        """
        return adopted_reference(self.workspace, path)

    def analysis_paths(self) -> list[Path]:
        """The analyses that can be opened: the demo's, and those in the workspace."""
        kept = sorted(self.workspace.contributions.glob("*.safetensors"))
        return [*([DEMO_ANALYSIS] if DEMO_ANALYSIS.exists() else []), *kept]

    def open_analysis(self, path: Path, reference: Reference | None = None) -> str:
        """Open an analysis in any known format: its content hash. One in a foreign format is kept in the workspace.

        Raises what `import_any` raises, and `MismatchError` when it is of another grid than `reference`.
        """
        return self._adopt(self._imported(path, reference), path)

    def open_added(self, key: str, path: Path, reference: Reference | None = None) -> str:
        """Open the analysis `key` with the questions of the one at `path` added: its content hash.

        Raises as `open_analysis` and `merge` do.
        """
        added = self._imported(path, reference)
        before, opened = self._opened(key)
        return self._adopt(merge([opened, added]), Path(f"{before.stem}-and-more"))

    def _imported(self, path: Path, reference: Reference | None) -> Contributions:
        """The analysis at `path`, which fits `reference`."""
        small = reference is not None and reference.bytes <= QUICK_BYTES
        top_k = reference.shape.top_k if reference else None
        contributions = import_any(path, model=reference if small else None, top_k=top_k)
        if reference and not contributions.shape.same_grid(reference.shape):
            ours, theirs = reference.shape, contributions.shape
            raise MismatchError(
                f"{path.name} is an analysis of {theirs.layers} layers × {theirs.experts} experts, and "
                f"{reference.name} has {ours.layers} × {ours.experts}.",
                "Open the model that it was made from, or analyze this one.",
            )
        if reference:  # which no foreign format says
            groups, per_token = reference.shape.groups, reference.shape.groups_per_token
            shape = replace(contributions.shape, groups=groups, groups_per_token=per_token)
            contributions = replace(contributions, shape=shape)
        return contributions

    def _adopt(self, contributions: Contributions, path: Path) -> str:
        """Open `contributions`, which came from `path`: their content hash."""
        key = contributions.content_hash
        with self._lock:
            if key not in self._analyses:
                self._analyses[key] = (self._kept(path, contributions), contributions)
        return key

    def _kept(self, path: Path, contributions: Contributions) -> Path:
        """Where jobs find this analysis: in the workspace, or among the assets."""
        if path.resolve() in (DEMO_ANALYSIS.resolve(), *(kept.resolve() for kept in self.analysis_paths())):
            return path.resolve()
        return adopted_analysis(self.workspace, path, contributions)

    def find_analysis(self, key: str, reference: Reference | None, likely: str = "") -> str:
        """Open the analysis whose content hash is `key`, wherever it lies: `key`. `likely` is the path to try first.

        Raises `InputError` where there is none that fits `reference`.
        """
        if key in self._analyses and (reference is None or self.analysis(key).shape.same_grid(reference.shape)):
            return key
        for path in sorted(self.analysis_paths(), key=lambda path: (str(path) != likely, key[:8] not in path.stem)):
            with suppress(InputError):  # of another model, or damaged
                contributions = self._imported(path, reference)
                if contributions.content_hash == key:
                    return self._adopt(contributions, path)
        raise InputError(
            f"The analysis {key[:12]} is not in this workspace, or not of the model that is open.",
            "Open the model, add the analysis in the first station, and try again.",
        )

    def analysis(self, key: str) -> Contributions:
        """The opened analysis whose content hash is `key`."""
        return self._opened(key)[1]

    def analysis_path(self, key: str) -> Path:
        """The file of the opened analysis whose content hash is `key`."""
        return self._opened(key)[0]

    def _opened(self, key: str) -> tuple[Path, Contributions]:
        if key not in self._analyses:
            raise InputError("This analysis is no longer open.", "Open it again in the first station.")
        return self._analyses[key]

    def answers(self, key: str) -> Answers:
        """What the opened analysis says as a whole, computed once. Raises as `answers_of` does."""
        return self._answers(key)

    def classes(self, state: StudioState) -> tuple[str, ...]:
        """The classes of the analysis that `state` names."""
        return self._opened(state.analysis)[1].classes if state.analysis else ()

    def open(self, state: StudioState) -> Opened:
        """Everything that `state` names. Raises as `make_map`, `DropMap.check` and `preview` do, and `InputError` for a
        recipe that needs what was not chosen."""
        reference = self.reference_of(state)
        path, contributions = self._opened(state.analysis) if state.analysis else (None, None)
        second_path, second = self._opened(state.second) if state.second else (None, None)
        drop = state.imported
        if drop is None and contributions is not None:
            _require_floors(state)
            drop = make_map(contributions, state.recipe, second)
        if drop and reference:
            drop.check(reference.shape, extra=[block for block, _ in drop.extra])  # of other blocks the weights tell
        return Opened(
            state=state,
            reference=reference,
            contributions=contributions,
            second=second,
            analysis_path=str(path) if path else None,
            second_path=str(second_path) if second_path else None,
            drop=drop,
            preview=preview(contributions, drop) if contributions and drop else None,
        )

    def reference_of(self, state: StudioState) -> Reference | None:
        """The model that `state` names, if any."""
        return self.reference(state.reference) if state.reference else None

    def keep_choice(self, state: StudioState) -> tuple[Path, Path | None]:
        """Files of the map that `state` shows and of its recipe (None for an imported map), for a job to read."""
        drop = self.open(state).drop
        if drop is None:
            raise InputError("There is no map to build from.", "Open an analysis, or import a map.")
        map_path = self.workspace.maps / f"{drop.content_hash[:12]}.json"
        _write_once(map_path, drop.to_json())
        if state.imported is not None:
            return map_path, None
        recipe_path = self.workspace.recipes / f"{state.recipe.content_hash[:12]}.json"
        _write_once(recipe_path, state.recipe.to_json())
        return map_path, recipe_path


def _require_floors(state: StudioState) -> None:
    """Raise `InputError` for a recipe that goes by a second analysis, or by a file of floors, which nobody chose."""
    if state.recipe.needs_second_analysis and state.second is None:
        raise InputError(
            "The recipe's floors or minimums go by a second analysis, and none is chosen.",
            "Choose it under “Fine-tune the recipe” first, or write floor_analysis: same into the recipe.",
        )
    if state.recipe.floor_layers_from == "file":
        raise InputError(
            "The recipe takes its floors per layer from a file of their own.",
            "Choose both files at once, the recipe and that one, under “Use a published map, or a recipe of yours”.",
        )


def _write_once(path: Path, text: str) -> None:
    """Write a file whose name says what is in it; a job may be reading it already."""
    if not path.exists():
        with suppress(OutputExistsError), staged(path) as partial:
            partial.write_text(text, encoding="utf-8")
