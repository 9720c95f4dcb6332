"""Pruning a safetensors checkpoint: the kept experts' bytes and everything else as it is, copied once."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio.checkpoints.experts import DRAFT, Block, block_of, check_layers, kept_in, refuse_unknown_experts
from studio.checkpoints.model_folder import BASE_CARD, CARD, CONFIG, INDEX, ModelFolder, open_model_folder
from studio.checkpoints.reference import Reference, reference_of_folder
from studio.checkpoints.safetensors_header import SafeTensor, SafetensorsHeader, header_bytes, nbytes
from studio.checkpoints.slicing import Piece, copy_pieces, expert_pieces
from studio.checkpoints.story import reference_record, refuse_inside
from studio.errors import FormatError, UnsupportedError
from studio.families import ExpertPlace, Family, draft_layers_of_config, family_named
from studio.progress import Progress, Tally, silent
from studio.publish import manifest
from studio.recipes.dropmap import DropMap
from studio.staging import staged
from studio.steady import steady

METADATA = "expert_drop_metadata.json"
DROP_MAP = "drop_map.json"
_OWN_FILES = {METADATA, DROP_MAP, manifest.FILE_NAME}
"""Written anew; those of a reference that was pruned itself tell another story."""


@dataclass(frozen=True)
class ShardPlan:
    """What one weight file becomes."""

    source: Path
    tensors: tuple[SafeTensor, ...] = field(repr=False)
    names: Mapping[str, str] = field(repr=False)
    """Name before → name after, of all tensors that stay."""
    header: bytes = field(repr=False)
    pieces: tuple[Piece, ...] = field(repr=False)
    bytes: int


def prune_safetensors(
    reference: Path,
    drop: DropMap,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint in the folder `reference` without the experts that `drop` names to the folder `out`.

    Names, order and bytes of all other tensors stay. The reference's card becomes `README.base.md`. Beside the weights
    lie `expert_drop_metadata.json` and `drop_map.json` in their published shapes and Espalier's manifest; the same
    input gives the same bytes. `provenance` adds to the map's own (see `studio.publish.manifest.describe`);
    `reference_hash` there saves reading the reference once more, and `base_model` says what to call it.

    Raises `MismatchError` for a map of another model, `OutputExistsError`, `ResourceError` for a full disk, and what
    `open_model_folder` raises.
    """
    known = dict(provenance or {})
    folder = open_model_folder(reference)
    opened = reference_of_folder(folder)
    refuse_inside(reference, out)
    plans = plan_shards(folder, opened, drop)
    companions = _companions(folder)
    weight_bytes = sum(plan.bytes for plan in plans.values())
    needed = weight_bytes + sum(file.stat().st_size for file in companions.values())
    with staged(out, overwrite=overwrite, needed_bytes=needed) as partial, steady(opened.files.values()):
        partial.mkdir()
        tally = Tally(progress, weight_bytes + (0 if "reference_hash" in known else opened.hashed_bytes))
        record = reference_record(opened, known, tally)
        _copy_companions(companions, partial)
        for name, plan in plans.items():
            _write_shard(plan, partial / name, tally)
        family = family_named(opened.shape.family)
        _write_text(partial / CONFIG, with_expert_count(folder.config_text, family, drop.kept_count))
        if folder.index is not None:
            _write_text(partial / INDEX, _rewritten_index(folder.index, plans))
        _write_text(partial / METADATA, _json(drop.to_metadata(record.name)))
        _write_text(partial / DROP_MAP, drop.to_json())
        manifest.describe(record, drop, provenance=known).write(partial / manifest.FILE_NAME)
    return out


def _companions(folder: ModelFolder) -> dict[str, Path]:
    """What goes along unchanged, under the names that it has then."""
    found = {name: file for name, file in folder.companions.items() if name not in _OWN_FILES}
    return {BASE_CARD: found.pop(CARD), **found} if CARD in found else found


def plan_shards(folder: ModelFolder, reference: Reference, drop: DropMap) -> dict[str, ShardPlan]:
    """What each weight file becomes, by name, before anything is written; a file of dropped experts alone becomes none.

    Raises as `DropMap.check`, `UnsupportedError` for experts laid out in a way the family does not know, `FormatError`
    for weights that contradict the config.
    """
    drop.check(reference.shape, extra=extra_blocks(folder, reference))
    experts = _experts(folder, reference)
    kept = {block: kept_in(drop, block) for block in set(experts.blocks.values())}
    plans = {name: _plan_shard(header, experts, kept) for name, header in folder.shards.items()}
    return {name: plan for name, plan in plans.items() if plan.tensors}


def extra_blocks(folder: ModelFolder, reference: Reference) -> tuple[str, ...]:
    """Names of the blocks with experts beside the decoder layers."""
    family, drafts = family_named(reference.shape.family), draft_layers_of_config(folder.config)
    places = (family.place(tensor.name) for header in folder.shards.values() for tensor in header.tensors)
    return (DRAFT,) if any(place and (place.layer is None or place.layer in drafts) for place in places) else ()


@dataclass(frozen=True)
class _Experts:
    """The tensors of a checkpoint that have to do with single experts."""

    family: Family
    count: int
    """Experts per layer."""
    places: Mapping[str, ExpertPlace]
    blocks: Mapping[str, Block]


def _experts(folder: ModelFolder, reference: Reference) -> _Experts:
    """Raises as `plan_shards`, but for the map."""
    shape, family = reference.shape, family_named(reference.shape.family)
    drafts = draft_layers_of_config(folder.config)
    found = {tensor.name: tensor for header in folder.shards.values() for tensor in header.tensors}
    places = {name: place for name in found if (place := family.place(name))}
    blocks = {name: block_of(folder.path, shape, drafts, name, place.layer) for name, place in places.items()}
    check_layers(folder.path, shape, blocks)
    others = [tensor for name, tensor in found.items() if name not in places]
    refuse_unknown_experts(folder.path, family, [tensor.name for tensor in others], marker=".experts.")
    stacked = [tensor.name for tensor in others if len(tensor.shape) == 3 and tensor.shape[0] == shape.experts]
    refuse_unknown_experts(folder.path, family, stacked, marker="layers.")  # a matrix per expert under another name
    _check_numbers(folder.path, places, blocks, shape.experts)
    return _Experts(family, shape.experts, places, blocks)


def _check_numbers(path: Path, places: Mapping[str, ExpertPlace], blocks: Mapping[str, Block], experts: int) -> None:
    """Raise `FormatError` unless blocks with a tensor per expert have one of each number below `experts`."""
    numbers: dict[Block, set[int]] = {}
    for name, place in places.items():
        if place.expert is not None:
            numbers.setdefault(blocks[name], set()).add(place.expert)
    for block, found in numbers.items():
        if surplus := found - set(range(experts)):
            raise FormatError(path, f"layer {block}", f"it has an expert {max(surplus)}, and the config says {experts}")
        if missing := set(range(experts)) - found:
            raise FormatError(path, f"layer {block}", f"its expert {min(missing)} is missing")


def with_expert_count(config_text: str, family: Family, kept: int) -> str:
    """`config.json` with another number of experts and not a character changed beside it, where that can be done."""
    text = config_text
    for key in family.experts_keys:
        text = _with_number(text, family.text_config_key, key, kept)
    return text


def _with_number(config_text: str, part_key: str, key: str, number: int) -> str:
    """`config_text` with `number` under `key`, if it has that key."""
    expected = json.loads(config_text)
    part = expected.get(part_key)
    part = part if isinstance(part, dict) else expected
    if key not in part:
        return config_text
    part[key] = number
    for match in re.finditer(rf'("{re.escape(key)}"\s*:\s*)\d+', config_text):
        candidate = f"{config_text[: match.start()]}{match[1]}{number}{config_text[match.end() :]}"
        if json.loads(candidate) == expected:
            return candidate
    return _json(expected)


def _plan_shard(header: SafetensorsHeader, experts: _Experts, kept: Mapping[Block, tuple[int, ...]]) -> ShardPlan:
    changed = {tensor.name: _pruned(header.path, tensor, experts, kept) for tensor in header.tensors}
    after = {name: tensor for name, tensor in changed.items() if tensor is not None}
    order = [tensor for tensor in sorted(header.tensors, key=lambda tensor: tensor.start) if tensor.name in after]
    placed = _placed([after[tensor.name] for tensor in order])
    tensors = tuple(placed[tensor.name] for tensor in after.values())
    written = header_bytes(tensors, header.metadata)
    pieces: list[Piece] = []
    for tensor in order:
        source, target = header.data_start + tensor.start, len(written) + placed[after[tensor.name].name].start
        place = experts.places.get(tensor.name)
        if place is not None and place.expert is None:
            blocks = math.prod(tensor.shape[: place.axis])
            stay = kept[experts.blocks[tensor.name]]
            pieces += expert_pieces(source, target, tensor.size, experts.count, stay, blocks=blocks)
        else:
            pieces.append(Piece(source, target, tensor.size))
    names = {before: tensor.name for before, tensor in after.items()}
    data_bytes = sum(tensor.size for tensor in tensors)
    return ShardPlan(header.path, tensors, names, written, tuple(pieces), len(written) + data_bytes)


def _pruned(
    path: Path, tensor: SafeTensor, experts: _Experts, kept: Mapping[Block, tuple[int, ...]]
) -> SafeTensor | None:
    """`tensor` with its new name and shape, still at its old place; None for a tensor of a dropped expert."""
    place = experts.places.get(tensor.name)
    if place is None:
        return tensor
    stay = kept[experts.blocks[tensor.name]]
    if place.expert is not None:
        if place.expert not in stay:
            return None
        return replace(tensor, name=experts.family.renumbered(tensor.name, stay.index(place.expert)))
    axis = place.axis
    if len(tensor.shape) <= axis or tensor.shape[axis] != experts.count:
        raise FormatError(
            path,
            f"tensor {tensor.name!r}",
            f"its shape {list(tensor.shape)} has not {experts.count} experts at axis {axis}",
        )
    shape = (*tensor.shape[:axis], len(stay), *tensor.shape[axis + 1 :])
    one_expert = nbytes(tensor.dtype, tensor.shape[axis + 1 :])
    if one_expert is None:
        raise UnsupportedError(f"{path}, tensor {tensor.name!r}: one expert of type {tensor.dtype} is no whole bytes.")
    size = one_expert * math.prod(shape[: axis + 1])
    return SafeTensor(tensor.name, tensor.dtype, shape, tensor.start, tensor.start + size)


def _placed(tensors: list[SafeTensor]) -> dict[str, SafeTensor]:
    """The tensors one after the other, by name."""
    placed: dict[str, SafeTensor] = {}
    start = 0
    for one in tensors:
        placed[one.name] = SafeTensor(one.name, one.dtype, one.shape, start, start + one.size)
        start += one.size
    return placed


def _write_shard(plan: ShardPlan, path: Path, tally: Tally) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(plan.header)
        tally.advance(len(plan.header), f"Writing {path.name}")
        copy_pieces(plan.source, file.fileno(), plan.pieces, lambda count: tally.advance(count, f"Writing {path.name}"))


def _copy_companions(companions: Mapping[str, Path], folder: Path) -> None:
    for name, file in companions.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _rewritten_index(index: Mapping[str, Any], plans: Mapping[str, ShardPlan]) -> str:
    """The index of the pruned checkpoint: tensors in the files they were in, and their new names and sizes."""
    tensors = [tensor for plan in plans.values() for tensor in plan.tensors]
    after = {name: now for plan in plans.values() for name, now in plan.names.items()}
    weight_map = {after[name]: file for name, file in index["weight_map"].items() if name in after}
    metadata = dict(index.get("metadata") or {})
    metadata["total_size"] = sum(tensor.size for tensor in tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(tensor.elements for tensor in tensors)
    return _json({**index, "metadata": metadata, "weight_map": weight_map})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
