"""The verb that makes room in the workspace."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.terminal import Json, result, size
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.jobs.cleanup import Item

_AGAIN = {"by itself": "comes back by itself", "when asked": "can be made again", "never": "gone for good"}


def clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="What to remove, as the list calls it; by default all that comes back."
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what there is and what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Say what takes room in the workspace, and remove what nobody would miss.

    Without names that is what comes back by itself: caches, leftovers of processes that died, logs of jobs that have
    ended. Builds, analyses and uploads go only by name; of a build its manifest, measures and card stay. What a job
    needs stays.
    """
    from studio.jobs.cleanup import clean as remove
    from studio.jobs.cleanup import inventory
    from studio.jobs.store import JobStore

    store = JobStore(Workspace.open())
    items = inventory(store)
    keys = names or [item.key for item in items if item.comes_back]
    chosen = [item for item in items if item.key in keys]
    freed = sum(item.bytes for item in chosen)
    told = f"{len(chosen)} of {len(items)} things, {size(freed)}"
    if not json and not yes:
        print("\n".join(_line(item, item in chosen) for item in items) or "There is nothing to remove.")
    if not dry_run and keys:
        if not yes and not json:
            typer.confirm(f"Remove {told}?", abort=True)
        remove(store, keys)
    done = not dry_run and bool(keys)
    fields = {"items": [asdict(item) for item in items], "chosen": [item.key for item in chosen], "bytes": freed}
    result(json, {**fields, "removed": done}, f"Removed {told}." if done else f"Would remove {told}.")


def _line(item: Item, chosen: bool) -> str:
    mark = "remove" if chosen else "keep  "
    about = item.used_by or f"{_AGAIN[item.again]}: {item.source}"
    return f"{mark}  {size(item.bytes):>10}  {item.key}\n                    {item.kind}, {about}"
