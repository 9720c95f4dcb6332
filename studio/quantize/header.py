"""The headers of quantized files: the source's, with what llama.cpp changes in it.

llama.cpp takes away `general.quantization_version` and `general.file_type` and appends them anew, drops the keys of
split files, and writes version 3 of the format; so does this, and gets the same bytes. Where a model is split, the
first file has all keys and the others only those that say which part they are, as llama-gguf-split does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from studio.checkpoints.gguf_header import (
    DEFAULT_ALIGNMENT,
    SPLIT_COUNT,
    SPLIT_NUMBER,
    SPLIT_TENSORS,
    GgufHeader,
    GgufTensor,
    aligned,
    header_bytes,
    laid_out,
)
from studio.checkpoints.gguf_values import Typed, ValueType

GGUF_VERSION = 3
QUANTIZATION_VERSION = 2
"""GGML_QNT_VERSION of ggml.h: how the blocks of quantized types are laid out."""

_APPENDED = ("general.quantization_version", "general.file_type")
_DROPPED = (SPLIT_NUMBER, SPLIT_COUNT, SPLIT_TENSORS)

_START = 4 + 4 + 8 + 8  # magic, version, counts of tensors and pairs
_U32_PAIR = 8 + 4 + 4  # length of the key, type, value
_INFO = 8 + 4 + 4 + 8  # length of the name, number of dimensions, type, offset

Part = Sequence[GgufTensor]
"""The tensors of one file."""


def quantized_headers(
    header: GgufHeader,
    parts: Sequence[Part],
    file_type: int,
    *,
    kept_experts: int | None = None,
    added: Mapping[str, Any] | None = None,
) -> list[bytes]:
    """The headers of the files of a model of `file_type`, which hold `parts`; `added` are further keys."""
    gone = (*_APPENDED, *_DROPPED, *(added or {}))  # what is set anew comes last, wherever the source has it
    emptied = replace(header, version=GGUF_VERSION, values=header.values.without(gone))
    changes: dict[str, Any] = dict(zip(_APPENDED, (QUANTIZATION_VERSION, file_type), strict=True))
    if kept_experts is not None:
        changes[f"{header.architecture}.expert_count"] = kept_experts
    changes |= added or {}
    first, *others = parts
    if not others:
        return [header_bytes(emptied, replace=changes, tensors=first)]
    bare = replace(emptied, values=header.values.without(header.values.keys()))
    aligning = {} if header.alignment == DEFAULT_ALIGNMENT else {"general.alignment": header.alignment}
    count = sum(map(len, parts))
    return [header_bytes(emptied, replace={**changes, **_split_keys(0, len(parts), count)}, tensors=first)] + [
        header_bytes(bare, replace={**aligning, **_split_keys(number, len(parts), count)}, tensors=part)
        for number, part in enumerate(others, start=1)
    ]


def divided(tensors: Part, most_bytes: int | None, alignment: int) -> list[Part]:
    """`tensors` in as few files as llama.cpp's `--split-max-size` makes of them, laid out anew in each.

    In their order, each file with at most `most_bytes` of weights, or a single larger tensor; all in one if that is
    None.
    """
    if most_bytes is None:
        return [tensors]
    parts: list[list[GgufTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = aligned(tensor.size, alignment)
        if parts[-1] and filled + size > most_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(tensor)
        filled += size
    return [laid_out(((one.name, one.shape, one.type) for one in part), alignment) for part in parts]


def header_size(header: GgufHeader, tensors: Part) -> int:
    """Bytes of the header of one file without added keys, counted rather than made."""
    gone = (*_APPENDED, *_DROPPED)
    pairs = sum(span.end - span.start for key, span in header.values.spans.items() if key not in gone)
    pairs += sum(_U32_PAIR + len(key) for key in _APPENDED)
    infos = sum(_INFO + len(_encoded(tensor.name)) + 8 * len(tensor.shape) for tensor in tensors)
    return aligned(_START + pairs + infos, header.alignment)


def _split_keys(number: int, count: int, tensors: int) -> dict[str, Any]:
    return {
        SPLIT_NUMBER: Typed(ValueType.UINT16, number),
        SPLIT_TENSORS: Typed(ValueType.INT32, tensors),
        SPLIT_COUNT: Typed(ValueType.UINT16, count),
    }


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
