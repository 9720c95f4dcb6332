"""The GGUF header that a reference has, or would have once converted: enough of it to plan tiers and foretell sizes.

A person chooses a tier before anything is converted. What llama.cpp's converter does to names and shapes is known from
gguf-py's own table; only the vocabulary is left out, a thousandth of a large model's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf.constants import MODEL_ARCH, GGMLQuantizationType
from gguf.tensor_mapping import get_tensor_name_map

from studio.checkpoints.gguf_header import DEFAULT_ALIGNMENT, GgufHeader, laid_out, read_header
from studio.checkpoints.gguf_values import U32, Span, Values, encode, encode_string, type_of
from studio.checkpoints.model_folder import open_model_folder
from studio.checkpoints.reference import Reference
from studio.checkpoints.safetensors_header import SafeTensor
from studio.errors import UnsupportedError
from studio.families import MoeShape, family_named
from studio.families.lookup import text_config

_FLOAT32_NAMES = ("ffn_gate_inp.weight",)
"""Matrices that the converter keeps in single precision: the router."""


def outline(reference: Reference) -> GgufHeader:
    """The header of `reference`, which is a GGUF, or (without vocabulary and data) of what it will be converted to.

    Raises `UnsupportedError` when gguf-py does not know the architecture, and what opening the files raises.
    """
    if reference.kind == "gguf":
        return read_header(reference.path)
    architecture = family_named(reference.shape.family).gguf_architecture
    tensors = [tensor for header in open_model_folder(reference.path).shards.values() for tensor in header.tensors]
    weights = laid_out(_converted(tensors, architecture, reference.shape), DEFAULT_ALIGNMENT)
    return GgufHeader(
        path=Path(f"{reference.path}.gguf"),
        version=3,
        values=_values(architecture, reference),
        tensors=weights,
        alignment=DEFAULT_ALIGNMENT,
        parts=(),
    )


def _converted(
    tensors: list[SafeTensor], architecture: str, shape: MoeShape
) -> Iterator[tuple[str, tuple[int, ...], GGMLQuantizationType]]:
    """(name, shape in ne order, type) of what the converter writes; other towers than the text's are left out."""
    known = {arch.name.lower(): arch for arch in MODEL_ARCH}
    if architecture not in known:
        raise UnsupportedError(f"gguf-py does not know the architecture {architecture!r}.", "Convert the model first.")
    names = get_tensor_name_map(known[architecture], max(shape.layer_ids) + 1)
    for tensor in tensors:
        plain = tensor.name.replace("model.language_model.", "model.", 1)
        name = names.get_name(plain, try_suffixes=(".weight",))
        if name is None:
            continue  # vision, audio, and the small scales that the converter names by hand
        name = name if name.endswith(".weight") else f"{name}.weight"
        vector = len(tensor.shape) < 2 or name.endswith(_FLOAT32_NAMES)
        kind = GGMLQuantizationType.F32 if vector else GGMLQuantizationType.BF16
        yield name, tuple(reversed(tensor.shape)), kind


def _values(architecture: str, reference: Reference) -> Values:
    """The pairs that tiers and shapes are read from."""
    shape, family = reference.shape, family_named(reference.shape.family)
    config: Mapping[str, Any] = text_config(reference.config, family)
    heads = int(config.get("num_attention_heads", 1))
    pairs = {
        "general.architecture": architecture,
        f"{architecture}.block_count": max(shape.layer_ids) + 1,
        f"{architecture}.embedding_length": shape.hidden_size,
        f"{architecture}.expert_count": shape.experts,
        f"{architecture}.expert_used_count": shape.top_k,
        f"{architecture}.expert_feed_forward_length": shape.expert_size,
        f"{architecture}.attention.head_count": heads,
        f"{architecture}.attention.head_count_kv": int(config.get("num_key_value_heads", heads)),
    }
    raw, spans = bytearray(), {}
    for key, value in pairs.items():
        start, kind = len(raw), type_of(value)
        raw += encode_string(key) + U32.pack(kind)
        position = len(raw)
        raw += encode(value, kind)
        spans[key] = Span(kind, start, position, len(raw))
    return Values(bytes(raw), spans)
