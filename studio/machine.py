"""What this machine has free."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from studio.limits import MODEL_MEMORY


def free_ram() -> int:
    """Bytes of main memory for models: what `MODEL_MEMORY` says, else what system and container have free."""
    if (allowed := MODEL_MEMORY.value) is not None:
        return allowed
    free = int(psutil.virtual_memory().available)
    container = container_free_bytes()
    return free if container is None else min(free, container)


def container_free_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's memory limit leaves (cgroup v2); None where there is no limit.

    The file cache counts as free: it makes room when memory is asked for.
    """
    try:
        limit, used = (cgroup / "memory.max").read_text(), (cgroup / "memory.current").read_text()
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        cache = int(statistics.get("active_file", 0)) + int(statistics.get("inactive_file", 0))
        return max(0, int(limit) - int(used) + cache)  # "max" is no limit, and no number
    except (OSError, ValueError):
        return None


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(models: int) -> int:
    """Threads of each of `models` that compute at the same time.

    One alone leaves a core to the page: ggml's threads wait for each other in busy loops, and when one of two shares
    its core with something else, both crawl (5 tokens/s instead of 600 were seen beside a training).
    """
    cores = usable_cores()
    return max(1, cores // models if models > 1 else cores - 1)
