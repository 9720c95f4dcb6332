"""The kinds of work that are killed, each on a small model, and what stands under final names in a workspace."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from studio.checkpoints.convert import cached_gguf
from studio.contributions.file import load
from studio.jobs.task import ASSETS
from studio.jobs.tasks import check
from studio.progress import silent
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from studio.workspace import Workspace
from tests.publish.hub_stand_in import TOKEN, Hub, start
from tests.quantize.quantize_source import EXPERTS, LAYERS, build_source

CONTRIBUTIONS = ASSETS / "demo-contributions.safetensors"
TIERS = ["Q8_0", "Q4_K_M", "Q6_K"]

Found = dict[str, str]
"""What stands under a final name → sha256."""


@dataclass(frozen=True)
class Work:
    """One kind of job, asked for in the same words again and again."""

    name: str
    share: int
    """How many of a hundred kills it gets."""
    kind: str
    parameters: dict[str, JsonValue]
    prepare: Callable[[Workspace], None]
    """Puts there what the job needs."""
    found: Callable[[Workspace], Found]
    """What is visible of its results; a name that begins with a dot is none."""
    clear: Callable[[Workspace], None]
    """Removes them, for the next one to start from nothing."""
    together: bool = True
    """Whether its results appear at once, or one after the other."""
    begins: str = ""
    """What its messages begin with when the work proper does."""


def works(scratch: Path, *, small: bool) -> list[Work]:
    """All of them, or with `small` those that take two seconds each and load no torch."""
    gguf, gguf_map = (_tiny(scratch), _tiny_map()) if small else (_converted_demo(scratch), _demo_map())

    def with_gguf(workspace: Workspace) -> None:
        (workspace.references / "whole.gguf").symlink_to(gguf)

    build: dict[str, JsonValue] = {"name": "made", "map": gguf_map, "reference": "whole.gguf", "outputs": ["gguf"]}
    demo: dict[str, JsonValue] = {**build, "reference": "demo", "map": _demo_map()}
    chosen = [
        Work("prune safetensors", 20, "build", {**demo, "outputs": ["safetensors"]}, _nothing, _artifacts, _clear),
        Work("prune GGUF", 20, "build", build, with_gguf, _artifacts, _clear),
        Work("sweep", 25, "build", {**build, "tiers": TIERS, "split_bytes": 8 << 20}, with_gguf, _artifacts, _clear),
        _upload(scratch, gguf, build),
    ]
    if small:
        return chosen
    both: dict[str, JsonValue] = {"outputs": ["safetensors", "gguf"], "tiers": ["Q8_0"]}
    measured: dict[str, JsonValue] = {"reference": "demo", "name": "made", "imatrix": True, "continuation": 4}
    measured |= {"prompts": "prompts/few.jsonl", "mode": "whole"}
    return [
        *chosen,
        Work("convert and build", 5, "build", demo | both, _nothing, _artifacts_and_cache, _clear, together=False),
        Work("contribution pass", 15, "analyze", measured, _few_prompts, _measured, _clear, together=False),
    ]


def _upload(scratch: Path, gguf: Path, build: dict[str, JsonValue]) -> Work:
    """Sends an artifact of two tiers to a Hub of its own on the loopback."""
    hub = Hub()
    start(hub).handle_error = lambda *_: None  # type: ignore[method-assign]  # connections of the killed break off
    os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}

    def prepare(workspace: Workspace) -> None:
        with_build = Workspace.open(scratch / "to upload")
        (with_build.references / "whole.gguf").symlink_to(gguf)
        check("build", {**build, "tiers": TIERS[:2]}, with_build).run(with_build, silent)
        shutil.copytree(with_build.artifacts, workspace.artifacts, dirs_exist_ok=True)

    def found(workspace: Workspace) -> Found:
        sent = {
            f"{name}/{file}": content for name, one in hub.repositories.items() for file, content in one.files.items()
        }
        return _artifacts(workspace) | {f"Hub/{name}": _sha256(content) for name, content in sent.items()}

    def clear(workspace: Workspace) -> None:
        hub.repositories.clear()
        hub.objects.clear()
        hub.received.clear()

    parameters: dict[str, JsonValue] = {"artifact": "artifacts/made", "repository": "me/made"}
    return Work("upload", 15, "publish", parameters, prepare, found, clear, together=False)


def _nothing(workspace: Workspace) -> None:
    """The demo model is everywhere."""


def _few_prompts(workspace: Workspace) -> None:
    """Some to answer, and some to observe in several batches."""
    asked = [{"class": "open", "prompt": f"What is {number} + {number}?"} for number in range(6)]
    told = [{"class": "told", "prompt": "Say it! " * number, "answer": "It. " * 80} for number in range(1, 19)]
    lines = "".join(json.dumps(line) + "\n" for line in (*asked, *told))
    (workspace.prompts / "few.jsonl").write_text(lines)


def _clear(workspace: Workspace) -> None:
    for path in (*workspace.artifacts.iterdir(), *_files_measured(workspace), workspace.cache / "converted"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _artifacts(workspace: Workspace) -> Found:
    return _below(workspace, workspace.artifacts.rglob("*"))


def _artifacts_and_cache(workspace: Workspace) -> Found:
    return _artifacts(workspace) | _below(workspace, (workspace.cache / "converted").glob("*"))


def _files_measured(workspace: Workspace) -> list[Path]:
    return [*workspace.contributions.iterdir(), *workspace.imatrix.iterdir()]


def _measured(workspace: Workspace) -> Found:
    return _below(workspace, _files_measured(workspace))


def _below(workspace: Workspace, paths: Any) -> Found:
    visible = [
        path for path in paths if not any(part.startswith(".") for part in path.relative_to(workspace.root).parts)
    ]
    return {str(path.relative_to(workspace.root)): _sha256(path.read_bytes()) for path in visible if path.is_file()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tiny(scratch: Path) -> Path:
    return build_source(scratch / "tiny.gguf")


def _tiny_map() -> str:
    return json.dumps({str(layer): [0, 1 + layer % (EXPERTS - 1)] for layer in range(LAYERS)})


def _converted_demo(scratch: Path) -> Path:
    return cached_gguf(ASSETS / "demo-model", scratch / "cache")


def _demo_map() -> str:
    return make_map(load(CONTRIBUTIONS), preset("98e-v4", drop=8)).to_json()


if __name__ == "__main__":
    sys.exit("This is read by tests.kills.run.")
