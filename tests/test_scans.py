"""What `make check` says of secrets and of known vulnerabilities is what it has looked at."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
KEY = "AKIA" + "QYLPMN5HHHFPZAM2"
"""Has the form of a key, and opens nothing."""


class Service(BaseHTTPRequestHandler):
    """Stands in for OSV: knows one vulnerability, of jinja2."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        hole = {
            "id": "GHSA-test-only",
            "summary": "A hole",
            "details": "A hole",
            "affected": [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": []}],
        }
        body = json.dumps({"vulns": [hole]} if asked["package"]["name"] == "jinja2" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()


def audit(address: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, ROOT / ".ci" / "audit.py", "--vulnerability-service", "osv", "--osv-url", address]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=240)


def test_what_other_packages_brought_is_audited_too_and_a_vulnerable_one_fails(service: str) -> None:
    done = audit(service)
    assert done.returncode == 1 and "jinja2 3." in done.stdout and "GHSA-test-only" in done.stdout, done
    audited, _, installed = done.stdout.split(" installed packages")[0].splitlines()[-1].partition(" of ")
    pinned = (ROOT / "requirements.txt").read_text().count("==")
    assert int(audited) > 2 * pinned and int(installed) >= int(audited), "not only what is pinned"


def test_without_a_network_it_says_that_nothing_was_audited() -> None:
    done = audit("http://127.0.0.1:9/v1/query")
    assert done.returncode == 0 and done.stdout.startswith("NOT AUDITED") and "no known" not in done.stdout, done


@pytest.mark.parametrize(
    "name", ["tests/test_it.py", "tests/data/one.json", "deep/config.yaml", "assets/page.js", ".env"]
)
def test_a_key_anywhere_in_the_tree_is_found(name: str, tmp_path: Path) -> None:
    scan = [ROOT / ".ci" / "scan", BIN, tmp_path]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"nothing": 1}\n')
    assert subprocess.run(scan, capture_output=True, check=False).returncode == 0
    (tmp_path / name).write_text(f'{{"key": "{KEY}"}}\n')
    done = subprocess.run(scan, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and name in done.stdout
