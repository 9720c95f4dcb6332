"""What the verbs share: their common options, and how they talk. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.errors import InputError
from studio.progress import Progress, silent

DEMO = "demo"
_DEMO_MODEL = Path(__file__).resolve().parents[2] / "assets" / "demo-model"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]


def result(as_json: bool, fields: Mapping[str, Any], text: str) -> None:
    """The outcome of a verb: `fields` as one JSON object, or `text`."""
    print(json.dumps(fields, ensure_ascii=False) if as_json else text)


def note(text: str) -> None:
    """Something worth knowing beside the result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, with the time left; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def show(done: int, total: int, unit: str = "", message: str = "") -> None:
            bars.update(task, completed=done, total=total, description=message or None)

        yield show


def model_path(path: Path) -> Path:
    """`path`, or that of the packaged model for the word `demo` where no file has that name."""
    return _DEMO_MODEL if str(path) == DEMO and not path.exists() else path


def artifact_path(path: Path) -> Path:
    """`path`, or the artifact of that name in the workspace where no file or folder has it."""
    from studio.workspace import Workspace

    named = Workspace.open().artifacts / path
    return named if len(path.parts) == 1 and not path.exists() and named.is_dir() else path


def story_path(map_path: Path) -> Path:
    """Where the recipe that made a map is written down, beside the map."""
    return map_path.with_name(f"{map_path.stem}.story.json")


def read_bytes(path: Path, what: str) -> bytes:
    """The contents of a file that a person named; `InputError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"The {what} {path} cannot be read: {error.strerror}.") from None


def require_apart(results: Iterable[Path], sources: Iterable[Path | None]) -> None:
    """Raise `InputError` when a result would overwrite one of the files that it is made from."""
    written = {path.resolve() for path in results}
    for source in sources:
        if source is not None and source.resolve() in written:
            raise InputError(f"{source} is what this is made from, and would be overwritten.", "Choose another --out.")


def size(count: int) -> str:
    """Bytes for a person, in the binary units that files are published with."""
    amount, units = float(count), ["bytes", "KiB", "MiB", "GiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"
