"""Trials share one child and their results, stop when nobody wants them, and survive the child's death."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoints.reference import open_reference
from studio.contributions.file import load
from studio.errors import Cancelled, InputError, ProcessError, ResourceError
from studio.evaluate.trials import Question, Trial, Trials, require_virtual
from studio.evaluate.virtual_server import Prompts
from studio.recipes.apply import make_map
from studio.recipes.presets import preset
from tests.patience import eventually

ASSETS = Path(__file__).parents[2] / "assets"
DEMO = ASSETS / "demo-model"
FEW = Prompts((str(ASSETS / "demo-heldout.jsonl"),), {"per_class": 2}, {})


@pytest.fixture(scope="module")
def contributions() -> object:
    return load(ASSETS / "demo-contributions.safetensors")


@pytest.fixture(scope="module")
def question(contributions: object) -> Callable[[int], Question]:
    return lambda drop: Question(DEMO, make_map(contributions, preset("98e-v3", drop)), FEW)  # type: ignore[arg-type]


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    return Trials(tmp_path / "logs", tmp_path / "logits", idle_s=1.0, threads=1)


def over(trials: Trials, key: str) -> Trial:
    assert eventually(lambda: (trials.look(key) or Trial()).is_over), trials.look(key)
    found = trials.look(key)
    assert found is not None
    return found


def test_the_whole_life_of_a_child(trials: Trials, question: Callable[[int], Question]) -> None:
    assert trials.pid is None, "nothing is started before somebody asks"
    first = trials.ask("ann", question(8))
    assert trials.ask("bob", question(8)) == first
    trials.leave("ann")  # but Bob still wants it
    done = over(trials, first)
    assert done.result is not None and done.result.map_hash == question(8).drop.content_hash
    pid = trials.pid
    assert pid is not None and trials.look(trials.ask("ann", question(8))) is done, "nobody measures twice"

    left = trials.ask("ann", question(9), after_s=30)
    second = trials.ask("ann", question(16))
    trials.leave("nobody")
    assert isinstance((trials.look(left) or Trial()).error, Cancelled), "who asks again wants the first no more"
    again = over(trials, second)
    assert again.result is not None and again.result.kl > done.result.kl and trials.pid == pid

    assert eventually(lambda: trials.pid is None)  # idle


def test_a_child_that_dies_is_told_and_the_next_trial_starts_another(
    trials: Trials, question: Callable[[int], Question]
) -> None:
    key = trials.ask("ann", question(8))
    assert eventually(lambda: trials.pid is not None)
    os.kill(trials.pid or 0, signal.SIGSTOP)
    os.kill(trials.pid or 0, signal.SIGKILL)
    error = over(trials, key).error
    assert isinstance(error, ProcessError) and "Measure again" in error.remedy
    assert over(trials, trials.ask("ann", question(8))).result is not None


def test_what_cannot_be_loaded_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = open_reference(DEMO)
    require_virtual(reference)
    monkeypatch.setenv("ESPALIER_MODEL_MEMORY", "1000")
    with pytest.raises(ResourceError, match=" is free"):
        require_virtual(reference)


def test_a_gguf_is_refused(tiny_gguf: Path) -> None:
    with pytest.raises(InputError, match="safetensors checkpoint"):
        require_virtual(open_reference(tiny_gguf))
