"""The estimate of memory: never below the truth, near it, and read from the header alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import pytest

from studio import machine
from studio.checkpoints.gguf_header import read_header
from studio.errors import InputError, UnsupportedError
from studio.quantize import card as card_room
from studio.quantize.fit import kv_bytes
from studio.quantize.placement import Offload
from studio.serve import memory
from studio.serve.client import Sampler
from studio.serve.loading import Loading
from studio.serve.pool import ServerPool
from studio.serve.server import ModelServer
from tests.serve.serve_models import ROOMY


def header_of(folder: Path, **values: Any) -> Any:
    """A GGUF that is all header."""
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "gemma4")
    for key, value in values.items():
        name = f"gemma4.{key.replace('__', '.')}"
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


GEMMA_26B = {
    "block_count": 30,
    "embedding_length": 2816,
    "attention__head_count": 16,
    "attention__head_count_kv": [8, 8, 8, 8, 8, 2] * 5,
    "attention__key_length": 512,
    "attention__value_length": 512,
    "attention__key_length_swa": 256,
    "attention__value_length_swa": 256,
    "attention__sliding_window": 1024,
    "attention__sliding_window_pattern": [True, True, True, True, True, False] * 5,
}


def test_keys_and_values_of_gemma_4_26b_are_counted_layer_by_layer(tmp_path: Path) -> None:
    full = 5 * 2 * (512 + 512) * 2 * 4096
    sliding = 25 * 8 * (256 + 256) * 2 * (1024 + 512)
    assert kv_bytes(header_of(tmp_path, **GEMMA_26B), 4096) == full + 2 * sliding


def test_a_plain_model_keeps_keys_and_values_of_every_head(tmp_path: Path) -> None:
    header = header_of(tmp_path, block_count=4, embedding_length=256, attention__head_count=8)
    assert kv_bytes(header, 1000) == 4 * 8 * (32 + 32) * 2 * 1000


@pytest.mark.parametrize("wrong", [{"attention__head_count_kv": [8, 8]}, {"attention__head_count": 0}])
def test_a_header_whose_attention_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="describes its attention wrongly"):
        kv_bytes(header_of(tmp_path, **GEMMA_26B | wrong), 4096)


def test_a_conversation_is_no_longer_than_the_model_allows(tiny_gguf: Path) -> None:
    assert memory.model_need(tiny_gguf, 40_000, 2).context == ROOMY
    assert memory.model_need(tiny_gguf, 512, 2).context == 512


def test_the_estimate_lies_above_what_a_server_takes_and_not_far(tiny_gguf: Path, tmp_path: Path) -> None:
    need = memory.model_need(tiny_gguf, 4096, 2)
    server = ModelServer.start(tiny_gguf, log=tmp_path / "log", context=need.context, threads=1)
    try:
        question = [{"role": "user", "content": "word " * 300}]
        list(server.stream(question, Sampler(max_tokens=20)))
        taken = psutil.Process(server.pid).memory_info().rss
        assert memory.private_bytes(server.pid) < taken < need.memory < taken + (160 << 20)
    finally:
        server.stop()


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "700\n",
        "memory.stat": "anon 300\nactive_file 100\ninactive_file 250\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert machine.container_free_bytes(tmp_path) == 650
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.container_free_bytes(tmp_path) is None
    assert machine.container_free_bytes(tmp_path / "nowhere") is None


def test_the_person_may_say_how_much_memory_models_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.MEMORY_VARIABLE, "12345")
    assert memory.free_bytes(held=99) == 12345
    monkeypatch.setenv(memory.MEMORY_VARIABLE, "much")
    with pytest.raises(InputError, match="'much'"):
        memory.free_bytes()
    monkeypatch.delenv(memory.MEMORY_VARIABLE)
    assert 0 < memory.free_bytes() <= memory.free_bytes(held=1 << 30)


def test_the_person_may_say_how_much_of_the_card_models_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(card_room.CARD_VARIABLE, "12345")
    assert card_room.free_card_bytes() == 12345
    monkeypatch.setenv(card_room.CARD_VARIABLE, "-1")
    with pytest.raises(InputError, match="'-1'"):
        card_room.free_card_bytes()


def test_a_llama_cpp_without_a_card_is_told_nothing_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_room, "computes_on_gpu", lambda: False)
    monkeypatch.setattr(card_room, "free_gpu_bytes", lambda: 24 << 30)
    assert card_room.free_card_bytes() is None
    monkeypatch.setattr(card_room, "computes_on_gpu", lambda: True)
    assert card_room.free_card_bytes() == 24 << 30


@pytest.mark.parametrize(("short", "kind"), [(0, "card"), (1, "experts in RAM"), (1 << 40, "RAM")])
def test_the_pool_starts_a_server_as_the_card_allows_and_llama_cpp_takes_it(
    short: int, kind: str, tiny_gguf: Path, pool: ServerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no card here: llama.cpp reads the settings, and computes without one."""
    card = max(0, memory.model_need(tiny_gguf, pool.loading.context, pool.slots).need.on_card - short)
    monkeypatch.setenv(card_room.CARD_VARIABLE, str(card))
    with pool.lease(tiny_gguf, 1) as server:
        (place,) = pool._places.values()
        assert place.placement.kind == kind and place.placement.card <= card
        assert list(server.stream([{"role": "user", "content": "word"}], Sampler(max_tokens=3)))[-1].done
    overridden = "tensor overrides to CPU" in next(pool.logs.glob("*.log")).read_text()
    assert overridden == (kind == "experts in RAM")


def test_what_a_person_decides_is_what_the_pool_does(tiny_gguf: Path, tmp_path: Path) -> None:
    pool = ServerPool(tmp_path / "logs", context=512, offload=Offload(0))
    try:
        with pool.lease(tiny_gguf, 1):
            (place,) = pool._places.values()
            assert (place.placement.kind, pool._decided(place)) == ("RAM", Offload(0))
    finally:
        pool.close()


def test_what_predicts_no_next_token_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "encoder.gguf", "bert")
    writer.add_uint32("bert.block_count", 2)
    writer.add_bool("bert.attention.causal", False)
    writer.add_tensor("token_embd.weight", np.zeros((64, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="predicts no next token"):
        memory.model_need(tmp_path / "encoder.gguf", 512, 1)


def test_who_asks_decides_and_a_server_that_is_loaded_otherwise_is_loaded_anew(
    tiny_gguf: Path, pool: ServerPool
) -> None:
    short, long = Loading(256), Loading(1024)
    with pool.lease(tiny_gguf, 1, long) as server, pool.lease(tiny_gguf, 1, short) as shared:
        assert shared is server  # a longer conversation will do while others have it
    with pool.lease(tiny_gguf, 1, short) as smaller:
        assert smaller is not server and not server.alive
    needs = [pool.fit([tiny_gguf], one).models[0].ram for one in (short, long)]
    assert needs[0] < needs[1]
