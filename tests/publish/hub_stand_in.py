"""A small stand-in for the Hub's HTTP interface, as far as an upload goes: a real server on the loopback.

Repositories, the questions that huggingface_hub asks before an upload, Git LFS, and commits. Weights go by Git LFS; the
Hub's newer storage (Xet) is another service, with a protocol of its own, which is not imitated here. It can break the
connection in the middle of a file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_aSecretThatMustNotBeWrittenAnywhere"
_REGULAR = (".md", ".json", ".svg", ".jinja", "template", "params", ".txt", ".jsonl")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)


@dataclass
class Hub:
    """What the server knows and was told."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """sha256 → what came by Git LFS."""
    received: dict[str, int] = field(default_factory=dict)
    """sha256 → how many times it came whole."""
    breaks: int = 0
    """How many more uploads of objects break in the middle."""
    hold_after: int | None = None
    """After so many objects, uploads wait for `released`."""
    released: threading.Event = field(default_factory=threading.Event)
    refuse_commits: bool = False
    token: str = TOKEN
    """The one that opens it."""
    requests: list[str] = field(default_factory=list)
    url: str = ""


def start(hub: Hub) -> ThreadingHTTPServer:
    """Serve `hub` on a free port of the loopback; `server.shutdown()` ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: Any = None) -> None:
            body = b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def allowed(self) -> bool:
            if self.headers.get("Authorization") == f"Bearer {hub.token}":
                return True
            self.body()
            self.answer(401, {"error": "Invalid username or password."})
            return False

        def do_GET(self) -> None:
            hub.requests.append(f"GET {self.path}")
            if not self.allowed():
                return
            found = re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:/revision/main)?(?:\?.*)?", self.path)
            repository = hub.repositories.get(found[1]) if found else None
            if found is None or repository is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            names = [{"rfilename": name} for name in sorted(repository.files)]
            sha = hashlib.sha1(str(len(repository.commits)).encode()).hexdigest()
            self.answer(200, {"id": found[1], "private": repository.private, "siblings": names, "sha": sha})

        def do_POST(self) -> None:
            hub.requests.append(f"POST {self.path}")
            if not self.allowed():
                return
            given = self.body()
            if self.path == "/api/repos/create":
                self.create(json.loads(given))
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
                self.preupload(hub.repositories[found[1]], json.loads(given))
            elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self.path):
                self.batch(json.loads(given))
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
                self.commit(found[1], given)
            else:
                self.answer(200, {"message": "ok"})

        def create(self, told: dict[str, Any]) -> None:
            name = f"{told.get('organization') or 'me'}/{told['name']}"
            if name in hub.repositories:
                self.answer(409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"})
                return
            hub.repositories[name] = Repository(
                private=bool(told.get("private") or told.get("visibility") == "private")
            )
            self.answer(200, {"url": f"{hub.url}/{name}", "id": name})

        def preupload(self, repository: Repository, told: dict[str, Any]) -> None:
            answers = []
            for file in told["files"]:
                mode = "regular" if file["path"].endswith(_REGULAR) else "lfs"
                known = repository.files.get(file["path"])
                oid = None
                if known is not None and mode == "lfs":
                    oid = hashlib.sha256(known).hexdigest()
                elif known is not None:
                    oid = hashlib.sha1(b"blob %d\0" % len(known) + known).hexdigest()
                answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self.answer(200, {"files": answers})

        def batch(self, told: dict[str, Any]) -> None:
            objects = []
            for one in told["objects"]:
                missing = one["oid"] not in hub.objects
                actions = {"upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}}} if missing else {}
                objects.append({**one, "authenticated": True, **({"actions": actions} if actions else {})})
            self.answer(200, {"transfer": "basic", "objects": objects})

        def do_PUT(self) -> None:
            hub.requests.append(f"PUT {self.path}")
            length = int(self.headers["Content-Length"])
            if hub.hold_after is not None and len(hub.objects) >= hub.hold_after:
                hub.released.wait(60)
            if hub.breaks > 0:
                hub.breaks -= 1
                self.rfile.read(length // 2)
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            content = self.rfile.read(length)
            if len(content) < length:  # who sent it has gone
                self.close_connection = True
                return
            sha256 = self.path.removeprefix("/lfs/")
            assert hashlib.sha256(content).hexdigest() == sha256
            hub.objects[sha256] = content
            hub.received[sha256] = hub.received.get(sha256, 0) + 1
            self.answer(200, {})

        def commit(self, name: str, given: bytes) -> None:
            if hub.refuse_commits:
                self.answer(403, {"error": "You have no write access to this repository."})
                return
            repository, changed = hub.repositories[name], []
            for line in given.splitlines():
                told = json.loads(line)
                value = told["value"]
                if told["key"] == "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                elif told["key"] == "lfsFile":
                    repository.files[value["path"]] = hub.objects[value["oid"]]
                else:
                    continue
                changed.append(value["path"])
            repository.commits.append(changed)
            oid = hashlib.sha1(given).hexdigest()
            self.answer(200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{name}/commit/{oid}"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
