"""The virtual model as a column of the chat: it answers as what would be built, and says what it takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from studio.checkpoints.prune_safetensors import prune_safetensors
from studio.contributions.file import load
from studio.errors import InputError, ResourceError
from studio.evaluate.virtual_answer import VirtualDelta
from studio.evaluate.virtual_served import VirtualServed, _cached
from studio.recipes.apply import make_map
from studio.recipes.dropmap import DropMap
from studio.recipes.presets import preset
from studio.serve.client import TOP, Delta, Sampler
from studio.serve.columns import Columns
from studio.serve.memory import MEMORY_VARIABLE
from studio.serve.pool import ServerPool
from studio.serve.served import Request

ASSETS = Path(__file__).parents[2] / "assets"
DEMO = ASSETS / "demo-model"
GREEDY = Sampler(temperature=0, max_tokens=24)
QUESTIONS = ("What is 7 + 8?", "Write a poem about rain.")


@pytest.fixture(scope="module")
def drop() -> DropMap:
    return make_map(load(ASSETS / "demo-contributions.safetensors"), preset("98e-v3", 24))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPool]:
    pool = ServerPool(tmp_path_factory.mktemp("logs"), context=512)
    yield pool
    pool.close()


def answers(pool: ServerPool, models: dict[str, VirtualServed], question: str, probabilities: bool) -> dict[str, list]:
    request = Request([{"role": "user", "content": question}], GREEDY, probabilities=probabilities)
    heard: dict[str, list] = {id: [] for id in models}
    for id, event in Columns(pool, models).stream(dict.fromkeys(models, request)):
        if isinstance(event, Delta):
            heard[id].append(event)
    return heard


def text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_a_map_answers_as_the_checkpoint_that_is_built_from_it(pool: ServerPool, drop: DropMap, tmp_path: Path) -> None:
    built = prune_safetensors(DEMO, drop, tmp_path / "demo-8e")
    models = {"A": VirtualServed(DEMO, drop), "B": VirtualServed(built), "C": VirtualServed(DEMO)}
    parted = 0
    for question in QUESTIONS:
        heard = answers(pool, models, question, probabilities=False)
        assert text(heard["A"]) == text(heard["B"]) != ""
        parted += text(heard["A"]) != text(heard["C"])
        last = heard["A"][-1]
        assert isinstance(last, VirtualDelta) and last.routing is not None and last.routing.missed.sum() > 0
        by_layer = last.routing.missed_by_layer
        assert np.mean(by_layer) == pytest.approx(last.routing.missed_share)
        most = last.routing.most_missed(3)
        assert [times for *_, times in most] == sorted((times for *_, times in most), reverse=True)
        assert all(drop.mask[drop.layer_ids.index(layer), expert] for layer, expert, _ in most)
        assert heard["C"][-1].routing.most_missed(3) == []
    assert parted, "the map has to matter"
    assert pool.loaded(VirtualServed(DEMO)), "all maps of one reference share a server"


def test_tokens_come_with_what_else_was_likely(pool: ServerPool, drop: DropMap) -> None:
    heard = answers(pool, {"A": VirtualServed(DEMO, drop)}, QUESTIONS[0], probabilities=True)["A"]
    tokens = [token for delta in heard for token in delta.tokens]
    assert heard[-1].timing and len(tokens) == heard[-1].timing.tokens
    assert "".join(token.text for token in tokens).strip() == text(heard).strip()
    for token in tokens:
        shares = np.exp([one.logprob for one in token.top])
        assert len(token.top) == TOP and (np.diff(shares) <= 0).all() and shares.sum() <= 1 + 1e-6
        assert token.id == token.top[0].id, "the likeliest is taken"
    plain = answers(pool, {"A": VirtualServed(DEMO, drop)}, QUESTIONS[0], probabilities=False)["A"]
    assert text(plain) == text(heard) and not any(delta.tokens for delta in plain)


def test_what_it_takes_is_foretold(pool: ServerPool) -> None:
    model = VirtualServed(DEMO)
    answers(pool, {"A": model}, QUESTIONS[0], probabilities=False)
    with pool.lease(model, 1) as server:
        taken = psutil.Process(server.pid).memory_info().rss
    foretold = model.need(512, 2).memory
    assert 0.8 * taken <= foretold <= 2 * taken, (taken, foretold)


def test_the_estimate_grows_with_conversations_and_with_heads_that_are_kept_unpacked() -> None:
    model = VirtualServed(DEMO)
    one, two = (model.need(512, slots).memory for slots in (1, 2))
    assert two - one == 4 * 512 * 6 * 2 * 256, "4 bytes × context × layers × keys and values of the hidden size"
    latent = {"num_attention_heads": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    assert _cached(latent, 7168) == 128 * (128 + 64 + 128) and _cached({"text_config": {}}, 256) == 512


def test_where_memory_is_short_it_says_so_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, str(100 << 20))
    short = ServerPool(tmp_path / "logs")
    folder = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    with pytest.raises(ResourceError, match=r"demo, virtual, all experts.* GiB"), short.lease(VirtualServed(folder), 1):
        pass
    short.close()


def test_its_hash_stands_for_the_reference_and_the_map(drop: DropMap, tmp_path: Path) -> None:
    other = DropMap.from_mask(~drop.mask, drop.layer_ids)
    digests = [VirtualServed(DEMO, one).digest(tmp_path) for one in (None, drop, other, drop)]
    assert len(set(digests)) == 3 and digests[1] == digests[3]
    assert VirtualServed(DEMO, drop).name != VirtualServed(DEMO, other).name


def test_another_checkpoint_in_the_folder_is_another_model_and_none_is_an_error(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    before = VirtualServed(folder).signature()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config) + " ")
    assert VirtualServed(folder).signature() != before
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="cannot be read"):
        VirtualServed(folder).signature()
