"""What stands in a published JSON analysis, read as a stream into small arrays; nothing is judged as a whole here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.contributions.json_stream import JsonStream, open_stream
from studio.contributions.model import Array
from studio.errors import FormatError
from studio.progress import Progress

FIELDS = ("wnorm", "rnorm", "tc")
UNREAD_ARRAY = "neuron_act"  # as long as an expert has neurons; nearly all bytes of the largest files
MOST_CELLS = 1 << 20  # layers × experts; the largest models have some 30,000, and a hostile count must not fill memory

FORMAT_REMEDY = 'Give a JSON analysis with "categories" or "questions", or a file that Espalier made.'


@dataclass(frozen=True)
class ListedLayer:
    """The experts that a file lists for one class or question in one layer, in file order."""

    experts: npt.NDArray[np.int64]
    """Their ids, each once, `[n]`."""
    values: Mapping[str, Array]
    """`FIELDS`, each `[n]`, not negative; NaN and infinities as they are."""
    prompts: int
    """The most prompts (`cc`) in which one of them fired; 0 when the file does not say."""


@dataclass(frozen=True)
class JsonAnalysis:
    """A whole file. `kind` is "categories" or "questions"; `groups` are its classes or questions: layer → experts."""

    path: Path
    kind: str
    metadata: Mapping[str, Any]
    groups: Mapping[str, Mapping[int, ListedLayer]]

    def error(self, place: str, problem: str, remedy: str = "") -> FormatError:
        return FormatError(self.path, place, problem, remedy)

    def count(self, key: str) -> int | None:
        """A positive whole number of the metadata, or None when it is not given."""
        value = self.metadata.get(key)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value <= MOST_CELLS or value != int(value):
            raise self.error(f"metadata.{key}", f"it is {value!r}, and has to be a positive whole number")
        return int(value)


def read(path: Path, progress: Progress) -> JsonAnalysis | None:
    """Read the analysis at `path`; None for one that has neither "categories" nor "questions".

    Raises `InputError` when there is no such file and `FormatError`, with the place, for broken JSON, what is no
    analysis, repeated keys and experts, and values that are no numbers or negative.
    """
    stream = open_stream(path, progress, skipped_array=UNREAD_ARRAY)
    try:
        return _read(stream)
    finally:
        stream.close()


def _read(stream: JsonStream) -> JsonAnalysis | None:
    metadata: dict[str, Any] = {}
    found: dict[str, dict[str, dict[int, ListedLayer]]] = {}
    opening, _ = stream.next()
    if opening != "start_map":
        raise stream.error("this JSON is not a contribution analysis", FORMAT_REMEDY)
    for key in stream.keys(opening, ""):
        if key in ("categories", "questions"):
            event, _ = stream.next()
            found[key] = {group: _read_group(stream) for group in stream.keys(event, key)}
        elif key == "metadata":
            metadata = stream.value()
            if not isinstance(metadata, dict):
                raise stream.error("an object is expected here")
        else:
            stream.skip()
    stream.finish()
    if not found:
        return None
    if len(found) != 1:
        raise stream.error('this JSON holds both "categories" and "questions"', FORMAT_REMEDY)
    ((kind, groups),) = found.items()
    return JsonAnalysis(stream.path, kind, metadata, groups)


def _read_group(stream: JsonStream) -> dict[int, ListedLayer]:
    layers: dict[int, ListedLayer] = {}
    group = stream.place
    event, _ = stream.next()
    for key in stream.keys(event, group):
        if not key.isascii() or not key.isdigit() or int(key[:9]) >= MOST_CELLS:
            raise stream.error(f"{key[:40]!r} is not the number of a layer")
        stream.place = f"{group}.layer {key}"
        if int(key) in layers:
            raise stream.error("this layer comes twice")
        layers[int(key)] = _read_layer(stream)
    return layers


def _read_layer(stream: JsonStream) -> ListedLayer:
    layer = stream.place
    experts: list[int] = []
    rows: list[tuple[float, ...]] = []
    prompts, seen = 0.0, set[int]()
    event, _ = stream.next()
    for position, item in enumerate(stream.items(event)):
        entry = _read_expert(stream, item, f"{layer}, entry {position}")
        expert = int(entry["id"])
        stream.place = f"{layer}, expert {expert}"
        if expert in seen:
            raise stream.error("this expert comes twice")
        seen.add(expert)
        experts.append(expert)
        rows.append(tuple(_value(stream, entry, name) for name in FIELDS))
        prompts = max(prompts, entry.get("cc", 0.0))
        stream.place = layer
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(FIELDS)).T
    return ListedLayer(
        experts=np.array(experts, dtype=np.int64),
        values=dict(zip(FIELDS, columns, strict=True)),
        prompts=int(prompts) if math.isfinite(prompts) else 0,
    )


def _read_expert(stream: JsonStream, event: str, place: str) -> dict[str, float]:
    """One expert's numbers, "id" valid among them."""
    entry: dict[str, float] = {}
    for key in stream.keys(event, place):
        if key in FIELDS or key in ("id", "cc"):
            entry[key] = stream.number()
        else:
            stream.skip()
    stream.place = place
    if "id" not in entry:
        raise stream.error('"id" is missing')
    if not 0 <= entry["id"] < MOST_CELLS or entry["id"] != int(entry["id"]):
        raise stream.error(f'"id" is {entry["id"]}, and that is not the number of an expert')
    return entry


def _value(stream: JsonStream, entry: Mapping[str, float], name: str) -> float:
    if name not in entry:
        raise stream.error(f'"{name}" is missing')
    if entry[name] < 0:
        raise stream.error(f'"{name}" is {entry[name]}, and cannot be negative')
    return entry[name]
