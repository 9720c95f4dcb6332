"""Headers of models on the Hub, from a stand-in for its HTTP interface on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from studio.checkpoints.gguf_header import read_header
from studio.quantize.writer import Options, quantize
from tests.quantize.quantize_source import build_source

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"


class Hub(BaseHTTPRequestHandler):
    """`/api/models/OWNER/NAME` and `/OWNER/NAME/resolve/main/FILE`, with ranges, from a folder."""

    folder: Path
    sent = 0

    def do_GET(self) -> None:
        api = re.fullmatch(r"/api/models/([\w-]+/[\w.-]+)(?:/revision/main)?(?:\?.*)?", self.path)
        file = re.fullmatch(r"/([\w-]+/[\w.-]+)/resolve/main/([^?]+)", self.path)
        if api and (self.folder / api[1]).is_dir():
            files = sorted(path for path in (self.folder / api[1]).iterdir())
            siblings = [{"rfilename": path.name, "size": path.stat().st_size} for path in files]
            self._send(200, json.dumps({"id": api[1], "siblings": siblings}).encode())
        elif file and (self.folder / file[1] / file[2]).is_file():
            data = (self.folder / file[1] / file[2]).read_bytes()
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            self._send(206, data[int(first) : int(last) + 1])
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _send(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        type(self).sent += len(content)
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a Hub with three models."""
    folder = tmp_path_factory.mktemp("hub")
    for name in ("small", "parts", "demo"):
        (folder / "someone" / name).mkdir(parents=True)
    source = build_source(folder / "someone" / "small" / "tiny.gguf")
    quantize(source, ["BF16"], folder / "someone" / "parts", name="p", options=Options(split_bytes=600_000))
    for file in ("config.json", "model.safetensors", "README.md"):
        shutil.copy(ASSETS / "demo-model" / file, folder / "someone" / "demo")
    (folder / "someone" / "small" / "broken.gguf").write_bytes(b"<html>" * 1000)
    handler = type("ThisHub", (Hub,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()


def plan(model: str, endpoint: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m studio plan MODEL`, with the Hub at `endpoint`."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", **more}
    command = [sys.executable, "-m", "studio", "plan", model, "--tier", "Q4_K_M", "--json"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        ("hf:someone/small/tiny.gguf", "someone/small/tiny.gguf"),
        ("hf:someone/small@main/tiny.gguf", "someone/small/tiny.gguf"),
        ("hf:someone/demo", "someone/demo"),
    ],
)
def test_a_model_elsewhere_is_planned_as_if_it_were_here(remote: str, local: str, hub: tuple[str, Path]) -> None:
    endpoint, folder = hub
    there, here = plan(remote, endpoint), plan(str(folder / local), endpoint)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(here.stdout)


def test_any_part_of_a_split_model_is_enough(hub: tuple[str, Path]) -> None:
    endpoint, folder = hub
    parts = sorted((folder / "someone" / "parts").iterdir())
    there = plan(f"hf:someone/parts/{parts[1].name}", endpoint)
    assert there.returncode == 0, there.stderr
    names = {tensor.name for tensor in read_header(parts[0]).tensors}
    assert set(json.loads(there.stdout)["tensors"]) == names


def test_what_is_not_there_is_said_in_one_sentence(hub: tuple[str, Path]) -> None:
    endpoint, _ = hub
    for model, words in (
        ("hf:someone/nothing", "There is no model hf:someone/nothing on the Hub."),
        ("hf:someone/small/no.gguf", "There are broken.gguf, tiny.gguf."),
        ("hf:someone/small", "Name one of its files, such as hf:someone/small/broken.gguf."),
        ("hf:someone/small/broken.gguf", "this is not a GGUF file"),
        ("hf:someone", "names no model"),
    ):
        done = plan(model, endpoint)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_offline_it_says_so() -> None:
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = plan("hf:someone/small/tiny.gguf", "http://127.0.0.1:9", **environment)
        assert done.returncode in (1, 2) and "Look at a model on this machine" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
