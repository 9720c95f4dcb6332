"""What is measured is what the pruned model would do, on tokens that count, against logits that are kept exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from studio.contributions.calibration import Calibration
from studio.contributions.prompts import Prompt
from studio.errors import InputError, MismatchError, ResourceError
from studio.evaluate import reference_logits, virtual
from studio.evaluate.divergence import summarised, token_divergences
from studio.evaluate.held_out import HeldOut, Passage, held_out, overlap, split
from studio.evaluate.reference_logits import LogitCache
from studio.evaluate.virtual import Measurement, Ruler, VirtualModel, counted_logits
from studio.families import shape_of_config
from studio.recipes.dropmap import DropMap
from studio.staging import allowed, require_disk
from tests.contributions.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny() -> VirtualModel:
    model = tiny_model()
    return VirtualModel(model, tiny_tokenizer(), shape_of_config(model.config.to_dict()), "tiny")


def passages(seed: int = 0, count: int = 5) -> HeldOut:
    """Passages of different lengths, of two classes in turn, which count from different places."""
    lots = np.random.default_rng(seed)
    made = []
    for index in range(count):
        tokens = tuple(lots.integers(3, 290, lots.integers(4, 30)).tolist())
        made.append(Passage("ab"[index % 2], tokens, int(lots.integers(1, len(tokens)))))
    return HeldOut(tuple(made), "lots")


def random_map(tiny: VirtualModel, drop: int, seed: int = 0) -> DropMap:
    lots = np.random.default_rng(seed).random((tiny.shape.layers, tiny.shape.experts)).argsort(axis=1)
    return DropMap.from_mask(lots < drop, tiny.shape.layer_ids, family=tiny.shape.family)


def logits_one_by_one(tiny: VirtualModel, passage: Passage) -> torch.Tensor:
    """What predicts the counted tokens, the obvious way."""
    with torch.inference_mode():
        every = tiny.model(input_ids=torch.tensor([passage.tokens]), use_cache=False).logits[0]
    return every[passage.first - 1 : len(passage.tokens) - 1]


def test_only_what_counts_is_computed_and_equals_a_pass_of_its_own(tiny: VirtualModel) -> None:
    asked = passages().passages
    expected = torch.cat([logits_one_by_one(tiny, passage) for passage in asked])
    torch.testing.assert_close(counted_logits(tiny, asked), expected, rtol=1e-4, atol=1e-4)


def test_a_measurement_is_the_divergence_of_the_masked_model(tiny: VirtualModel) -> None:
    prompts, drop = passages(), random_map(tiny, 6)
    found = Ruler(tiny, prompts).measure(drop)
    for klass in "ab":
        of_class = [passage for passage in prompts.passages if passage.klass == klass]
        following = np.concatenate([np.array(p.tokens[p.first :], dtype=np.int64) for p in of_class])
        reference = torch.cat([logits_one_by_one(tiny, passage) for passage in of_class])
        with tiny.pruned(drop):
            candidate = torch.cat([logits_one_by_one(tiny, passage) for passage in of_class])
        expected = summarised(token_divergences(reference, candidate, following))
        assert found.classes[klass].tokens == expected.tokens
        assert found.classes[klass].kl_mean == pytest.approx(expected.kl_mean, rel=1e-3)
        assert found.classes[klass].candidate_perplexity == pytest.approx(expected.candidate_perplexity, rel=1e-4)
    assert found.overall.tokens == sum(one.tokens for one in found.classes.values())
    assert found.kl == pytest.approx(np.mean([one.kl_mean for one in found.classes.values()]))
    assert found.map_hash == drop.content_hash


def test_dropping_nothing_is_no_divergence_and_the_mask_is_gone_afterwards(tiny: VirtualModel) -> None:
    ruler = Ruler(tiny, passages())
    assert ruler.measure(random_map(tiny, 6)).overall.kl_mean > 1e-3
    for nothing in (None, random_map(tiny, 0)):
        found = ruler.measure(nothing)
        assert found.overall.kl_max == 0 and found.overall.same_top == 1


@pytest.mark.parametrize("kept_in", ["memory", "files", "nothing"])
def test_kept_logits_are_those_computed_to_the_last_bit(
    kept_in: str, tiny: VirtualModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(virtual, "BATCH_TOKENS", 40)  # several batches
    prompts, drop = passages(count=9), random_map(tiny, 6)
    expected = Ruler(tiny, prompts).measure(drop)
    if kept_in != "memory":
        monkeypatch.setattr(virtual, "MEMORY_BYTES", 0)
    cache = None if kept_in == "nothing" else tmp_path / "logits"
    for _ in range(2):  # written, then read by the next one
        found = Ruler(tiny, prompts, cache).measure(drop)
        assert (found.overall, found.classes) == (expected.overall, expected.classes)
    if cache is not None:
        assert len(list(cache.glob("*/*.safetensors"))) > 1


def test_logits_of_another_model_or_of_other_prompts_are_not_found(tiny: VirtualModel, tmp_path: Path) -> None:
    Ruler(tiny, passages(), tmp_path).prepare()
    Ruler(tiny, passages(), tmp_path).prepare()
    assert len(list(tmp_path.iterdir())) == 1
    Ruler(tiny, passages(seed=1), tmp_path).prepare()
    Ruler(VirtualModel(tiny.model, tiny.tokenizer, tiny.shape, "another"), passages(), tmp_path).prepare()
    assert len(list(tmp_path.iterdir())) == 3


def test_entries_that_were_not_used_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = LogitCache(tmp_path, limit=100_000)
    logits = torch.zeros(10, 1000)  # 40,000 bytes

    def write(entry: reference_logits.Entry) -> None:
        entry.write(0, logits)
        entry.write_sequences([[1, 2]])

    for key in ("one", "two"):
        assert cache.fits(40_000) and cache.make(key, 40_000, write)
    import os

    os.utime(tmp_path / "two", (1, 1))
    assert cache.find("one") is not None
    cache.make("three", 40_000, write)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "three"}
    assert not cache.fits(200_000)
    assert cache.make("one", 40_000, write) is not None, "somebody else made it meanwhile"


def test_the_reference_answers_what_is_open_and_its_answer_is_kept(tiny: VirtualModel, tmp_path: Path) -> None:
    prompt = Prompt("open", "a", ({"role": "user", "content": "Hello"},))
    prompts = held_out(tiny.tokenizer, Calibration((prompt,), ("one",)))
    assert prompts.passages[0].open
    first, again = Ruler(tiny, prompts, tmp_path), Ruler(tiny, prompts, tmp_path)
    found = first.measure(random_map(tiny, 6))
    assert found.overall.tokens == len(first._passages[0].tokens) - prompts.passages[0].first > 0
    assert found.overall.reference_perplexity < 300, "its own answer is what it finds likely"
    again.prepare()
    assert again._passages == first._passages


def test_answers_count_and_of_passages_all_but_the_first_token() -> None:
    tokenizer = tiny_tokenizer()
    question = ({"role": "user", "content": "2 + 2?"},)
    prompts = (Prompt("q", "math", question, "four"), Prompt("p", "text", (), passage="It rained."))
    answer, passage = held_out(tokenizer, Calibration(prompts, ("mine",))).passages
    assert tokenizer.decode(answer.tokens[answer.first :]) == "four" and answer.counted == 4
    assert passage.first == 1 and passage.counted == len(passage.tokens) - 1
    with pytest.raises(InputError, match="no token to measure on"):
        held_out(tokenizer, Calibration(prompts[:1], ("mine",)), max_tokens=3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=40), st.integers(0, 99))
def test_parts_share_no_question_and_together_are_everything(said: list[tuple[str, int]], seed: int) -> None:
    prompts = tuple(
        Prompt(str(number), klass, ({"role": "user", "content": str(text)},))
        for number, (klass, text) in enumerate(said)
    )
    whole = Calibration(prompts, ("mine",))
    if any(len({text for of, text in said if of == klass}) < 2 for klass in whole.classes):
        with pytest.raises(InputError, match="has one prompt"):
            split(whole, 0.5, seed)
        return
    one, other = split(whole, 0.5, seed)
    assert set(one.classes) == set(other.classes) == set(whole.classes)
    assert sorted([*one.prompts, *other.prompts], key=lambda p: int(p.id)) == list(prompts)
    assert not {(p.klass, p.messages[0]["content"]) for p in one.prompts} & {
        (p.klass, p.messages[0]["content"]) for p in other.prompts
    }
    assert (one, other) == split(whole, 0.5, seed)


def test_a_measurement_survives_json(tiny: VirtualModel) -> None:
    found = Ruler(tiny, passages()).measure(random_map(tiny, 3))
    import json

    assert Measurement.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_a_map_of_another_model_is_refused(tiny: VirtualModel) -> None:
    wrong = DropMap.from_mask(np.zeros((2, 4), dtype=bool), [0, 1])
    with pytest.raises(MismatchError):
        Ruler(tiny, passages()).measure(wrong)


@pytest.fixture(scope="module")
def analysis() -> Iterator[Any]:
    from studio.contributions.file import load

    yield load(Path(__file__).parents[2] / "assets" / "demo-contributions.safetensors")


def test_prompts_of_the_analysis_are_no_test_of_its_map(analysis: Any) -> None:
    from dataclasses import replace

    prompt = Prompt("q", "math", ({"role": "user", "content": "2 + 2?"},), "four")
    mine = Calibration((prompt,), ("mine.jsonl",))
    made_with = replace(analysis, source=f"observed; prompts: {mine.story}")
    assert "are those of the analysis" in overlap(made_with, mine)
    assert "mine.jsonl was a source" in overlap(made_with, replace(mine, prompts=(replace(prompt, answer="4"),)))
    assert not overlap(made_with, replace(mine, prompts=(replace(prompt, answer="4"),), sources=("other.jsonl",)))


def test_logits_make_room_for_others_within_what_may_be_written(tmp_path: Path) -> None:
    cache = LogitCache(tmp_path)
    quota = 100_000

    def left() -> int:
        return quota - sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())

    def write(entry: reference_logits.Entry) -> None:
        entry.write(0, torch.zeros(10, 1000))  # 40,000 bytes
        entry.write_sequences([[1, 2]])

    with allowed(left):
        for key in ("one", "two", "three"):
            assert cache.fits(40_000) and cache.make(key, 40_000, write)
            assert left() >= 0
        assert {path.name for path in tmp_path.iterdir()} == {"two", "three"}
        assert not cache.fits(200_000)
        with pytest.raises(ResourceError, match="may take"):
            require_disk(tmp_path, left() + 1)
        require_disk(tmp_path, left())
    assert cache.fits(200_000)
