"""`build`: a whole artifact from a terminal, by the job that the page starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.jobs.store import JobStore
from studio.publish.manifest import Manifest
from studio.workspace import Workspace
from tests.cli.tiny_gemma import LAYERS
from tests.patience import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]
HEED = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'studio'; "
MODULE = "import runpy; runpy.run_module('studio', run_name='__main__', alter_sys=True)"


def test_what_is_built_is_verified_built_again_and_told_of(
    verb: Run, own_workspace: Path, checkpoint: Path, contributions: Path, drop_map: Path
) -> None:
    told = verb(
        "build", checkpoint, "--map", drop_map, "--contributions", contributions, "--safetensors", "--tier", "Q8_0",
        "--name", "small", "--json",
    ).json  # fmt: skip
    folder = own_workspace / "artifacts" / "small"
    assert Path(told["folder"]) == folder and told["kept_experts"] == 5
    assert {Path(file["path"]).parent.name for file in told["files"]} == {"safetensors", "gguf"}
    story = Manifest.read(folder / "espalier-manifest.json")
    assert story.recipe is not None and story.contributions and story.tiers == ("Q8_0",)
    assert verb("verify", "small", "--json").json["files"] == len(told["files"])
    found = verb("replay", "small", "--contributions", contributions, "--json").json
    assert found["equal"] and found["same"] == len(told["files"])
    assert len(verb("ollama", "small", "--json").json["files"]) == 1
    assert "small-Q8_0" in Path(verb("card", "small", "--format", "gguf", "--json").json["out"]).read_text()
    assert "exists already" in verb("build", checkpoint, "--map", drop_map, "--safetensors", "--name", "small").mistake


def test_a_recipe_makes_the_map_that_it_makes_elsewhere_and_the_name_follows(
    verb: Run, checkpoint: Path, contributions: Path, drop_map: Path
) -> None:
    chosen = ("--contributions", contributions, "--preset", "98e-v4", "--drop", "3")
    told = verb("build", checkpoint, *chosen, "--safetensors", "--json").json
    assert told["name"] == "tiny-gemma-5e"
    by_map = verb("build", checkpoint, "--map", drop_map, "--safetensors", "--name", "other", "--json").json
    hashes = [[file["sha256"] for file in one["files"] if "model" in file["path"]] for one in (told, by_map)]
    assert told["map_hash"] == by_map["map_hash"] and hashes[0] == hashes[1]
    # Of the story that `map` wrote, nothing is lost either.
    stories = [Manifest.read(Path(one["manifest"])) for one in (told, by_map)]
    assert stories[0].recipe_sha256 == stories[1].recipe_sha256 is not None
    assert stories[0].contributions == stories[1].contributions is not None


def test_ollama_says_what_is_missing_where_there_is_no_gguf(verb: Run, checkpoint: Path, drop_map: Path) -> None:
    verb("build", checkpoint, "--map", drop_map, "--safetensors", "--name", "plain", "--json")
    assert "no GGUF file for Ollama" in verb("ollama", "plain").mistake


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--safetensors"], "no map to build"),
        (["--map", "MAP"], "Nothing is to be made"),
        (["--map", "MAP", "--preset", "98e-v4", "--safetensors"], "a recipe too"),
        (["--map", "MAP", "--tier", "Q9_X"], "Q9_X"),
        (["--map", "MAP", "--safetensors", "--name", "../out"], "cannot be a name"),
    ],
)
def test_what_cannot_be_built_is_said_before_any_work(
    options: list[str], words: str, verb: Run, checkpoint: Path, drop_map: Path
) -> None:
    given = [str(drop_map) if option == "MAP" else option for option in options]
    assert words in verb("build", checkpoint, *given).mistake
    assert JobStore(Workspace.open()).list() == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, "cancelled"), (signal.SIGTERM, "queued")])
def test_ctrl_c_cancels_the_job_and_sigterm_pauses_it(
    number: signal.Signals, status: str, own_workspace: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "map.json").write_text(json.dumps({str(layer): [0] for layer in range(LAYERS)}))
    line = ["build", checkpoint, "--map", tmp_path / "map.json", "--tier", "Q8_0", "--name", "small"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEED + MODULE, *map(str, line)],
        cwd=ROOT,
        env={**os.environ, "ESPALIER_HOME": str(own_workspace)},
        stderr=subprocess.PIPE,
        text=True,
    )
    store = JobStore(Workspace.open(own_workspace))

    def begun() -> bool:
        return process.poll() is not None or any(job.status == "running" and job.total for job in store.list())

    assert eventually(begun)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "Cancelled.\n")
    (job,) = store.list()
    assert job.status == status and not (own_workspace / "artifacts" / "small").exists()
