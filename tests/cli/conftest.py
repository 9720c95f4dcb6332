"""A tiny model and everything that the verbs make of it, each made once, by its verb."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.cli.app import main
from tests.cli.tiny_gemma import write_checkpoint, write_prompts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the journey lie; tests read them and write elsewhere."""
    return tmp_path_factory.mktemp("journey")


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Path:
    return write_checkpoint(folder / "tiny-gemma")


@pytest.fixture(scope="session")
def prompts(folder: Path) -> Path:
    return write_prompts(folder / "prompts.jsonl")


@pytest.fixture(scope="session")
def contributions(folder: Path, checkpoint: Path, prompts: Path) -> Path:
    out = folder / "tiny.safetensors"
    assert main(["analyze", str(checkpoint), "--prompts", str(prompts), "--out", str(out), "--continuation", "4"]) == 0
    return out


@pytest.fixture(scope="session")
def drop_map(folder: Path, contributions: Path) -> Path:
    out = folder / "map.json"
    assert main(["map", str(contributions), "--preset", "98e-v4", "--drop", "3", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def gguf(folder: Path, checkpoint: Path) -> Path:
    out = folder / "tiny.gguf"
    assert main(["convert", str(checkpoint), "--out", str(out)]) == 0
    return out


class Outcome:
    """What a verb did: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        assert self.code == 0, self.err
        assert self.out.endswith("}\n") and self.out.count("\n") == 1
        return json.loads(self.out)

    @property
    def mistake(self) -> str:
        """The one sentence on stderr."""
        assert self.code == 2 and self.out == "", self.err
        assert self.err.endswith("\n") and self.err.count("\n") == 1
        return self.err.strip()


@pytest.fixture
def verb(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a verb in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def command() -> Callable[..., Outcome]:
    """Runs a verb as a person does, in a process of its own."""

    def run(*arguments: object) -> Outcome:
        line = [sys.executable, "-m", "studio", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT, timeout=200)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
