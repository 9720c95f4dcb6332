"""The studio as a person starts it, with a login for each of many people, and what memory and processor it takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "of the load test"
_MIB = 1 << 20
_READY_S = 120
_STOP_S = 30


def login(person: int) -> str:
    return f"person{person:02d}"


@contextmanager
def studio(workspace: Path, people: int, flags: Sequence[str] = ()) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of `python app.py` until the block ends; its log lies beside the workspace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "app.py", "--no-browser", "--port", str(port), "--workspace", str(workspace), *flags]
    logins = "\n".join(f"{login(person)}:{PASSWORD}" for person in range(people))
    with (workspace.parent / "app.log").open("wb") as log:
        started = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "ESPALIER_AUTH": logins}
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_until_ready(url, started)
        yield url, psutil.Process(started.pid)
    finally:
        started.terminate()
        try:
            started.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _wait_until_ready(url: str, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while started.poll() is None and time.monotonic() < deadline:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=10):
            return
        time.sleep(0.2)
    raise SystemExit("app.py did not start.")


@dataclass
class Gauge:
    """Memory and processor time of a process and of all that it started, looked at again and again."""

    process: psutil.Process
    times: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    all: list[float] = field(default_factory=list)
    """Resident memory in MiB; pages that two processes share count twice."""
    _own_cpu: list[float] = field(default_factory=list)
    _child_cpu: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Remember how things are."""
        own = self.process.memory_info().rss
        children = 0
        for child in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                children += child.memory_info().rss
                self._child_cpu[child.pid] = sum(child.cpu_times()[:2])
        self.times.append(time.monotonic())
        self.own.append(own / _MIB)
        self.all.append((own + children) / _MIB)
        self._own_cpu.append(sum(self.process.cpu_times()[:2]))

    def report(self) -> dict[str, dict[str, Any]]:
        """`page` for the process alone, `with_children` for all."""
        wall = max(1e-9, self.times[-1] - self.times[0])
        cpu = self._own_cpu[-1] - self._own_cpu[0]
        half = len(self.times) // 2
        slope = np.polyfit(self.times[half:], self.own[half:], 1)[0] * 60 if len(self.times) - half > 2 else 0.0
        page = {**_sizes(self.own), "growth_mib_per_minute": round(float(slope), 2), "cpu": round(cpu / wall, 3)}
        everything = {**_sizes(self.all), "cpu": round((cpu + sum(self._child_cpu.values())) / wall, 3)}
        return {"page": page, "with_children": everything}


def _sizes(values: Sequence[float]) -> dict[str, float]:
    return {"start_mib": round(values[0], 1), "end_mib": round(values[-1], 1), "most_mib": round(max(values), 1)}
