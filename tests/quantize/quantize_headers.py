"""GGUF files that are header only: as long as the header says, and empty (no disk is taken)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from studio.checkpoints.gguf_header import GgufHeader, read_header
from tests.quantize.quantize_models import Mock

DATA = Path(__file__).parent / "data"


def recorded(name: str) -> Any:
    """What tests/oracle_recorder recorded."""
    return json.loads((DATA / name).read_text())


def decoded(record: dict[str, Any], tier: str) -> list[Type]:
    """The types that llama.cpp chose for `tier`, in the order of the recorded tensors."""
    return [Type[record["letters"][letter]] for letter in record["tiers"][tier]]


def sparse_gguf(
    path: Path, architecture: str, keys: dict[str, int], tensors: Iterable[tuple[str, tuple[int, ...], Type]]
) -> GgufHeader:
    """A file of `tensors` (name, shape in ne order, type) without weights; `keys` go under the architecture."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    for name, shape, kind in tensors:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        count = int(np.prod(shape, dtype=object))
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float16), count // block * size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = sum(gguf.GGUFWriter.ggml_pad(info.nbytes, 32) for info in writer.tensors[0].values())
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + data)
    return read_header(path)


def gemma4_26b(path: Path) -> GgufHeader:
    """The header of Gemma 4 26B-A4B in F16."""
    keys = {
        "block_count": 30,
        "embedding_length": 2816,
        "expert_feed_forward_length": 704,
        "attention.head_count": 16,
        "attention.head_count_kv": 8,
        "expert_count": 128,
        "expert_used_count": 8,
    }
    listed = recorded("gemma4_types.json")["tensors"]
    return sparse_gguf(path, "gemma4", keys, [(name, tuple(shape), Type[kind]) for name, shape, kind in listed])


def mock_header(path: Path, mock: Mock) -> GgufHeader:
    """The header of `mock` in BF16."""
    keys = {
        "block_count": mock.layers,
        "attention.head_count": mock.heads,
        "attention.head_count_kv": mock.key_heads,
        "expert_count": mock.experts,
    }
    return sparse_gguf(path, mock.architecture, keys, [(name, shape, Type.BF16) for name, shape in mock.tensors])
