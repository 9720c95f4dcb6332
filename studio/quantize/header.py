"""The header of a quantized file: the source's, with what llama.cpp changes in it.

llama.cpp takes away `general.quantization_version` and `general.file_type` and appends them anew, drops the keys of
split files, and writes version 3 of the format; so does this, and gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from studio.checkpoints.gguf_header import GgufHeader, GgufTensor, aligned, header_bytes

GGUF_VERSION = 3
QUANTIZATION_VERSION = 2
"""GGML_QNT_VERSION of ggml.h: how the blocks of quantized types are laid out."""

_APPENDED = ("general.quantization_version", "general.file_type")
_DROPPED = ("split.no", "split.count", "split.tensors.count")

_START = 4 + 4 + 8 + 8  # magic, version, counts of tensors and pairs
_U32_PAIR = 8 + 4 + 4  # length of the key, type, value
_INFO = 8 + 4 + 4 + 8  # length of the name, number of dimensions, type, offset


def quantized_header(
    header: GgufHeader,
    tensors: Sequence[GgufTensor],
    file_type: int,
    *,
    kept_experts: int | None = None,
    added: Mapping[str, Any] | None = None,
) -> bytes:
    """The header of a file of `file_type` that holds `tensors`; `added` are further keys, which come last."""
    emptied = replace(header, version=GGUF_VERSION, values=header.values.without((*_APPENDED, *_DROPPED)))
    changes: dict[str, Any] = dict(zip(_APPENDED, (QUANTIZATION_VERSION, file_type), strict=True))
    if kept_experts is not None:
        changes[f"{header.architecture}.expert_count"] = kept_experts
    return header_bytes(emptied, replace={**changes, **(added or {})}, tensors=tensors)


def header_size(header: GgufHeader, tensors: Sequence[GgufTensor]) -> int:
    """Bytes of `quantized_header` without added keys, counted rather than made."""
    gone = (*_APPENDED, *_DROPPED)
    pairs = sum(span.end - span.start for key, span in header.values.spans.items() if key not in gone)
    pairs += sum(_U32_PAIR + len(key) for key in _APPENDED)
    infos = sum(_INFO + len(_encoded(tensor.name)) + 8 * len(tensor.shape) for tensor in tensors)
    return aligned(_START + pairs + infos, header.alignment)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
