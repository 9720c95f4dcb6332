"""What takes room in a workspace, what of it can be made again and from what, and removing it.

Three kinds: what comes back by itself when it is needed (caches, leftovers, logs), what can be made again by asking for
it (builds, analyses that were measured), and what is gone for good (files that somebody brought). What a job that waits
or runs names is never removed, and nor are caches while one does.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.errors import EspalierError, InputError
from studio.jobs.replay import STORIES, copy_others
from studio.jobs.store import Job, JobStore
from studio.jobs.task import references_called
from studio.publish import manifest
from studio.publish.manifest import Manifest
from studio.staging import is_leftover, partial_path, remove, staged, used_bytes
from studio.workspace import Workspace

Again = Literal["by itself", "when asked", "never"]
"""Whether, and how, something that is removed comes back."""
BUILD = "Build"
OLD_S = 3600.0
"""A scratch folder that nobody can be recognised by, and an upload, is a leftover when it is older than this."""


@dataclass(frozen=True)
class Item:
    """One thing that can be removed."""

    key: str
    """Its path from the workspace: how verbs and the page name it."""
    kind: str
    """"Build", "Conversion" …"""
    bytes: int
    again: Again
    source: str
    """From what it is made again, or why it is not: a sentence."""
    used_by: str = ""
    """The job that needs it; empty: it can be removed."""

    @property
    def comes_back(self) -> bool:
        """Whether nobody loses anything but time, and nobody is using it."""
        return self.again == "by itself" and not self.used_by


def inventory(store: JobStore) -> list[Item]:
    """All that takes room and can be removed, the largest first."""
    workspace = store.workspace
    busy = [job for job in store.everyones() if not job.is_finished]
    found = [_judged(item, busy, workspace.part) for item in _found(workspace, busy)]
    return sorted(found, key=lambda item: (-item.bytes, item.key))


def clean(store: JobStore, keys: Iterable[str]) -> list[Item]:
    """Remove what `keys` name: the items as they were.

    Raises `InputError` for what `inventory` does not list, and, before anything is removed, for what a job needs.
    """
    wanted = list(dict.fromkeys(keys))
    with store.transaction():  # no job begins meanwhile
        known = {item.key: item for item in inventory(store)}
        for key in wanted:
            if key not in known:
                raise InputError(
                    f"There is nothing called {key!r} to remove.", "`clean --dry-run` lists what there is."
                )
            if known[key].used_by:
                raise InputError(
                    f"{key} is needed: {known[key].used_by}", "Wait until the job has ended, or cancel it."
                )
        for key in wanted:
            if known[key].kind == BUILD:
                _keep_story(store.workspace, key)
        aside = [_aside(store.workspace.root / key) for key in wanted]
    for path in aside:
        remove(path)
    return [known[key] for key in wanted]


def _keep_story(workspace: Workspace, key: str) -> None:
    """Keep of a build that goes what no replay makes again: its manifest, measures, card and Modelfiles."""
    folder, kept = workspace.root / key, kept_story(workspace, key)
    remade = {record.name for record in Manifest.read(folder / manifest.FILE_NAME).files}
    with staged(kept, overwrite=True) as partial:
        copy_others(folder, partial, remade)


def kept_story(workspace: Workspace, key: str) -> Path:
    """Where the story of the build `key` stays when the build is removed.

    A build of that name that went earlier keeps its own story, where it was another one.
    """
    name = Path(key).name
    told = (workspace.root / key / manifest.FILE_NAME).read_bytes()
    kept = workspace.root / STORIES / name
    if kept.exists() and (kept / manifest.FILE_NAME).read_bytes() != told:
        kept = kept.with_name(f"{name}-{hashlib.sha256(told).hexdigest()[:8]}")
    return kept


def _aside(path: Path) -> Path:
    """Rename `path` at once to what counts as a leftover: removing it may take a while, and may be broken off."""
    hidden = partial_path(path)
    path.rename(hidden)
    return hidden


def _judged(item: Item, busy: Sequence[Job], part: str) -> Item:
    for job in busy:
        shared = item.key.startswith("cache/")
        if shared or item.used_by or any(name in json.dumps(job.parameters) for name in _names(item.key)):
            who = f"the job “{job.title}” ({job.id})" if job.part == part else "a job of somebody else"
            needed = f"{who} {'may use it' if shared else 'names it'}."
            return Item(item.key, item.kind, item.bytes, item.again, item.source, needed)
    return item


def _names(key: str) -> Iterator[str]:
    """How jobs name what lies at `key`: by its path, or by the name of the folder or file."""
    room, _, name = key.partition("/")
    yield f'"{name}"'
    yield f"{room}/{name}"
    yield f'"{name.rpartition(".")[0] or name}"'


def _found(workspace: Workspace, busy: Sequence[Job]) -> Iterator[Item]:
    looks: tuple[Callable[[Workspace], Iterator[tuple[Path, str, Again, str]]], ...] = (
        _leftovers,
        _caches,
        _builds,
        _analyses,
        _others,
    )
    for look in looks:
        for path, kind, again, source in look(workspace):
            yield Item(_key(workspace, path), kind, used_bytes(path), again, source)
    running = {job.id for job in busy}
    for log in sorted(workspace.jobs.glob("*/log.txt")):
        if log.parent.name not in running:
            about = "The last lines stay in the list of jobs."
            yield Item(_key(workspace, log), "Log of a job that has ended", used_bytes(log), "by itself", about)


def _key(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.root).as_posix()


def _leftovers(workspace: Workspace) -> Iterator[tuple[Path, str, Again, str]]:
    for path in sorted(workspace.root.glob("*/.*.partial-*")) + sorted(workspace.root.glob("*/*/.*.partial-*")):
        if is_leftover(path):
            unfinished = ".partial-resume-" in path.name
            about = "The same work begins anew, instead of going on." if unfinished else "It is of no use to anybody."
            yield path, "Unfinished work" if unfinished else "Leftover of a process that died", "by itself", about


def _caches(workspace: Workspace) -> Iterator[tuple[Path, str, Again, str]]:
    if workspace.whole is not None:
        return  # all people share the cache, and it is for whoever runs the studio to empty it
    for path in _entries(workspace.cache / "converted"):
        yield (
            path,
            "Conversion of a reference to GGUF",
            "by itself",
            "Made again from the checkpoint when it is needed.",
        )
    for path in _entries(workspace.cache / "logits"):
        yield path, "Logits of a reference", "by itself", "Computed again at the next measurement."
    for path in sorted(workspace.cache.glob("logits-*")):
        if _is_old(path):
            yield path, "Leftover of a process that died", "by itself", "It is of no use to anybody."
    for path in _entries(workspace.cache / "uploads"):
        if _is_old(path):
            yield path, "Upload", "by itself", "What was of use is kept elsewhere in the workspace."
    for name, kind in (("digests", "Hashes of files"), ("hub", "What the Hub has been sent")):
        if used_bytes(workspace.cache / name):
            yield workspace.cache / name, kind, "by itself", "Read again from the files when they are needed."


def _builds(workspace: Workspace) -> Iterator[tuple[Path, str, Again, str]]:
    for path in _entries(workspace.artifacts):
        try:
            name = Manifest.read(path / manifest.FILE_NAME).reference.name
        except (EspalierError, OSError):
            yield path, "Folder without a manifest", "never", "Nothing says how it was made."
            continue
        base = next(iter(references_called(workspace, name)), None)
        if base is None:
            yield path, BUILD, "never", f"Its reference {name} cannot be opened here any more."
            continue
        places = " --out ".join(shlex.quote(str(one)) for one in (kept_story(workspace, _key(workspace, path)), path))
        kept = f"Its measures, card and Modelfiles stay, and `{workspace.discreet(f'replay {places}')}`"
        yield path, BUILD, "when asked", f"{kept} builds it again from {base}, with them."


def _analyses(workspace: Workspace) -> Iterator[tuple[Path, str, Again, str]]:
    for path in _entries(workspace.contributions):
        yield path, "Analysis", "never", "Whoever measured or brought it has to do so again."
    for path in _entries(workspace.imatrix):
        yield path, "Importance matrix", "never", "Whoever measured or brought it has to do so again."
    for path in _entries(workspace.searches):
        yield path, "Search", "when asked", "The same search finds the same again, and takes as long."


def _others(workspace: Workspace) -> Iterator[tuple[Path, str, Again, str]]:
    for path in _entries(workspace.references):
        if not path.is_symlink():  # a link takes no room, and what it leads to is not the workspace's
            yield path, "Reference", "never", "It has to be fetched again from where it came from."
    for path in _entries(workspace.root / STORIES):
        yield path, "Story of a build that was removed", "never", "Nothing else says how it was made and measured."
    for folder, kind in ((workspace.prompts, "Prompts"), (workspace.tasks, "Task")):
        for path in _entries(folder):
            yield path, kind, "never", "Somebody brought it."


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > OLD_S
