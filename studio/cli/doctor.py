"""The verb that looks at the installation itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.terminal import Json, result

if TYPE_CHECKING:
    from studio.doctor import Finding

BROKEN = 1
_MARKS = {"good": "ok     ", "poor": "poor   ", "broken": "BROKEN "}


def doctor(
    workspace: Annotated[
        Path | None, typer.Option(help="The workspace to look at (default: $ESPALIER_HOME or ~/.espalier).")
    ] = None,
    json: Json = False,
) -> None:
    """Say what is installed, which llama.cpp and graphics card are in use, what is broken and how to mend it.

    The exit status is 1 when something is broken.
    """
    from studio.doctor import examine

    findings = examine(workspace)
    broken = [finding.name for finding in findings if finding.state == "broken"]
    last = f"Broken: {'; '.join(broken)}." if broken else "Nothing is broken."
    lines = [*map(_line, findings), last]
    result(json, {"broken": broken, "findings": [asdict(finding) for finding in findings]}, "\n".join(lines))
    if broken:
        raise typer.Exit(BROKEN)


def _line(finding: Finding) -> str:
    remedy = f"\n         {finding.remedy}" if finding.remedy else ""
    return f"{_MARKS[finding.state]}{finding.name}: {finding.found}{remedy}"
