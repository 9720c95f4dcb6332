"""What the whole page stands on."""

from __future__ import annotations

from dataclasses import dataclass

from components.library import Library
from components.sessions import Sessions
from components.state import StudioState
from studio.jobs.store import JobStore


@dataclass(frozen=True)
class Studio:
    """What every station is given."""

    library: Library
    store: JobStore
    first: StudioState
    """What a new tab shows to somebody who was not here before."""
    sessions: Sessions
