"""Small whole files of every kind that a person can hand in, made by our own writers, and what reads them."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.gguf_header import DEFAULT_ALIGNMENT, GgufHeader, header_bytes, laid_out
from studio.checkpoints.gguf_values import Typed, Values, ValueType
from studio.checkpoints.reference import open_reference
from studio.checkpoints.safetensors_header import SafeTensor
from studio.checkpoints.safetensors_header import header_bytes as safetensors_header_bytes
from studio.checkpoints.safetensors_header import read_header as read_safetensors_header
from studio.contributions import file as contributions_file
from studio.contributions.importers import import_analysis
from studio.contributions.model import Contributions, Question
from studio.contributions.prompts import read_prompts
from studio.evaluate.tasks.mmlu_pro import read_mmlu_pro
from studio.evaluate.tasks.question import Question as TaskQuestion
from studio.evaluate.tasks.task import read_task, write_task
from studio.families.base import MoeShape
from studio.publish.manifest import BuildRecord, FileRecord, ImatrixRecord, Manifest, ReferenceRecord, describe
from studio.publish.verify import verify
from studio.quantize.custom import tier_of, tier_to_json
from studio.quantize.imatrix import Entry, Imatrix
from studio.quantize.imatrix_file import read_imatrix, write_imatrix
from studio.recipes.dropmap import DropMap
from studio.recipes.recipe import Recipe
from tests.fuzz.mutate import mutated_bytes, mutated_json, mutated_safetensors

LAYERS, EXPERTS = 2, 4
SHAPE = MoeShape("gemma4", tuple(range(LAYERS)), EXPERTS, 2, 8, 4)


@dataclass(frozen=True)
class Kind:
    """One kind of file: whole ones to begin with, how they are damaged, and how they are read to the last value."""

    name: str
    suffix: str
    whole: tuple[bytes, ...]
    damaged: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], object]


def kinds(folder: Path) -> tuple[Kind, ...]:
    """All of them; `folder` is for the writers to write to."""
    return (
        Kind("GGUF header", ".gguf", (_model_gguf(folder),), mutated_bytes, _read_gguf),
        Kind("safetensors header", ".safetensors", (_safetensors(),), mutated_safetensors, read_safetensors_header),
        Kind("importance matrix", ".gguf", (_imatrix_gguf(folder),), mutated_bytes, _read_imatrix),
        Kind("legacy importance matrix", ".dat", (_imatrix_dat(),), mutated_bytes, _read_imatrix),
        Kind("analysis", ".safetensors", (_analysis(folder),), mutated_safetensors, _read_analysis),
        Kind("published analysis", ".json", tuple(_published()), mutated_json, _read_analysis),
        Kind("arrays of an analysis", ".npz", (_arrays(),), mutated_bytes, _read_analysis),
        Kind("recipe", ".json", (_recipe().to_json().encode(),), mutated_json, _read_recipe),
        Kind("map", ".json", tuple(_maps()), mutated_json, _read_map),
        Kind("map with its metadata", ".json", tuple(_maps())[1:], mutated_json, _read_metadata),
        Kind("manifest", ".json", (_manifest().to_json().encode(),), mutated_json, _read_manifest),
        Kind("prompts", ".jsonl", (_prompts(),), mutated_json, read_prompts),
        Kind("task", ".jsonl", (_task(folder),), mutated_json, read_task),
        Kind("MMLU-Pro's questions", ".jsonl", (_mmlu_pro(),), mutated_json, lambda path: list(read_mmlu_pro(path))),
        Kind("config", ".json", (_config(),), mutated_json, _read_config),
        Kind("tier", ".json", (_tier(),), mutated_json, lambda path: tier_of(str(path))),
    )


# --- what reads them, and looks at all that was read


def _read_gguf(path: Path) -> object:
    reference = open_reference(path)
    return dict(reference.config), reference.shape


def _read_config(path: Path) -> object:
    """The config of a model folder, whose weights are whole."""
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(path.read_bytes())
    (folder / "model.safetensors").write_bytes(_safetensors())
    return open_reference(folder).shape


def _read_imatrix(path: Path) -> object:
    imatrix = read_imatrix(path)
    return imatrix.content_hash, imatrix.coverage


def _read_analysis(path: Path) -> object:
    contributions = import_analysis(path)
    return contributions.content_hash, contributions.nonfinite_places(), contributions.classes


def _read_recipe(path: Path) -> object:
    return Recipe.from_json(path.read_bytes(), name=str(path)).content_hash


def _read_map(path: Path) -> object:
    drop = DropMap.from_json(path.read_bytes(), shape=SHAPE, name=str(path))
    return drop.content_hash, drop.mask, json.dumps(drop.to_metadata())


def _read_metadata(path: Path) -> object:
    """Where no model is open to compare with."""
    return DropMap.from_json(path.read_bytes(), name=str(path)).mask


def _read_manifest(path: Path) -> object:
    return Manifest.read(path).to_json().encode(), verify(path)


# --- the whole files


def _model_gguf(folder: Path) -> bytes:
    tensors = laid_out(
        (
            ("token_embd.weight", (8, 6), Type.F32),
            ("blk.0.ffn_gate_up_exps.weight", (32, 4, EXPERTS), Type.Q8_0),
            ("blk.0.ffn_down_exps.weight", (8, 8, EXPERTS), Type.F16),
        ),
        DEFAULT_ALIGNMENT,
    )
    values: dict[str, Any] = {
        "general.architecture": "gemma4",
        "general.name": "tiny",
        "gemma4.block_count": LAYERS,
        "gemma4.expert_count": EXPERTS,
        "gemma4.expert_used_count": 2,
        "gemma4.embedding_length": 8,
        "gemma4.expert_feed_forward_length": 4,
        "gemma4.rope.freq_base": 10000.0,
        "tokenizer.ggml.tokens": ["<pad>", "a", "b", "ä", "c", "d"],
        "tokenizer.ggml.scores": Typed(ValueType.ARRAY, [0.0, 1.0, 2.0], ValueType.FLOAT32),
        "tokenizer.ggml.add_bos_token": True,
        "general.alignment": DEFAULT_ALIGNMENT,
    }
    empty = GgufHeader(folder / "model.gguf", 3, Values(b"", {}), (), DEFAULT_ALIGNMENT, ())
    last = tensors[-1]
    return header_bytes(empty, replace=values, tensors=tensors) + bytes(last.offset + last.size)


def _safetensors() -> bytes:
    tensors = (
        SafeTensor("model.layers.0.experts.gate_up_proj", "F32", (4, 2, 2), 0, 64),
        SafeTensor("model.layers.0.experts.down_proj", "BF16", (4, 2), 64, 80),
        SafeTensor("model.norm.weight", "F16", (4,), 80, 88),
    )
    return safetensors_header_bytes(tensors, {"format": "pt"}) + bytes(88)


def _imatrix() -> Imatrix:
    sums = np.arange(1, 1 + EXPERTS * 8, dtype=np.float32).reshape(EXPERTS, 8)
    entries = {
        "blk.0.ffn_down_exps.weight": Entry(sums, np.arange(EXPERTS, dtype=np.int64)),
        "blk.0.attn_q.weight": Entry(sums[:1], np.array([9], dtype=np.int64)),
    }
    return Imatrix(entries, ("prose.txt", "code.txt"), 3, 512)


def _imatrix_gguf(folder: Path) -> bytes:
    return write_imatrix(_imatrix(), folder / "whole-imatrix.gguf", overwrite=True).read_bytes()


def _imatrix_dat() -> bytes:
    """As llama.cpp wrote it; nothing of ours writes this form."""
    parts = [struct.pack("<i", len(_imatrix().entries))]
    for name, entry in _imatrix().entries.items():
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", 3, entry.sums.size)]
        parts.append(entry.sums.astype("<f4").tobytes())
    return b"".join(parts) + struct.pack("<ii", 3, 9) + b"prose.txt"


def _contributions() -> Contributions:
    values = np.arange(2 * LAYERS * EXPERTS, dtype=np.float64).reshape(2, LAYERS, EXPERTS)
    questions = (Question("math-1", "math"), Question("code-1", "code", truncated=True))
    return Contributions(SHAPE, "tiny", questions, {"tokens": values, "weighted_norm": values / 2}, "measured")


def _analysis(folder: Path) -> bytes:
    contributions_file.save(_contributions(), folder / "whole-analysis.safetensors", overwrite=True)
    return (folder / "whole-analysis.safetensors").read_bytes()


def _published() -> Iterator[bytes]:
    listed = [{"id": expert, "wnorm": 1.5 + expert, "rnorm": 2.0, "tc": 3} for expert in range(EXPERTS)]
    by_layer = {str(layer): listed for layer in range(LAYERS)}
    metadata = {"model": "tiny", "num_layers": LAYERS, "num_experts": EXPERTS, "categories": {"math": 3, "code": 2}}
    yield json.dumps({"metadata": metadata, "categories": {"math": by_layer, "code": by_layer}}).encode()
    yield json.dumps({"metadata": {"num_layers": LAYERS}, "questions": {"one": by_layer, "two": by_layer}}).encode()
    named = {"expert_frequency": [3, 2, 1, 0], "reap": [0.5, 0.25, 0.5, 0.0]}
    yield json.dumps({"metadata": {"model": "tiny"}, **{str(layer): named for layer in range(LAYERS)}}).encode()


def _arrays() -> bytes:
    file = BytesIO()
    arrays = {
        f"{layer}/{name}": np.arange(EXPERTS, dtype=np.float64)
        for layer in range(2)
        for name in ("reap", "expert_frequency")
    }
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _recipe() -> Recipe:
    return Recipe(
        class_weights={"math": 2.0, "code": 1.0},
        normalise="rank",
        aggregate="max",
        protect_top=1,
        floor_analysis="same",
        floor=1,
        layer_floors={"1": 1},
        class_minimums=[("code", 1)],
        force_keep={"0": [1], "all": [2]},
        drop=1,
    )


def _drop() -> DropMap:
    return DropMap("gemma4", EXPERTS, ((1,), (3,)), (0, 1), {"recipe": _recipe().to_json(), "recipe_hash": "0" * 64})


def _maps() -> Iterator[bytes]:
    yield _drop().to_json().encode()
    yield json.dumps(_drop().to_metadata("tiny")).encode()


def _manifest() -> Manifest:
    reference = ReferenceRecord(name="tiny", sha256="1" * 64, files={"config.json": "2" * 64}, licenses=("apache-2.0",))
    return describe(
        reference,
        _drop(),
        tiers=("Q4_K_M",),
        imatrix=ImatrixRecord(name="imatrix.gguf", sha256="3" * 64),
        build=BuildRecord(name="tiny-3e", outputs=("gguf",), ranking=(1, 0), split_bytes=1 << 30),
        files=[FileRecord(name="gguf/tiny-3e-Q4_K_M.gguf", bytes=1000, sha256="4" * 64)],
        versions={"ggml": "0.9"},
    )


def _lines(*entries: dict[str, Any]) -> bytes:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode()


def _prompts() -> bytes:
    said = [{"role": "user", "content": "Wie spät ist es?"}, {"role": "assistant", "content": "Drei."}]
    return _lines(
        {"class": "math", "prompt": "What is 2 + 2?", "answer": "4"},
        {"class": "chat", "messages": said, "id": 7},
        {"class": "prose", "text": "It was a dark and stormy night."},
    )


def _task(folder: Path) -> bytes:
    questions = [
        TaskQuestion("law-1", "law", "Who pays?", ("B",), ("The buyer", "The seller")),
        TaskQuestion("sums-1", "arithmetic", "How many apples?", ("12", "twelve")),
    ]
    write_task(folder / "whole-task.jsonl", questions, overwrite=True)
    return (folder / "whole-task.jsonl").read_bytes()


def _mmlu_pro() -> bytes:
    row = {"question": "Who pays?", "options": ["The buyer", "The seller", "N/A"], "category": "law"}
    return _lines(*({**row, "question_id": number, "answer": "B", "answer_index": 1} for number in range(2)))


def _config() -> bytes:
    text = {"model_type": "gemma4_text", "num_hidden_layers": LAYERS, "num_experts": EXPERTS, "top_k_experts": 2}
    text |= {"hidden_size": 8, "moe_intermediate_size": 4, "enable_moe_block": True}
    return json.dumps({"model_type": "gemma4", "architectures": ["Gemma4"], "text_config": text}, indent=2).encode()


def _tier() -> bytes:
    described = json.loads(tier_to_json(tier_of("Q4_K_M"), "Q4_K_M"))
    described |= {"name": "mine", "embeddings": "Q8_0"}
    described["overrides"] = [
        {"role": "attention", "layers": "0-1", "type": "Q8_0"},
        {"pattern": "ffn_.*", "type": "Q6_K"},
    ]
    return json.dumps(described).encode()
