"""What holds for every verb: help with an example, quick start, exit codes, one place for errors."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.cli import app
from tests.cli.tiny_gemma import LAYERS
from tests.patience import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]
GROUPED = [[group, *verb] for group, (_, verbs) in app.GROUPS.items() for verb in ([], *([name] for name in verbs))]
COMMANDS = [[name] for name in app.VERBS] + GROUPED


def test_the_verbs_are_those_that_scripts_rely_on() -> None:
    verbs = {
        "prompts",
        "analyze",
        "import",
        "merge",
        "insights",
        "similarity",
        "map",
        "measure",
        "search",
        "build",
        "prune",
        "convert",
        "plan",
        "quantize",
        "diverge",
        "fits",
        "chat",
        "verify",
        "replay",
        "ollama",
        "card",
        "publish",
        "evaluate",
        "harness",
        "results",
        "doctor",
        "votes",
        "clean",
    }
    assert set(app.VERBS) == verbs and set(app.JOB_VERBS) == {"list", "show", "cancel", "resume"}
    assert set(app.TASK_VERBS) == {"show", "convert"}
    assert set(app.IMATRIX_VERBS) == {"show", "merge", "convert", "slice"}


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_verb_has_help_with_an_example_that_parses(name: list[str], verb: Run) -> None:
    outcome = verb(*name, "--help")
    assert outcome.code == 0 and outcome.err == ""
    example = outcome.out.partition("Example:\n")[2].strip()
    assert example.startswith(f"python -m studio {' '.join(name)}")


def test_nothing_at_all_is_answered_with_help(verb: Run) -> None:
    outcome = verb()
    assert outcome.code == 0 and "quantize" in outcome.out


def test_help_loads_neither_model_runtime_nor_numpy() -> None:
    script = (
        "import sys\nfrom studio.cli.app import main\nassert main(['map', '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'xllamacpp', 'numpy', 'gguf', 'rich', 'diskcache'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["jobs"], "Missing command"),
        (["plan"], "Missing argument"),
        (["plan", "x.gguf"], "--tier"),
        (["plan", "x.gguf", "--tier", "Q4_K_M", "--colour"], "--colour"),
        (["map", "x", "--out", "y", "--drop", "many"], "--drop"),
        (["plan", "nothing-here.gguf", "--tier", "Q4_K_M"], "nothing-here.gguf"),
        (["jobs", "show", "12345678"], "no job '12345678'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], words: str, verb: Run) -> None:
    assert words in verb(*arguments).mistake


def test_a_real_process_says_the_same(command: Run) -> None:
    assert "nothing-here.gguf" in command("plan", "nothing-here.gguf", "--tier", "Q4_K_M", "--json").mistake
    assert "--help` shows how" in command("map").mistake


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setitem(app.VERBS, "plan", (broken, "plan"))
    with pytest.raises(ZeroDivisionError):
        app.main(["plan"])


def test_sigterm_is_only_taken_over_while_a_verb_runs(verb: Run) -> None:
    before = signal.getsignal(signal.SIGTERM)
    verb("jobs", "list")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_verb_exits_with_130_and_leaves_nothing(
    number: signal.Signals, checkpoint: Path, tmp_path: Path
) -> None:
    # A shell's background jobs ignore SIGINT, and so would their children.
    heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'studio'; "
    run = "import runpy; runpy.run_module('studio', run_name='__main__', alter_sys=True)"
    line = [sys.executable, "-c", heed + run, "convert", str(checkpoint), "--out", str(tmp_path / "tiny.gguf")]
    process = subprocess.Popen(
        line,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert eventually(lambda: process.poll() is not None or list(tmp_path.iterdir()))
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "Cancelled.\n")
    assert not list(tmp_path.iterdir())


def test_a_terminal_gets_a_progress_bar(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("{" + ", ".join(f'"{layer}": [0]' for layer in range(LAYERS)) + "}")
    ours, theirs = pty.openpty()
    line = [
        sys.executable,
        "-m",
        "studio",
        "prune",
        checkpoint,
        "--map",
        tmp_path / "map.json",
        "--out",
        tmp_path / "x",
    ]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment) as process:
        out = process.communicate(timeout=60)[0]
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert process.returncode == 0 and "7 of 8 experts" in out
    assert "100%" in shown and "Writing" in shown
