"""The prompts that a job is given: sources in the workspace, those that come with Espalier, and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.contributions.calibration import Calibration
from studio.contributions.sources import is_folder, is_path, prompts_of
from studio.errors import InputError
from studio.jobs.task import input_path
from studio.workspace import Workspace


def prompts_in(workspace: Workspace, sources: Sequence[str], **reading: Any) -> Calibration:
    """What `prompts_of` makes of `sources`, whose files lie in the workspace; `reading` are its other arguments.

    Raises what `prompts_of` raises, and `InputError` for what lies outside the workspace.
    """
    return prompts_of(sources_in(workspace, sources), **reading)


def sources_in(workspace: Workspace, sources: Sequence[str]) -> list[str]:
    """`sources` with the full paths of their files. Raises `InputError` for what lies outside the workspace."""
    if outside := next(filter(is_folder, sources), None):
        raise InputError(
            f"{outside} is also a folder outside the workspace, and would be read from there.",
            "Start Espalier in another folder, or give the files themselves.",
        )
    return [str(input_path(workspace, source)) if is_path(source) else source for source in sources]
