"""Pruning a GGUF file of any tensor types: experts are cut out as bytes, nothing is quantized again.

Every type quantizes within rows, and experts are whole rows, so cutting an expert out of a quantized tensor gives what
quantizing the smaller tensor would have given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES

from studio.checkpoints.experts import DRAFT, Block, block_of, check_layers, kept_in, refuse_unknown_experts
from studio.checkpoints.gguf_header import (
    SPLIT_COUNT,
    SPLIT_NUMBER,
    SPLIT_TENSORS,
    GgufHeader,
    GgufTensor,
    aligned,
    header_bytes,
    laid_out,
    read_header,
)
from studio.checkpoints.reference import reference_of_gguf
from studio.checkpoints.slicing import Piece, copy_pieces, expert_pieces
from studio.checkpoints.story import reference_record, refuse_inside
from studio.errors import FormatError
from studio.families import MoeShape, draft_layers_of_gguf, family_named, shape_of_gguf
from studio.progress import Progress, Tally, silent
from studio.publish import manifest
from studio.recipes.dropmap import DropMap
from studio.staging import staged
from studio.steady import steady

MANIFEST_KEY = "espalier.manifest"
"""Header key of the manifest: the file carries its own story."""


@dataclass(frozen=True)
class GgufPlan:
    """The tensors of the pruned file, and for each file of the source the pieces of it that are wanted.

    Targets of pieces count from where the weights begin.
    """

    tensors: tuple[GgufTensor, ...] = field(repr=False)
    pieces: tuple[tuple[Piece, ...], ...] = field(repr=False)
    data_bytes: int


def prune_gguf(
    reference: Path,
    drop: DropMap,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write the GGUF file `reference` without the experts that `drop` names to the file `out`.

    A split model (`reference` is any of its parts) becomes one file. The header keeps all its keys; the expert count
    changes, and `espalier.manifest` comes last. The same input gives the same bytes. `provenance` is that of
    `prune_safetensors`.

    Raises `MismatchError` for a map of another model, `OutputExistsError`, `ResourceError` for a full disk, and what
    `read_header` raises.
    """
    known = dict(provenance or {})
    header = read_header(reference)
    opened = reference_of_gguf(header)
    drop.check(opened.shape, extra=extra_blocks(header))
    refuse_inside(reference, out)
    plan = plan_gguf(header, drop)
    needed = header.parts[0].data_start + plan.data_bytes
    with staged(out, overwrite=overwrite, needed_bytes=needed) as partial, steady(opened.files.values()):
        tally = Tally(progress, plan.data_bytes + (0 if "reference_hash" in known else opened.hashed_bytes))
        record = reference_record(opened, known, tally)
        story = manifest.describe(record, drop, provenance=known, versions=manifest.versions_of("gguf"))
        changes: dict[str, Any] = dict.fromkeys((SPLIT_NUMBER, SPLIT_COUNT, SPLIT_TENSORS))
        changes |= {f"{header.architecture}.expert_count": drop.kept_count, MANIFEST_KEY: story.to_json()}
        start = header_bytes(header, replace=changes, tensors=plan.tensors)
        with partial.open("wb", buffering=0) as file:
            file.write(start)
            file.truncate(len(start) + plan.data_bytes)  # so that padding reads as zeros
            for part, wanted in zip(header.parts, plan.pieces, strict=True):
                pieces = (Piece(piece.source, len(start) + piece.target, piece.length) for piece in wanted)
                copy_pieces(part.path, file.fileno(), pieces, lambda count: tally.advance(count, f"Writing {out.name}"))
    return out


def plan_gguf(header: GgufHeader, drop: DropMap) -> GgufPlan:
    """What becomes of each tensor, before anything is written.

    Raises `UnsupportedError` for experts laid out in a way the family does not know, `FormatError` for tensors that
    contradict the header.
    """
    shape = shape_of_gguf(header.values)
    layers = expert_layers(header, shape)
    after = laid_out(
        (
            (tensor.name, (*tensor.shape[:-1], drop.kept_count) if tensor.name in layers else tensor.shape, tensor.type)
            for tensor in header.tensors
        ),
        header.alignment,
    )
    pieces: list[list[Piece]] = [[] for _ in header.parts]
    for before, now in zip(header.tensors, after, strict=True):
        source = header.start_of(before)
        if before.name in layers:
            kept = kept_in(drop, layers[before.name])
            pieces[before.part] += expert_pieces(source, now.offset, before.size, drop.experts, kept)
        else:
            pieces[before.part].append(Piece(source, now.offset, before.size))
    end = after[-1].offset + after[-1].size
    return GgufPlan(after, tuple(map(tuple, pieces)), aligned(end, header.alignment))


def extra_blocks(header: GgufHeader) -> tuple[str, ...]:
    """Names of the blocks with experts beside the decoder layers."""
    return (DRAFT,) if draft_layers_of_gguf(header.values) else ()


def expert_layers(header: GgufHeader, shape: MoeShape) -> dict[str, Block]:
    """Layer of every tensor with an expert axis (the last of ne), by name; raises as `plan_gguf` does."""
    family = family_named(shape.family)
    drafts = draft_layers_of_gguf(header.values)
    found = {tensor.name: family.gguf_layer(tensor.name) for tensor in header.tensors}
    layers = {
        name: block_of(header.path, shape, drafts, name, layer) for name, layer in found.items() if layer is not None
    }
    check_layers(header.path, shape, layers)
    others = [tensor.name for tensor in header.tensors if tensor.name not in layers]
    refuse_unknown_experts(header.path, family, others, marker="_exps.")
    for tensor in header.tensors:
        if tensor.name in layers:
            _check_expert_axis(header.path, tensor, shape.experts)
    return layers


def _check_expert_axis(path: Path, tensor: GgufTensor, experts: int) -> None:
    place = f"tensor {tensor.name!r}"
    if not tensor.shape or tensor.shape[-1] != experts:
        raise FormatError(path, place, f"its shape {list(tensor.shape)} does not end in {experts} experts")
    if len(tensor.shape) == 1 and GGML_QUANT_SIZES[tensor.type][0] > 1:
        raise FormatError(path, place, f"type {tensor.type.name} packs several experts into one block")
