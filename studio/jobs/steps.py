"""Several pieces of work as one progress."""

from __future__ import annotations

from studio.progress import Progress


class Steps:
    """Shares out a progress of `total` bytes between steps that each count in their own way."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._begun = 0

    def step(self, size: int, title: str) -> Progress:
        """The progress of the next step, which stands for `size` of the total; the steps before it are over."""
        start = self._begun
        self._begun += size
        self._progress(start, self._total, "bytes", title)

        def report(done: int, total: int, unit: str = "", message: str = "") -> None:
            share = size * done // total if total else 0
            self._progress(start + share, self._total, "bytes", f"{title}: {message}" if message else title)

        return report
