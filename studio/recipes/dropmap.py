"""`DropMap`: which experts leave, for each layer. It validates itself; `check` compares it with a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.errors import FormatError, InputError, MismatchError
from studio.families.base import MoeShape
from studio.recipes.published import Published, parse

METADATA_METHOD = "expert_drop_by_contribution"
"""The `method` of the published `expert_drop_metadata.json`."""


@dataclass(frozen=True)
class DropMap:
    """For each layer the sorted ids of dropped experts; every layer drops equally many and keeps at least one.

    Two maps are equal, and have the same `content_hash`, when they drop the same experts of the same grid; where they
    came from (`provenance`, `shape_family`) does not count. Raises `InputError` for a wrong count, id or order.
    """

    shape_family: str | None = field(compare=False)
    """Name of the family, None when a published map did not say."""
    experts: int
    """Experts per layer before pruning, E."""
    dropped: tuple[tuple[int, ...], ...]
    """Per layer, in the order of `layer_ids`."""
    layer_ids: tuple[int, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    extra: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Blocks with experts beside the numbered layers: ("mtp", ids) in Qwen3.6's maps."""

    def __post_init__(self) -> None:
        if not _is_count(self.experts) or self.experts < 1:
            raise InputError(f"A drop map for {self.experts!r} experts per layer makes no sense.")
        if not self.layer_ids:
            raise InputError("The drop map has no layers.")
        if len(self.layer_ids) != len(self.dropped):
            raise InputError(f"The drop map names {len(self.layer_ids)} layers and lists {len(self.dropped)}.")
        if list(self.layer_ids) != sorted(set(self.layer_ids)) or self.layer_ids[0] < 0:
            raise InputError(f"The layers of a drop map have to ascend from 0 or more; these are {self.layer_ids}.")
        for name, ids in self._blocks():
            _check_ids(name, ids, self.experts)
            if len(ids) != self.dropped_count:
                raise InputError(
                    f"{name} drops {len(ids)} experts, and layer {self.layer_ids[0]} drops {self.dropped_count}.",
                    "Every layer has to keep the same number of experts, or no runtime can load the model.",
                )
        if self.kept_count < 1:
            raise InputError(f"The drop map drops all {self.experts} experts.", "Keep as many as the router uses.")

    def _blocks(self) -> list[tuple[str, tuple[int, ...]]]:
        layers = [(f"layer {layer}", ids) for layer, ids in zip(self.layer_ids, self.dropped, strict=True)]
        return [*layers, *self.extra]

    @property
    def layers(self) -> int:
        """Layers with experts, L."""
        return len(self.layer_ids)

    @property
    def dropped_count(self) -> int:
        """Experts dropped per layer."""
        return len(self.dropped[0])

    @property
    def kept_count(self) -> int:
        """Experts kept per layer."""
        return self.experts - self.dropped_count

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """[L, E], True where dropped."""
        mask = np.zeros((self.layers, self.experts), dtype=np.bool_)
        if self.dropped_count:
            np.put_along_axis(mask, np.array(self.dropped, dtype=np.int64), True, axis=1)
        return mask

    def kept(self, index: int) -> tuple[int, ...]:
        """Ids kept in the layer at `index` (a position in `layer_ids`, not a layer id), ascending."""
        gone = set(self.dropped[index])
        return tuple(expert for expert in range(self.experts) if expert not in gone)

    def kept_in_layer(self, layer_id: int) -> tuple[int, ...]:
        """Ids kept in decoder layer `layer_id`, ascending; `MismatchError` when the map has no such layer."""
        if layer_id not in self.layer_ids:
            raise MismatchError(f"The drop map has no layer {layer_id}; it has {_listed(self.layer_ids)}.")
        return self.kept(self.layer_ids.index(layer_id))

    def check(self, shape: MoeShape, extra: Collection[str] = ()) -> None:
        """Raise unless this map fits a model of `shape` that also has the blocks named in `extra`.

        `MismatchError`: another family, number of experts, or set of layers. `InputError`: fewer kept experts than the
        router uses per token.
        """
        if self.shape_family is not None and self.shape_family != shape.family:
            raise MismatchError(f"The drop map is for {self.shape_family}, and the model is a {shape.family}.")
        self.check_grid(shape, "the model")
        if unknown := [name for name, _ in self.extra if name not in extra]:
            raise MismatchError(f"The drop map also prunes {_listed(unknown)}, and the model has no such block.")
        self._check_groups(shape)
        check_router(shape, self.dropped_count)

    def _check_groups(self, shape: MoeShape) -> None:
        """Raise `InputError` unless all groups that the router chooses among keep equally many experts."""
        for name, ids in self._blocks():
            gone = np.bincount(np.array(ids, dtype=np.int64) // shape.group_size, minlength=shape.groups)
            if len(set(gone.tolist())) > 1:
                raise InputError(
                    f"{name} drops {', '.join(map(str, gone))} of the {shape.group_size} experts in each of its "
                    "groups. The router chooses groups first, and finds their borders by counting: all have to keep "
                    "equally many.",
                    "Make the map with a recipe, which cuts group by group for this model.",
                )

    def check_grid(self, shape: MoeShape, other: str) -> None:
        """Raise `MismatchError` unless `shape`, that of `other`, has the same experts and layers."""
        if self.experts != shape.experts:
            raise MismatchError(
                f"The drop map is for {self.experts} experts per layer, and {other} has {shape.experts}.",
                "Choose what the map was made for.",
            )
        if missing := sorted(set(shape.layer_ids) - set(self.layer_ids)):
            raise MismatchError(f"The drop map has no entry for layer {_listed(missing)}, which {other} has.")
        if surplus := sorted(set(self.layer_ids) - set(shape.layer_ids)):
            raise MismatchError(f"The drop map has an entry for layer {_listed(surplus)}, which {other} has not.")

    @property
    def content_hash(self) -> str:
        """sha256 over what is dropped from which grid, whatever the file looked like."""
        content = {"experts": self.experts, "layers": self.layer_ids, "dropped": self.dropped, "extra": self.extra}
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> str:
        """The published drop map, `{"0": [ids…], …}`: one line per layer. It carries no provenance."""
        named = [(str(layer), ids) for layer, ids in zip(self.layer_ids, self.dropped, strict=True)]
        lines = [f'  "{name}": {json.dumps(list(ids))}' for name, ids in [*named, *self.extra]]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def to_metadata(self, base_model: str = "") -> dict[str, Any]:
        """The published `expert_drop_metadata.json`; this map's provenance goes with it. `from_json` reads it back."""
        layers = [str(layer) for layer in self.layer_ids]
        return {
            "base_model": base_model,
            "method": METADATA_METHOD,
            "original_experts": self.experts,
            "target_experts": self.kept_count,
            "per_layer_keep": {layer: list(self.kept(index)) for index, layer in enumerate(layers)},
            "per_layer_drop": dict(zip(layers, map(list, self.dropped), strict=True))
            | {name: list(ids) for name, ids in self.extra},
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_mask(
        cls,
        mask: npt.NDArray[np.bool_],
        layer_ids: Sequence[int],
        *,
        family: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> DropMap:
        """The map that drops where `mask` [L, E] is True."""
        dropped = tuple(tuple(np.flatnonzero(row).tolist()) for row in mask)
        return cls(family, int(mask.shape[1]), dropped, tuple(layer_ids), dict(provenance or {}))

    @classmethod
    def from_json(
        cls,
        source: str | bytes | Mapping[str, Any],
        experts: int | None = None,
        *,
        shape: MoeShape | None = None,
        name: str = "drop map",
    ) -> DropMap:
        """Read a published drop map or `expert_drop_metadata.json` (JSON text, or what it parsed to).

        A bare map does not say how many experts there were: give `experts`, or the model's `shape`, with which the map
        is then checked. `name` is what messages call the file.

        Raises `FormatError` for what is not a drop map (with the reason and, where known, what it is), `MismatchError`
        for a map that does not belong to `experts` or `shape`, `InputError` when the number of experts cannot be known.
        """
        published = parse(source, name)
        total = _agreed_experts(published, experts, shape, name)
        try:
            layer_ids = tuple(sorted(published.layers))
            result = cls(
                shape_family=shape.family if shape else None,
                experts=total,
                dropped=tuple(published.dropped(layer, total) for layer in layer_ids),
                layer_ids=layer_ids,
                provenance=published.provenance,
                extra=tuple(sorted((block, published.dropped(block, total)) for block in published.extra)),
            )
        except InputError as error:
            raise FormatError(name, "", error.what.removesuffix("."), error.remedy) from error
        if published.target_experts not in (None, result.kept_count):
            raise FormatError(
                name, "target_experts", f"it says {published.target_experts}, and the map keeps {result.kept_count}"
            )
        if shape is not None:
            try:
                result.check(shape, extra=[block for block, _ in result.extra])  # which there are, the weights tell
            except InputError as error:
                raise error.said_of(name) from None
        return result


def most_droppable(shape: MoeShape) -> int:
    """The most experts that every layer can lose: a router needs as many as it uses per token.

    Where it first chooses groups, those that it chooses have to hold them, and all groups lose equally many.
    """
    needed_per_group = -(-shape.top_k // shape.groups_per_token)
    return shape.groups * max(shape.group_size - needed_per_group, 0)


def check_router(shape: MoeShape, drop: int) -> None:
    """Raise `InputError` when the router of `shape` cannot work with `drop` experts less in every layer."""
    most, left = most_droppable(shape), shape.experts - drop
    if drop % shape.groups and drop < most:
        lower = drop - drop % shape.groups
        raise InputError(
            f"This model routes by {shape.groups} groups of experts, and {drop} cannot be dropped equally from each.",
            f"Drop {lower} or {lower + shape.groups}.",
        )
    if drop <= most:
        return
    remedy = f"Drop at most {most}, which keeps {shape.experts - most}."
    if left < 0:
        raise InputError(f"{drop} experts cannot be dropped where every layer has {shape.experts}.", remedy)
    if left < shape.top_k:
        raise InputError(
            f"Dropping {drop} of {shape.experts} experts keeps {left}, and the router uses {shape.top_k} per token.",
            remedy,
        )
    raise InputError(
        f"Each group of experts would keep {left // shape.groups}, and a token uses {shape.top_k} from "
        f"{shape.groups_per_token} groups.",
        remedy,
    )


def _agreed_experts(published: Published, experts: int | None, shape: MoeShape | None, name: str) -> int:
    """The number of experts per layer that the file, the caller and the model agree on."""
    known = {
        "the file": published.experts,
        "the request": experts,
        "the model": shape.experts if shape else None,
    }
    said = {who: count for who, count in known.items() if count is not None}
    if not said:
        raise InputError(
            f"{name} does not say how many experts each layer had.",
            "Open the model that it was made for, or give the number.",
        )
    if len(set(said.values())) > 1:
        counts = ", ".join(f"{count} in {who}" for who, count in said.items())
        raise MismatchError(f"{name}: the numbers of experts per layer differ: {counts}.")
    return next(iter(said.values()))


def _check_ids(name: str, ids: tuple[int, ...], experts: int) -> None:
    for expert in ids:
        if not _is_count(expert):
            raise InputError(f"{name} lists {expert!r}, which is not an expert id.")
        if not 0 <= expert < experts:
            raise InputError(f"{name} lists expert {expert}, and the ids go from 0 to {experts - 1}.")
    if len(set(ids)) != len(ids):
        twice = next(expert for expert in ids if ids.count(expert) > 1)
        raise InputError(f"{name} lists expert {twice} twice.")
    if list(ids) != sorted(ids):
        raise InputError(f"{name} does not list its experts in ascending order.")


def _is_count(value: object) -> bool:
    """A plain int: True and 3.0 are neither counts nor ids."""
    return type(value) is int


def _listed(values: Sequence[object]) -> str:
    """At most eight of `values`, for a message."""
    shown = ", ".join(map(str, values[:8]))
    return shown if len(values) <= 8 else f"{shown} and {len(values) - 8} more"
