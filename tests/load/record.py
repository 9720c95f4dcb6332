"""What was measured and what went wrong, put together for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LOST_S = 120.0
"""A person gives up on an answer after that long, and it counts as lost."""


@dataclass
class Record:
    """Seconds of every measured thing by kind, and complaints in words."""

    began: float = field(default_factory=time.monotonic)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def took(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def complain(self, person: int, what: str) -> None:
        self.complaints.append(f"{time.monotonic() - self.began:.0f} s, person {person}: {what}")

    def summary(self) -> dict[str, dict[str, float]]:
        """kind → how many, and median, 95th percentile and longest in seconds."""
        return {
            kind: {
                "count": len(times),
                "p50_s": round(float(np.percentile(times, 50)), 3),
                "p95_s": round(float(np.percentile(times, 95)), 3),
                "max_s": round(max(times), 3),
            }
            for kind, times in sorted(self.seconds.items())
        }


def table(result: Mapping[str, Any]) -> str:
    """A result of `run.measured` as text."""
    lines = [f"{'what':10} {'count':>6} {'p50 s':>8} {'p95 s':>8} {'max s':>8}"]
    for kind, row in result["times"].items():
        lines.append(f"{kind:10} {row['count']:6} {row['p50_s']:8.3f} {row['p95_s']:8.3f} {row['max_s']:8.3f}")
    page, all_of_it = result["page"], result["with_children"]
    lines += [
        f"the page's process: {page['start_mib']:.0f} MiB at the start, {page['end_mib']:.0f} at the end "
        f"({page['growth_mib_per_minute']:+.1f} per minute in the second half)",
        f"with its children:  {all_of_it['start_mib']:.0f} MiB at the start, {all_of_it['end_mib']:.0f} at the end, "
        f"{all_of_it['most_mib']:.0f} at most",
        f"processor: {page['cpu']:.2f} cores for the page, {all_of_it['cpu']:.2f} with its children",
        f"jobs: {', '.join(result['jobs']) or 'none'}",
        f"complaints: {len(result['complaints'])}",
        *(f"  {complaint}" for complaint in result["complaints"][:20]),
    ]
    return "\n".join(lines)
