"""Floors of single layers as a person writes them: `0..4: 24; 5,7: 20`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import groupby

from studio.errors import InputError
from studio.recipes.selection import parse_ids

_EXAMPLE = "Write layers and their floor like 0..4: 24; 5,7: 20."


def parse_layer_floors(text: str, layer_ids: Collection[int]) -> dict[str, float]:
    """Layer → floor; nothing where `text` is empty. Raises `InputError` for anything that cannot be read."""
    floors: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        layers, _, number = part.rpartition(":")
        if not layers:
            raise InputError(f"{part[:40]!r} are no layers with a floor.", _EXAMPLE)
        try:
            floor = float(number)
        except ValueError:
            raise InputError(f"{number.strip()[:40]!r} is no floor of a layer.", _EXAMPLE) from None
        for layer in map(str, parse_ids(layers, layer_ids, "layer")):
            if floors.setdefault(layer, floor) != floor:
                raise InputError(f"Layer {layer} has two floors.", "Give one to each layer.")
    return floors


def layer_floors_text(floors: Mapping[str, float]) -> str:
    """What `parse_layer_floors` reads; neighbours with the same floor together."""
    known = sorted((int(layer), floor) for layer, floor in floors.items())
    runs = groupby(enumerate(known), key=lambda numbered: (numbered[1][0] - numbered[0], numbered[1][1]))
    parts = []
    for (_, floor), run in runs:
        layers = [layer for _, (layer, _) in run]
        ends = str(layers[0]) if len(layers) == 1 else f"{layers[0]}..{layers[-1]}"
        parts.append(f"{ends}: {repr(float(floor)).removesuffix('.0')}")
    return "; ".join(parts)
