"""An analysis that was interrupted goes on, and nobody can tell from its result."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studio.cli.app import main
from studio.contributions import collector, sequences
from studio.contributions.analyze import analyze
from studio.contributions.checkpoint import Checkpoint, model_key
from studio.errors import Cancelled
from tests.contributions.tiny import tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma4"
    tiny_model(dtype="bfloat16", layers=2).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(prompt_file):
    """Two batches to answer, and several to observe."""
    asked = [{"class": "open", "prompt": f"What is {number} + {number}?"} for number in range(10)]
    told = [{"class": "told", "prompt": "Say it! " * (1 + number), "answer": "It. " * 150} for number in range(10)]
    return prompt_file(*asked, *told)


class Stop:
    """A progress that raises `error` the `number`th time that it is called."""

    def __init__(self, number: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error = number, error

    def __call__(self, done: int, total: int, unit: str = "", message: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def pieces(folder: Path) -> list[Path]:
    """What an interrupted analysis left in `folder`."""
    return [path for path in folder.rglob("*") if path.name.startswith(("answers-", "sums-")) and path.suffix != ".new"]


KILLED_AGAIN_AND_AGAIN = """
import os, signal, sys
import studio.contributions.collector, transformers  # once for all that are killed
from studio.cli.app import main

flush, left = os.fsync, 0

def die(descriptor):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(descriptor)

moments, *verb = sys.argv[1:]
os.fsync = die
for left in map(int, moments.split(",")):
    child = os.fork()
    if not child:
        os._exit(main(verb))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it was to be killed in the middle"
"""


def test_an_analysis_that_is_killed_at_any_moment_continues_to_the_same_bytes(model_folder, prompts, tmp_path, caplog):
    out, whole = tmp_path / "killed" / "c.safetensors", tmp_path / "whole" / "c.safetensors"
    verb = ["analyze", str(model_folder), "--prompts", str(prompts), "--out", str(out), "--continuation", "12"]
    verb += ["--imatrix", str(out.with_name("i.gguf"))]
    script = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN, "1,2,4,4", *verb]  # while so many pieces are written
    subprocess.run(script, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
    assert not out.exists()
    assert len(pieces(out.parent)) >= 3
    caplog.clear()
    assert main(verb) == 0
    assert caplog.text.count("Going on with an analysis that was interrupted.") == 1
    assert main([argument.replace("/killed/", "/whole/") for argument in verb]) == 0
    assert caplog.text.count("Going on") == 1
    for made in (out, out.with_name("i.gguf")):
        assert made.read_bytes() == (whole.parent / made.name).read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == ["c.safetensors", "i.gguf"]


def test_wherever_it_stops_only_what_is_missing_is_computed(model_folder, prompts, tmp_path, monkeypatch, caplog):
    computed = []
    for module, name in ((collector, "forward"), (sequences, "generate")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, run=original, what=name: computed.append(what) or run(*given))
    whole = tmp_path / "whole.safetensors"
    analyze(model_folder, prompts, whole, continuation_tokens=3)
    work = sorted(computed)
    assert work.count("generate") == 2
    assert work.count("forward") > 2
    for moment in range(2, 40, 3):
        computed.clear()
        out = tmp_path / f"{moment}.safetensors"
        try:
            analyze(model_folder, prompts, out, continuation_tokens=3, progress=Stop(moment))
            break
        except KeyboardInterrupt:
            caplog.set_level(logging.INFO)
            analyze(model_folder, prompts, out, continuation_tokens=3)
        assert sorted(computed) == work
        assert out.read_bytes() == whole.read_bytes()
    assert moment > 12, "it stopped while answering and while observing"
    assert "questions had been observed before the interruption" in caplog.text


def test_what_the_person_stopped_and_what_is_finished_leave_nothing(model_folder, prompts, tmp_path):
    with pytest.raises(Cancelled):
        analyze(model_folder, prompts, tmp_path / "c.safetensors", continuation_tokens=2, progress=Stop(9, Cancelled))
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(RuntimeError):  # a GPU that is full
        analyze(
            model_folder, prompts, tmp_path / "c.safetensors", continuation_tokens=2, progress=Stop(9, RuntimeError)
        )
    assert pieces(tmp_path)


def test_pieces_that_are_torn_or_damaged_are_made_again(model_folder, prompts, tmp_path):
    out, whole = tmp_path / "c.safetensors", tmp_path / "whole.safetensors"
    analyze(model_folder, prompts, whole, continuation_tokens=3)
    with pytest.raises(KeyboardInterrupt):
        analyze(model_folder, prompts, out, continuation_tokens=3, progress=Stop(14))
    left = pieces(tmp_path)
    assert len(left) >= 4, "two batches answered, two observed"
    for number, path in enumerate(left):
        data = bytearray(path.read_bytes())
        if number % 4 == 0:
            del data[len(data) // 2 :]
        elif number % 4 == 1:
            data[-9] ^= 1
        elif number % 4 == 2:
            data.clear()
        path.write_bytes(data)
    analyze(model_folder, prompts, out, continuation_tokens=3)
    assert out.read_bytes() == whole.read_bytes()


def test_pieces_of_other_prompts_settings_or_models_are_not_used(model_folder, prompts, tmp_path):
    out, whole = tmp_path / "c.safetensors", tmp_path / "whole.safetensors"
    changed = tmp_path / "changed.jsonl"
    changed.write_text(prompts.read_text().replace("What is 0", "What was 0").replace("It. ", "Is. "))
    for other in ({"prompts": changed}, {"continuation_tokens": 7}, {"max_tokens": 30}, {"dtype": "float32"}):
        with pytest.raises(KeyboardInterrupt):
            analyze(model_folder, prompts, out, continuation_tokens=3, progress=Stop(14))
        wanted = {"prompts": prompts, "continuation_tokens": 3} | other
        analyze(model_folder, out=whole, overwrite=True, **wanted)
        analyze(model_folder, out=out, overwrite=True, **wanted)
        assert out.read_bytes() == whole.read_bytes()
        out.unlink()


def test_a_model_that_changed_in_any_file_has_another_key(model_folder, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    seen = {model_key(model_folder)}
    assert model_key(folder) in seen, "where it lies does not matter"
    for file in sorted(folder.iterdir()):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        assert model_key(folder) not in seen
        seen.add(model_key(folder))


def test_a_piece_is_its_inputs_own(tmp_path):
    kept, calls = Checkpoint(tmp_path), []

    def make(value):
        calls.append(value)
        return {"x": np.array([value])}

    for inputs, value in (([1, "a"], 1), ([1, "b"], 2), ([1, "a"], 3)):
        made, known = kept.remember("x", inputs, lambda value=value: make(value))
        assert made["x"] == (value if not known else 1)
    assert calls == [1, 2]
    assert Checkpoint().remember("x", [1, "a"], lambda: make(4)) == ({"x": np.array([4])}, False)
    assert calls == [1, 2, 4]
