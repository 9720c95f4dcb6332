"""The studio as in a container: a user without rights or a home, a tree that nobody can write to, and one volume."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from studio.jobs.store import JobStore
from studio.workspace import Workspace
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parent.parent
NOBODY = 65534
SECRET = "_".join(("hf", "thisOpensNothingButMustNeverBeToldToAnybody"))  # in two parts: no token lies in the tree
RUN = 'mount -o remount,ro,bind / && exec setpriv --reuid={0} --regid={0} --clear-groups "$@"'
UNCOVER = """mkdir -p "$0-held" && mount --bind {1} "$0-held" && mount -t tmpfs -o mode=755 tmpfs {0} &&
mkdir -p {1} && mount --bind "$0-held" {1} && mount -o remount,ro {0} && """
"""Where Python lies in a folder that others may not enter: that folder with nothing else in it."""


def contained(volume: Path, *command: str) -> list[str]:
    """The line that runs `command` as nobody, with everything but `volume` read-only for the kernel."""
    base = Path(sys.base_prefix).resolve()
    closed = [path for path in reversed(base.parents) if not path.stat().st_mode & stat.S_IXOTH]
    uncover = UNCOVER.format(closed[0], base) if closed else ""
    script = f'mount --bind "$0" "$0" && {uncover}{RUN.format(NOBODY)}'
    return ["unshare", "--mount", "sh", "-c", script, str(volume), *command]


@pytest.fixture
def volume() -> Iterator[Path]:
    """An empty folder that nobody may write to: the user, that is."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("becoming another user with its own mounts needs root, unshare and setpriv")
    with TemporaryDirectory(prefix="espalier-volume-") as place:  # pytest's own folders are closed to other users
        Path(place).chmod(0o755)
        volume = Path(place) / "data"
        volume.mkdir()
        os.chown(volume, NOBODY, NOBODY)
        reads = f"import os, sys, numpy; os.listdir({str(ROOT)!r}); sys.exit(os.access('/', os.W_OK))"
        if subprocess.run(contained(volume, sys.executable, "-c", reads), capture_output=True, check=False).returncode:
            pytest.skip("this machine does not let other users read the tree, or has no mounts to give")
        yield volume


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.timeout(900)
def test_without_rights_home_and_tree_a_model_is_built_talked_to_and_no_secret_is_told(volume: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("/data", str(volume))
    environment = {
        **dict(re.findall(r"^(?:ENV|   ) ([A-Z_]+)=(\S+)", dockerfile, re.MULTILINE)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "HF_HUB_OFFLINE": "1",
        "HF_TOKEN": SECRET,
        "ESPALIER_AUTH": f"ann:{SECRET}",
        "OMP_NUM_THREADS": "1",
    }

    def verb(*arguments: str) -> str:
        line = contained(volume, sys.executable, "-m", "studio", *arguments)
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    chosen = volume / "map.json"
    assert Path(environment["ESPALIER_HOME"]).parent == Path(environment["TMPDIR"]).parent == volume
    verb("map", "assets/demo-contributions.safetensors", "--preset", "98e-v4", "--drop", "8", "--out", str(chosen))
    workspace = Workspace.open(volume / "espalier")
    store = JobStore(workspace)
    build = {"reference": "demo", "map": chosen.read_text(), "name": "small", "outputs": ["gguf"], "tiers": ["Q4_K_M"]}
    built = store.add("build", "Build", build)
    broken = store.add("publish", "Publish", {"artifact": "artifacts/small", "repository": "nobody/nothing"})
    for path in (workspace.root, *workspace.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = volume.parent / "app.log"
    (started,) = re.findall(r"^CMD (.*)$", dockerfile, re.MULTILINE)
    with log.open("wb") as output:
        line = contained(volume, *json.loads(started.replace("7860", str(port))))
        app = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: store.get(built.id).is_finished, app, log)
        assert store.get(built.id).status == "done", store.log_tail(built.id)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            assert answer.status == 200
        wait_until(lambda: store.get(broken.id).is_finished, app, log)
        (made,) = (workspace.artifacts / "small" / "gguf").glob("*.gguf")
        said = json.loads(verb("chat", str(made), "--prompt", "7 + 8 = ?", "--json"))
        assert said
        app.send_signal(signal.SIGTERM)
        assert app.wait(10) == 0
    finally:
        with suppress(ProcessLookupError):
            app.kill()
        app.wait()
    assert store.get(broken.id).status == "failed"
    told = [log, *(path for path in volume.rglob("*") if path.is_file() and path.suffix != ".gguf")]
    assert [path for path in told if SECRET.encode() in path.read_bytes()] == []
