"""What is done on the map, as assets/heatmap_work.js sends it: plain values, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from studio.errors import InputError
from studio.families import MoeShape
from studio.recipes.overrule import Fate
from studio.recipes.selection import parse_ids

MOST_ACTIONS = 1000
"""In one message; the browser gathers what is done while it waits for an answer."""
_REMEDY = "Reload the page."


@dataclass(frozen=True)
class Stroke:
    """Some experts in some rows of the map are kept or dropped by hand, or released."""

    fate: Fate
    rows: Sequence[int]
    """Positions of layers."""
    experts: Sequence[int]


Action = Stroke | Literal["undo", "redo"]


def message_of(data: object) -> tuple[int, object]:
    """(its number, what was done) of a message; 0 and None where it is none, which `actions_of` refuses."""
    sent = data if isinstance(data, Mapping) else {}
    number = sent.get("ask")
    return number if type(number) is int else 0, sent.get("actions")


def actions_of(sent: object, shape: MoeShape) -> tuple[Action, ...]:
    """What the browser sent, `[{"do": "keep", "rows": [first, last], "experts": [first, last]}, {"do": "undo"}, …]`.

    Raises `InputError` for anything else, and for cells that a map of `shape` has not.
    """
    if not isinstance(sent, list) or not 0 < len(sent) <= MOST_ACTIONS:
        raise InputError("What the page sent about the map cannot be read.", _REMEDY)
    return tuple(_action(entry, shape) for entry in sent)


def _action(entry: object, shape: MoeShape) -> Action:
    if not isinstance(entry, Mapping):
        raise InputError("What the page sent about the map cannot be read.", _REMEDY)
    done: object = entry.get("do")
    match done:
        case "undo" | "redo":
            return done
        case "keep" | "drop" | "release":
            rows = _span(entry.get("rows"), shape.layers, "row")
            return Stroke(done, rows, _span(entry.get("experts"), shape.experts, "expert"))
    raise InputError(f"Nothing on the map is called {done!r}.", _REMEDY)


def _span(ends: object, size: int, noun: str) -> range:
    """From one number to the other, both included, whichever comes first."""
    if not isinstance(ends, list) or len(ends) != 2 or any(type(end) is not int for end in ends):
        raise InputError(f"{ends!r} are no two {noun}s of the map.", _REMEDY)
    if beyond := [end for end in ends if not 0 <= end < size]:
        raise InputError(f"The map has no {noun} {beyond[0]}.", f"They go from 0 to {size - 1}.")
    return range(min(ends), max(ends) + 1)


def typed_stroke(fate: Fate, layers: str, experts: str, shape: MoeShape) -> Stroke:
    """What a person typed: `1,2,250..255` or `all`. Raises as `parse_ids` does."""
    rows = tuple(shape.layer_ids.index(layer) for layer in parse_ids(layers, shape.layer_ids, "layer"))
    return Stroke(fate, rows, parse_ids(experts, range(shape.experts), "expert"))
