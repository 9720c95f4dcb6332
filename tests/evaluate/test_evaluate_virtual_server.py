"""The virtual model answers as the pruned one would, says who fired, and never stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.contributions.file import load
from studio.errors import Cancelled, InputError, MismatchError, ProcessError
from studio.evaluate.virtual_answer import VirtualDelta
from studio.evaluate.virtual_server import Prompts, VirtualServer, VirtualStream
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from studio.serve.client import Sampler
from tests.patience import eventually, is_gone

ASSETS = Path(__file__).parents[2] / "assets"
DEMO = ASSETS / "demo-model"
GREEDY = Sampler(temperature=0, max_tokens=48)
QUESTIONS = ("What is 7 + 8?", "Write a poem about rain.", "What is the capital of France?")
FEW = Prompts((str(ASSETS / "demo-heldout.jsonl"),), {"per_class": 2}, {})


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


@pytest.fixture(scope="module")
def drop() -> DropMap:
    return make_map(load(ASSETS / "demo-contributions.safetensors"), preset("98e-v3", 24))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualServer]:
    place = tmp_path_factory.mktemp("virtual")
    running = VirtualServer.start(DEMO, log=place / "log.txt", cache=place / "logits", threads=1, context=600)
    yield running
    running.stop()


def collected(stream: VirtualStream) -> tuple[str, str, VirtualDelta]:
    deltas = list(stream)
    assert [delta.done for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), deltas[-1]


@pytest.fixture(scope="module")
def pruned(drop: DropMap, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model that is really pruned, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder = prune_safetensors(DEMO, drop, tmp_path_factory.mktemp("pruned") / "demo-8e")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(DEMO)


@pytest.mark.parametrize("thinking", [False, True])
def test_greedy_answers_are_those_of_the_pruned_checkpoint(
    server: VirtualServer, drop: DropMap, pruned: Any, thinking: bool
) -> None:
    model, tokenizer = pruned
    different = 0
    for question in QUESTIONS:
        inputs = tokenizer.apply_chat_template(
            asked(question),
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_tensors="pt",
            return_dict=True,
        )
        made = model.generate(**inputs, do_sample=False, max_new_tokens=GREEDY.max_tokens)[
            0, inputs["input_ids"].shape[1] :
        ]
        expected = tokenizer.decode(made, skip_special_tokens=False)
        thought, _, text = expected.replace("<turn|>", "").rpartition("<channel|>")
        thought = thought.removeprefix("<|channel>thought\n")
        sampler = GREEDY.model_copy(update={"reasoning_budget": 48})
        found, reasoning, end = collected(server.stream(asked(question), sampler, thinking=thinking, drop=drop))
        assert (found.strip(), reasoning.strip()) == (text.strip(), thought.strip()), expected
        assert end.finish == ("stop" if "<turn|>" in expected else "length")
        different += found != collected(server.stream(asked(question), sampler, thinking=thinking))[0]
    assert different, "the mask has to matter"


def test_the_routing_of_an_answer_adds_up(server: VirtualServer, drop: DropMap) -> None:
    _, _, last = collected(server.stream(asked(QUESTIONS[0]), GREEDY, drop=drop))
    routing, timing = last.routing, last.timing
    assert routing is not None and timing is not None
    passes = timing.tokens + (last.finish == "stop")  # the end of the turn is predicted as well
    assert routing.tokens == passes and (routing.fired.sum(axis=1) == 4 * passes).all()
    assert not routing.fired[drop.mask].any(), "a dropped expert never fires"
    assert not routing.missed[~drop.mask].any() and routing.missed.sum() > 0
    assert (routing.touched <= passes).all() and (routing.touched <= routing.missed.sum(axis=1)).all()
    assert 0 < routing.missed_share < 1 and (routing.touched_share <= 1).all()
    assert timing.prompt_tokens > 5 and timing.tokens_per_s > 0 and timing.first_token_s > 0
    _, _, whole = collected(server.stream(asked(QUESTIONS[0]), GREEDY))
    assert whole.routing is not None and whole.routing.missed.sum() == 0


def test_what_would_have_fired_is_what_the_reference_routes_to(server: VirtualServer) -> None:
    """In the first layer the virtual model is in the reference's own state: there both would choose the same."""
    _, _, whole = collected(server.stream(asked(QUESTIONS[0]), Sampler(temperature=0, max_tokens=1)))
    assert whole.routing is not None
    favourites = np.flatnonzero(whole.routing.fired[0])
    drop = np.zeros((6, 32), dtype=bool)
    for row, fired in enumerate(whole.routing.fired):
        drop[row, favourites[:2] if row == 0 else np.flatnonzero(fired == 0)[:2]] = True
    _, _, last = collected(
        server.stream(asked(QUESTIONS[0]), Sampler(temperature=0, max_tokens=1), drop=DropMap.from_mask(drop, range(6)))
    )
    assert last.routing is not None
    assert np.flatnonzero(last.routing.missed[0]).tolist() == favourites[:2].tolist()
    assert last.routing.touched[0] == 1


def test_a_seed_repeats_itself_and_another_says_something_else(server: VirtualServer) -> None:
    def said(seed: int) -> str:
        return collected(server.stream(asked(QUESTIONS[1]), Sampler(temperature=2, max_tokens=30, seed=seed)))[0]

    answers = [said(seed) for seed in (1, 2, 1)]
    assert answers[0] == answers[2] != answers[1]


def test_a_thought_keeps_to_its_budget(server: VirtualServer) -> None:
    sampler = Sampler(temperature=0, max_tokens=40, reasoning_budget=3)
    text, thought, _ = collected(server.stream(asked("What is 17 + 8?"), sampler, thinking=True))
    assert text and "channel" not in text + thought and len(thought.split()) <= 3


def test_stop_ends_an_answer_and_the_next_one_comes(server: VirtualServer) -> None:
    endless = Sampler(temperature=5, top_k=0, top_p=1, max_tokens=550, seed=4)
    stream = server.stream(asked(QUESTIONS[1]), endless)
    next(stream)
    waiting = server.stream(asked(QUESTIONS[0]), GREEDY)
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(collected(waiting)))
    thread.start()
    stream.stop()
    last = list(stream)[-1]
    assert last.done and last.finish in ("stopped", "stop")
    thread.join(timeout=60)
    assert others and others[0][2].finish == "stop"
    never = server.stream(asked(QUESTIONS[0]), GREEDY)
    never.stop()
    assert [(delta.done, delta.finish) for delta in never] == [(True, "stopped")]


def test_two_answers_take_turns_and_say_what_each_would_alone(server: VirtualServer, drop: DropMap) -> None:
    long = Sampler(temperature=2, max_tokens=400, seed=3)
    maps = (None, drop)  # the first takes more than one turn
    alone = [collected(server.stream(asked(QUESTIONS[1]), long, drop=map_)) for map_ in maps]

    def both() -> int:
        """Ask for both at once; how many tokens of either came while the other was being answered."""
        order: list[int] = []
        together: list[Any] = [None, None]

        def hear(place: int) -> None:
            deltas = []
            for delta in server.stream(asked(QUESTIONS[1]), long, drop=maps[place]):
                order.append(place)
                deltas.append(delta)
            together[place] = deltas

        threads = [threading.Thread(target=hear, args=(place,)) for place in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        for deltas, (text, _, last) in zip(together, alone, strict=True):
            assert "".join(delta.text for delta in deltas) == text
            assert np.array_equal(deltas[-1].routing.fired, last.routing.fired)
        ends = [len(order) - order[::-1].index(place) for place in (0, 1)]
        return min(ends) - max(order.index(place) for place in (0, 1))

    # On a busy machine one may be through before the other is asked for.
    assert any(both() >= 5 for _ in range(5)), "each waited for the end of the other"


def test_who_has_to_wait_hears_how_many_are_before(server: VirtualServer) -> None:
    endless = Sampler(temperature=5, top_k=0, top_p=1, max_tokens=550, seed=4)
    busy = [server.stream(asked(QUESTIONS[1]), endless) for _ in range(2)]
    for stream in busy:
        next(stream)
    third = server.stream(asked(QUESTIONS[0]), GREEDY)
    assert next(third).waiting == "Waiting: 2 other answers come first."
    for stream in busy:
        stream.stop()
    assert list(third)[-1].finish == "stop"


def test_mistakes_of_a_person_are_told_and_the_model_goes_on(server: VirtualServer) -> None:
    with pytest.raises(InputError, match="tokens, and the model is open for 600"):
        list(server.stream(asked("word " * 700), GREEDY))
    with pytest.raises(MismatchError):
        list(server.stream(asked("Hi"), GREEDY, drop=DropMap.from_mask(np.zeros((2, 32), dtype=bool), [0, 1])))
    with pytest.raises(InputError, match="no prompt file"):
        server.measure(None, Prompts(("nothing.jsonl",), {}, {}))
    assert server.alive and collected(server.stream(asked("hello"), GREEDY))[0]


def test_a_measurement_is_the_one_of_the_engine_and_can_be_stopped(server: VirtualServer, drop: DropMap) -> None:
    from studio.contributions.sources import prompts_of
    from studio.evaluate.held_out import held_out
    from studio.evaluate.virtual import Ruler, VirtualModel

    heard: list[str] = []
    found = server.measure(drop, FEW, lambda done, total, unit="", message="": heard.append(message))
    virtual = VirtualModel.load(DEMO)
    expected = Ruler(virtual, held_out(virtual.tokenizer, prompts_of(FEW.sources, **FEW.reading))).measure(drop)
    assert found.map_hash == expected.map_hash and found.prompts == 10 and "measuring" in heard
    assert found.kl == pytest.approx(expected.kl, rel=1e-4)

    def impatient(done: int, total: int, unit: str = "", message: str = "") -> None:
        raise Cancelled()

    with pytest.raises(Cancelled):
        server.measure(drop, FEW, impatient)
    assert server.measure(None, FEW).overall.kl_max == 0


def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        VirtualServer.start(tmp_path, log=tmp_path / "log.txt")


def test_a_killed_child_fails_what_is_at_hand_and_says_so(tmp_path: Path) -> None:
    server = VirtualServer.start(DEMO, log=tmp_path / "log.txt", threads=1)
    stream = server.stream(asked(QUESTIONS[1]), Sampler(temperature=5, top_k=0, top_p=1, max_tokens=2000))
    next(stream)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ProcessError, match="SIGKILL"):
        list(stream)
    assert not server.alive
    with pytest.raises(ProcessError):
        list(server.stream(asked("Hi"), GREEDY))
    server.stop()


def test_the_child_goes_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from studio.evaluate.virtual_server import VirtualServer\n"
        "server = VirtualServer.start(Path(sys.argv[1]), log=Path(sys.argv[2]), threads=1)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    line = [sys.executable, "-c", script, str(DEMO), str(tmp_path / "log.txt")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ASSETS.parent) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    assert eventually(lambda: is_gone(pid))
