"""What people saw last, so that leaving the page loses nothing: in memory with its history, and in the workspace."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from components import transitions
from components.history import Choice, History, Step
from components.library import Library
from components.state import OWN, Kept, StudioState, Target, View
from studio.checkpoints.reference import Reference
from studio.errors import EspalierError, InputError
from studio.families import MoeShape
from studio.recipes.dropmap import DropMap
from studio.recipes.json_object import parse_object
from studio.recipes.permalink import Permalink
from studio.recipes.presets import PRESETS
from studio.recipes.recipe import Recipe
from studio.staging import staged

VERSION = 1
KEPT_ON_DISK = 100
"""Steps of a history, each way; a step has some hundred bytes, or more where much is said by hand."""
LOCAL = "local"
"""The one person of a page without a login."""


def session_json(state: StudioState, analysis_path: str, second_path: str = "") -> str:
    """What a tab shows, with the last steps of its history; the paths are where its analyses lie."""
    content = {
        "version": VERSION,
        "reference": state.reference,
        "analysis": state.analysis,
        "analysis_path": analysis_path,
        "second": state.second,
        "second_path": second_path,
        "preset": state.preset,
        "recipe": json.loads(state.recipe.to_json()),
        "imported": state.imported.to_metadata() if state.imported else None,
        "view": asdict(state.view),
        "target": asdict(state.target),
        "imatrix": state.imatrix,
        "cell": state.cell,
        "aside": {"label": state.aside.label, "map": state.aside.drop.to_metadata()} if state.aside else None,
        "history": _history(state.history),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _history(history: History) -> dict[str, Any]:
    """The steps, and each imported map once."""
    past, future = history.past[-KEPT_ON_DISK:], history.future[-KEPT_ON_DISK:]
    maps = {
        step.choice.imported.content_hash: step.choice.imported for step in (*past, *future) if step.choice.imported
    }
    return {
        "past": [_step(step) for step in past],
        "future": [_step(step) for step in future],
        "maps": {key: one.to_metadata() for key, one in maps.items()},
    }


def _step(step: Step) -> dict[str, Any]:
    choice = step.choice
    return {
        "what": step.what,
        "preset": choice.preset,
        "recipe": choice.recipe.model_dump(mode="json", exclude_defaults=True),
        "imported": choice.imported.content_hash if choice.imported else None,
        "second": choice.second,
    }


def _history_of(library: Library, content: Any, shape: MoeShape, reference: Reference | None) -> History:
    maps = {key: DropMap.from_json(one, shape=shape) for key, one in content["maps"].items()}

    @cache
    def second(key: str | None) -> str | None:
        with suppress(InputError):  # it is no longer there: the page says so when somebody goes back to that step
            return key and library.find_analysis(key, reference)
        return None

    def step(one: Any) -> Step:
        imported = None if one["imported"] is None else maps[one["imported"]]
        known = one["preset"] if one["preset"] in PRESETS else OWN
        recipe = Recipe.from_json(one["recipe"], "a step of the history")
        return Step(str(one["what"]), Choice(known, recipe, imported, second(one.get("second"))))

    return History(tuple(map(step, content["past"])), tuple(map(step, content["future"])))


def session_from_json(library: Library, text: str | bytes, name: str) -> StudioState:
    """The state that `session_json` wrote, with its analysis opened.

    Raises `InputError` for anything else, and for a model, analysis or importance matrix that is there no longer.
    """
    content = parse_object(text, name)
    try:
        return _state(library, content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{name} is none that this Espalier wrote ({error}).") from error


def _state(library: Library, content: Any) -> StudioState:
    reference = library.reference(content["reference"]) if content["reference"] else None
    key = content["analysis"]
    if key is not None:
        key = library.find_analysis(key, reference, str(content["analysis_path"]))
    second = content.get("second")  # sessions of earlier versions have none
    if second is not None:
        second = library.find_analysis(second, reference, str(content["second_path"]))
    imported = content["imported"]
    if imported is not None:
        model = reference or library.analysis(key or "")
        imported = DropMap.from_json(imported, shape=model.shape)
    aside = content.get("aside")  # nor that
    if aside is not None:
        model = reference or library.analysis(key or "")
        aside = Kept(str(aside["label"]), DropMap.from_json(aside["map"], shape=model.shape))
    imatrix, cell = content["imatrix"], content["cell"]
    if imatrix is not None and not library.workspace.inside(library.workspace.imatrix / str(imatrix)).is_file():
        imatrix = None
    state = StudioState(
        reference=str(content["reference"]),
        analysis=key,
        recipe=Recipe.from_json(content["recipe"], "the recipe"),
        preset=content["preset"] if content["preset"] in PRESETS else OWN,
        view=View(**content["view"]),
        imported=imported,
        second=second,
        target=Target(**content["target"]),
        imatrix=imatrix,
        aside=aside,
    )
    state = replace(state, view=state.view.within(library.classes(state)))
    if (kept := content.get("history")) and (reference or key):
        model = reference or library.analysis(key or "")
        state = replace(state, history=_history_of(library, kept, model.shape, reference))
    state = state if cell is None else state.pointing(*cell)
    library.open(state)
    return state


@dataclass
class Sessions:
    """The last state of every user, in memory and in `library.workspace.sessions`."""

    library: Library
    fresh: bool = False
    """Whether what was kept before this object was made is left alone: the page was asked to open something else."""
    _last: dict[str, StudioState] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _unwritten: dict[str, StudioState] = field(default_factory=dict, repr=False)
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "sessions"), repr=False)

    def keep(self, state: StudioState) -> None:
        """Remember `state` for its user at once; on disk soon after, as nobody should wait for a disk."""
        if not state.user:
            return
        with self._lock:
            self._last[state.user] = state
            self._unwritten[state.user] = state
        self._writer.submit(self._write, state.user)

    def _write(self, user: str) -> None:
        with self._lock:
            state = self._unwritten.get(user)
        if state is None:  # a later one went to disk already
            return
        paths = (str(self.library.analysis_path(key)) if key else "" for key in (state.analysis, state.second))
        with staged(self.path(user), overwrite=True) as partial:
            partial.write_text(session_json(state, *paths), encoding="utf-8")
        with self._lock:
            if self._unwritten.get(user) is state:
                del self._unwritten[user]

    def flush(self) -> None:
        """Wait until all that was kept is on disk."""
        self._writer.submit(lambda: None).result()

    def path(self, user: str) -> Path:
        """The file of a user, whatever letters the name has."""
        return self.library.workspace.sessions / f"{hashlib.sha256(user.encode()).hexdigest()[:16]}.json"

    def last(self, user: str) -> StudioState | None:
        """What `user` saw last; None where nothing is known. Raises as `session_from_json` does."""
        with self._lock:
            known, unwritten = self._last.get(user), user in self._unwritten
        if not unwritten and not self.path(user).is_file():  # somebody removed it
            return None
        if known is not None or self.fresh:
            return known
        return replace(session_from_json(self.library, self.path(user).read_bytes(), "The last session"), user=user)

    def coming_back(self, first: StudioState, user: str, link: str) -> tuple[StudioState, EspalierError | None]:
        """What a new tab of `user` shows, and what could not be brought back.

        That is what they saw last, else `first`; a `link` to a recipe is one more step in its history.
        """
        opening = replace(first, user=user)
        try:
            state = self.last(user) or opening
            state = state.targeting(replace(state.target, shown=False))  # a new tab has the table of tiers folded
            state = replace(state, tuning=False)  # and the options of the recipe
            self.library.open(state)
        except EspalierError as problem:
            return opening, problem
        try:
            return (transitions.following(self.library, state, Permalink.from_text(link)) if link else state), None
        except EspalierError as problem:
            return state, problem
