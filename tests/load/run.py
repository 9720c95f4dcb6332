"""Many people on one studio: how long they wait, what the studio needs, and whether anything is lost.

    python -m tests.load.run --browsers 20 --seconds 600

starts `python app.py` on the demo model with a login for each of them, lets them change recipes, chat and reload while
some models are built, prints a table and writes `load.json`. A real Chromium for each takes most of a small machine;
`--clients http` makes the same requests without any. Exits with 1 when anything failed or was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from studio.contributions import file
from studio.jobs import runner
from studio.jobs.store import JobStore
from studio.jobs.task import ASSETS, DEMO
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.workspace import Workspace
from tests.load import browsers, http_clients
from tests.load.app import Gauge, login, studio
from tests.load.plan import Stay
from tests.load.record import Record, table

LOOK_S = 2.0
"""Between two looks at memory and processor."""
_JOB_S = 300
"""For a build that is under way when the people have left."""


def flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.run", description="Many people on one studio.")
    parser.add_argument("--browsers", type=int, default=20, help="people, each with a login of their own")
    parser.add_argument("--seconds", type=float, default=600.0, help="for so long after the last has come")
    parser.add_argument("--actions", type=int, default=0, help="and until each of them has done so many things")
    parser.add_argument("--apart", type=float, default=6.0, help="seconds between two who come, as in life")
    parser.add_argument("--seed", type=int, default=0, help="the same seed, the same actions of each person")
    parser.add_argument("--builds", type=int, default=2, help="models that are built meanwhile")
    parser.add_argument("--clients", choices=("browsers", "http"), default="browsers", help="what the people have")
    parser.add_argument("--processes", type=int, default=2, help="Chromium processes that they share")
    parser.add_argument("--out", type=Path, default=Path("load.json"), help="where the figures go")
    return parser.parse_args(arguments)


def measured(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of one run, with the studio's workspace and log in `folder`."""
    record, workspace = Record(), folder / "workspace"
    _convert(workspace)
    with studio(workspace, given.browsers) as (url, process):
        gauge, over = Gauge(process), threading.Event()
        watching = threading.Thread(target=_watch, args=(gauge, over), daemon=True)
        watching.start()
        building = threading.Thread(target=_build, args=(workspace, given, over), daemon=True)
        building.start()
        record.began = time.monotonic()
        people = partial(http_clients.live if given.clients == "http" else browsers.live, url, given.browsers)
        stay = Stay(record.began + _arriving_s(given) + given.seconds, given.actions, given.apart)
        more = {} if given.clients == "http" else {"processes": given.processes}
        asyncio.run(people(given.seed, stay, record, **more))
        jobs = _ended_jobs(workspace)
        over.set()
        watching.join()
        if not process.is_running():
            record.complain(-1, "the studio ended by itself")
        gauge.look()
    log = (folder / "app.log").read_text(encoding="utf-8", errors="replace")
    if "Traceback" in log:
        record.complaints.append(f"the studio's log has {log.count('Traceback')} tracebacks: {log[-2000:]}")
    record.complaints += [f"a job was lost: {job}" for job in jobs if not job.endswith("done")]
    if len(jobs) < given.builds + 1:
        record.complaints.append(f"{given.builds} builds and a conversion were wanted; known are {len(jobs)} jobs.")
    asked = {key: str(value) for key, value in vars(given).items() if key != "out"}
    return {
        "asked": asked,
        "times": record.summary(),
        **gauge.report(),
        "jobs": jobs,
        "complaints": record.complaints,
    }


def _arriving_s(given: argparse.Namespace) -> float:
    return float((given.browsers - 1) * given.apart)


def _watch(gauge: Gauge, over: threading.Event) -> None:
    while True:
        gauge.look()
        if over.wait(LOOK_S):
            return


def _convert(workspace: Path) -> None:
    """Make the GGUF of the demo model that the chat needs, which else the first question would wait for."""
    store = JobStore(Workspace.open(workspace))
    runner.start(store, "convert", {"reference": DEMO})
    store.close()
    _ended_jobs(workspace)


def _build(workspace: Path, given: argparse.Namespace, over: threading.Event) -> None:
    """Builds of the first person that start one after the other, the first a fifth of the time after all have come."""
    store = JobStore(Workspace.open(workspace).of(login(0)))
    contributions = file.load(ASSETS / "demo-contributions.safetensors")
    for number in range(given.builds):
        before = _arriving_s(given) + given.seconds * 0.2
        if over.wait(before if number == 0 else given.seconds * 0.6 / given.builds):
            break
        drop = make_map(contributions, preset("98e-v4", 8 + number))
        parameters = {"reference": DEMO, "map": drop.to_json(), "name": f"load-{number}"}
        runner.start(store, "build", {**parameters, "outputs": ["gguf"], "tiers": ["Q8_0"]})
    store.close()


def _ended_jobs(workspace: Path) -> list[str]:
    """Every job of every person with how it ended."""
    ended, deadline = [], time.monotonic() + _JOB_S
    for part in Workspace.open(workspace).parts().values():
        store = JobStore(part)
        while any(not job.is_finished for job in runner.refresh(store)) and time.monotonic() < deadline:
            time.sleep(0.5)
        ended += [f"{job.title}: {job.status}" for job in store.list()]
        store.close()
    return ended


def main(arguments: Sequence[str] | None = None) -> int:
    given = flags(arguments)
    with tempfile.TemporaryDirectory(prefix="espalier-load-") as folder:
        result = measured(given, Path(folder))
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))
    return 1 if result["complaints"] else 0


if __name__ == "__main__":
    sys.exit(main())
