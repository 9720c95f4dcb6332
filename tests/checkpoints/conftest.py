"""Tiny Gemma 4 MoE checkpoints with random weights, and files written byte by byte as the formats say."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.checkpoints.convert import convert_to_gguf
from studio.recipes.dropmap import DropMap
from tests.gemma4 import gemma4_config, gemma4_tokenizer, spread_routers

LAYERS, EXPERTS, TOP_K = 4, 8, 2


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 4 layers × 8 experts in fp32, one weight file, with its tokenizer."""
    import torch
    from transformers import Gemma4ForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-model"
    tokenizer = gemma4_tokenizer([("t", "h"), ("th", "e"), ("a", "n")])
    config = gemma4_config(
        len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
        num_attention_heads=2,
        num_experts=EXPERTS,
        top_k_experts=TOP_K,
        moe_intermediate_size=40,
        sliding_window=16,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    model = Gemma4ForCausalLM(config)
    spread_routers(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("A tiny model.\n")
    return folder


@pytest.fixture(scope="session")
def sharded_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in several files with an index."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("sharded") / "sharded-model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(folder, max_shard_size="150KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model converted to bf16, once per test session."""
    return convert_to_gguf(tiny_model, tmp_path_factory.mktemp("converted") / "tiny.gguf")


@pytest.fixture(scope="session")
def drop_map() -> Callable[..., DropMap]:
    """A function (drop count, seed) → random drop map for the tiny model."""

    def make(drop: int, seed: int = 0, layers: int = LAYERS, experts: int = EXPERTS) -> DropMap:
        random = np.random.default_rng(seed)
        dropped = tuple(tuple(sorted(random.permutation(experts)[:drop].tolist())) for _ in range(layers))
        return DropMap("gemma4", experts, dropped, tuple(range(layers)))

    return make


GgufBuilder = Callable[..., bytes]


@pytest.fixture(scope="session")
def build_gguf() -> GgufBuilder:
    """A function that puts a GGUF together field by field, and believes whatever it is told to write."""
    return _build_gguf


def gguf_string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def gguf_pair(key: str, value: int | str) -> bytes:
    if isinstance(value, str):
        return gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    return gguf_string(key) + struct.pack("<II", 4, value)


def _build_gguf(
    values: Mapping[str, int | str] | None = None,
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = (),
    data: bytes = b"",
    *,
    pairs: Sequence[bytes] = (),
    version: int = 3,
    tensor_count: int | None = None,
    pair_count: int | None = None,
) -> bytes:
    """`tensors` are (name, ne, type, offset); `pairs` are raw key–value pairs after those of `values`."""
    raw = [gguf_pair(key, value) for key, value in (values or {}).items()] + list(pairs)
    infos = [
        gguf_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        for name, shape, kind, offset in tensors
    ]
    counts = struct.pack(
        "<IQQ",
        version,
        len(infos) if tensor_count is None else tensor_count,
        len(raw) if pair_count is None else pair_count,
    )
    header = b"GGUF" + counts + b"".join(raw) + b"".join(infos)
    return header + bytes(-len(header) % 32) + data


@pytest.fixture(scope="session")
def build_safetensors() -> Callable[..., bytes]:
    """A function that writes a safetensors file with any header (text or value) and any data."""

    def build(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    return build


@pytest.fixture
def files_below() -> Callable[[Path], dict[str, bytes]]:
    """A function folder → every file below it (relative name → contents), hidden ones too."""

    def read(folder: Path) -> dict[str, bytes]:
        found = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(found)}

    return read
