"""What a machine does to a studio that nobody meant: disks fill up, models vanish, clocks jump, others hang."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.errors import InputError, ResourceError
from studio.jobs import runner
from studio.jobs import store as store_module
from studio.jobs.processes import PROJECT
from studio.jobs.store import Job, JobStore
from studio.jobs.task import ASSETS
from studio.jobs.tasks import check
from studio.progress import silent
from studio.recipes.dropmap import DropMap
from studio.workspace import Workspace
from tests.patience import job_once
from tests.publish.hub_stand_in import TOKEN, Hub, start
from tests.quantize.quantize_source import EXPERTS, LAYERS, build_source

MAP = json.dumps({str(layer): [0, 1 + layer % (EXPERTS - 1)] for layer in range(LAYERS)})
BUILD = {"name": "made", "map": MAP, "reference": "whole.gguf", "outputs": ["gguf"]}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_source(tmp_path_factory.mktemp("tiny") / "whole.gguf")


@pytest.fixture
def workspace(own_workspace: Path, gguf: Path) -> Workspace:
    """A workspace with a copy of the model, which may be harmed."""
    workspace = Workspace.open(own_workspace)
    shutil.copy(gguf, workspace.references)
    return workspace


@pytest.fixture
def store(workspace: Workspace) -> Iterator[JobStore]:
    store = JobStore(workspace)
    yield store
    for job in store.list():
        if job.status == "running" and job.process is not None:
            job.process.end(0.1)
    store.close()


class Once:
    """A progress that does something harmful, once, when the work is at a step."""

    def __init__(self, step: str, harm: Callable[[], object]) -> None:
        self.step, self.harm, self.done = step, harm, False

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None:
        if self.step in message and not self.done:
            self.done = True
            self.harm()


def build(workspace: Workspace, progress: Any = silent, **changes: Any) -> dict[str, bytes]:
    """What a build makes: name → contents."""
    check("build", {**BUILD, **changes}, workspace).run(workspace, progress)
    folder = workspace.artifacts / "made"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- disks


@pytest.mark.parametrize(
    ("tiers", "step", "said"),
    [
        ([], "for its hash", "iB free, and this needs"),
        (["Q8_0", "Q4_K_M"], "Quantizing: blk.0", "filled up while writing"),
    ],
)
def test_a_build_is_made_when_there_is_room_again(
    workspace: Workspace, gguf: Path, small_disk: Path, *, tiers: list[str], step: str, said: str
) -> None:
    small = Workspace.open(small_disk)
    (small.references / "whole.gguf").symlink_to(gguf)
    ballast = small_disk / "ballast"

    def fill() -> None:
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))

    with pytest.raises(ResourceError, match=said) as caught:
        build(small, Once(step, fill), tiers=tiers)
    assert caught.value.remedy.startswith("Free some space")
    assert not [*small.artifacts.iterdir()]
    ballast.unlink()
    assert build(small, tiers=tiers) == build(workspace, tiers=tiers)


def test_a_store_on_a_full_disk_says_so_and_works_again_when_there_is_room(small_disk: Path) -> None:
    workspace = Workspace.open(small_disk)
    store = JobStore(workspace)
    job = store.add("build", "one", {})
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    for action in (
        lambda: store.update(job.id, message="x" * 20_000),
        lambda: store.add("build", "two", {}),
        lambda: JobStore(workspace).close(),
    ):
        with pytest.raises(ResourceError, match="its disk is full") as caught:
            action()
        assert "damaged" not in str(caught.value) and "Free some space" in caught.value.remedy
    assert [one.title for one in store.list()] == ["one"]
    ballast.unlink()
    store.add("build", "two", {})
    assert store.update(job.id, message="goes on").message == "goes on"
    assert [one.title for one in JobStore(workspace).list()] == ["two", "one"]
    store.close()


def test_a_dead_job_is_shown_on_a_full_disk_and_buried_when_there_is_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(Workspace.open(small_disk))
    job = store.add("build", "one", {})
    store.update(job.id, status="running", started=time.time(), pid=2**22 - 1, process_birth=1.0)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    monkeypatch.setattr(Job, "process", property(lambda self: None))
    store.log_path(job.id).parent.mkdir(exist_ok=True)
    assert [one.title for one in runner.refresh(store)] == ["one"]
    ballast.unlink()
    assert runner.refresh(store)[0].status == "failed"
    store.close()


# --- models that do not stay what they are


def overwrite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100_000:] = bytes(100_000)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))  # however coarse the clock of the file system is


@pytest.mark.parametrize("tiers", [[], ["Q8_0"]])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (overwrite, "changed while it was read"),
        (Path.unlink, "vanished while it was read"),
        (lambda path: os.truncate(path, 1_000_000), "changed while it was read"),
    ],
)
def test_a_gguf_that_does_not_stay_what_it_was_is_named(
    harm: Callable[[Path], object], said: str, tiers: list[str], workspace: Workspace, gguf: Path
) -> None:
    model = workspace.references / "whole.gguf"
    with pytest.raises(InputError, match=said) as caught:
        build(workspace, Once("for its hash", lambda: harm(model)), tiers=tiers)
    assert model.name in caught.value.what and "tart again" in caught.value.remedy
    assert not [*workspace.artifacts.iterdir()]
    model.unlink(missing_ok=True)
    shutil.copy(gguf, model)
    made = build(workspace, tiers=tiers)
    shutil.rmtree(workspace.artifacts / "made")
    assert made == build(workspace, tiers=tiers)


@pytest.mark.parametrize("harm", [overwrite, Path.unlink])
def test_a_checkpoint_that_does_not_stay_what_it_was_is_named(harm: Callable[[Path], object], tmp_path: Path) -> None:
    model = shutil.copytree(ASSETS / "demo-model", tmp_path / "model")
    layers = {str(layer): [0] for layer in range(json.loads((model / "config.json").read_text())["num_hidden_layers"])}
    drop = DropMap.from_json(json.dumps(layers), 32)
    with pytest.raises(InputError, match=r"model\.safetensors (changed|vanished) while it was read"):
        prune_safetensors(model, drop, tmp_path / "out", progress=Once("", lambda: harm(model / "model.safetensors")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


# --- clocks


def test_the_order_of_jobs_outlives_a_clock_that_is_set_back(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.add("build", "first", {})
    monkeypatch.setattr(store_module.time, "time", lambda: 86_400.0)
    second = store.add("build", "second", {})
    assert [job.title for job in store.list()] == ["second", "first"]
    store.update(second.id, status="running", started=first.created)
    ended = store.finish(second.id, "done")
    assert ended.finished is not None and ended.started is not None and ended.finished >= ended.started


def test_no_job_is_taken_for_dead_when_the_clock_jumps(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = store.add("build", "long", {})
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", job.id])
    try:
        birth = psutil.Process(bystander.pid).create_time() - psutil.boot_time()
        store.update(job.id, status="running", started=time.time(), pid=bystander.pid, process_birth=birth)
        boot_time = psutil.boot_time()
        for jump in (-86_400.0, 86_400.0, 3.0):  # the kernel then reports another time of day for its start, too
            monkeypatch.setattr(psutil, "boot_time", lambda jump=jump: boot_time + jump)
            monkeypatch.setattr(psutil._pslinux, "boot_time", lambda jump=jump: boot_time + jump)
            assert runner.refresh(store)[0].status == "running"
    finally:
        bystander.kill()
        bystander.wait()


# --- others


def test_an_upload_to_a_hub_that_does_not_answer_is_cancelled_within_two_seconds(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(hold_after=0)
    server = start(hub)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # it is left in the middle of a file
    told = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    try:
        build(store.workspace)
        job = runner.start(store, "publish", {"artifact": "artifacts/made", "repository": "me/made"})
        job_once(store, job.id, lambda _: any(one.startswith("PUT") for one in hub.requests))
        begin = time.monotonic()
        assert runner.cancel(store, job.id).status == "cancelled"
        assert time.monotonic() - begin < 2
        assert not [*store.workspace.root.rglob(".*upload*")] and not hub.objects
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()


def test_two_apps_see_one_store_and_neither_takes_the_others_job_for_dead(store: JobStore) -> None:
    """The second app is a process of its own, which looks as often as it can."""
    script = (
        "import sys\n"
        "from studio.jobs import runner\n"
        "from studio.jobs.store import JobStore\n"
        "from studio.workspace import Workspace\n"
        "store = JobStore(Workspace.open(sys.argv[1]))\n"
        "seen = set()\n"
        "while True:\n"
        "    jobs = runner.refresh(store)\n"
        "    seen |= {(job.id, job.pid, job.status) for job in jobs}\n"
        "    if len(jobs) == 4 and all(job.is_finished for job in jobs): break\n"
        "for told in sorted(map(str, seen)): print(told)\n"
    )
    command = [sys.executable, "-c", script, str(store.workspace.root)]
    other = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    jobs = [runner.start(store, "build", {**BUILD, "name": f"made-{number}"}) for number in range(4)]
    ended = [job_once(store, job.id, lambda job: job.is_finished) for job in jobs]
    said = other.communicate(timeout=120)[0]
    assert [job.status for job in ended] == ["done"] * 4, [job.error for job in ended]
    for job in ended:
        assert said.count(f"'{job.id}'") >= 1 and f"('{job.id}', {job.pid}, 'failed')" not in said
        ran = {line.split(", ")[1] for line in said.splitlines() if job.id in line} - {"None"}
        assert ran == {str(job.pid)}, "no job has run twice"


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str], own_workspace: Path) -> None:
    import app

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.main(["--no-browser", "--port", str(port), "--workspace", str(own_workspace)]) == 2
    said = capsys.readouterr().err
    assert str(port) in said and "--port" in said and "launch" not in said and "Traceback" not in said
