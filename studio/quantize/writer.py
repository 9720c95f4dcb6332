"""Quantizing a GGUF file to several tiers at once, pruned on the way where a drop map is given.

The source is read once, front to back in the order of the new files. The result of each tier is byte for byte the file
that llama.cpp's `llama_model_quantize` writes (of the pruned model, where experts are dropped), but for two things:
provenance adds keys under `espalier.`, and a source whose alignment is not 32 keeps it, where llama.cpp writes a file
that contradicts its own header.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.gguf_header import GgufHeader, GgufTensor, read_header
from studio.checkpoints.prune_gguf import expert_layers
from studio.checkpoints.slicing import kept_runs
from studio.errors import InputError, OutputExistsError, UnsupportedError
from studio.families import shape_of_gguf
from studio.progress import Progress, silent
from studio.quantize import ggml
from studio.quantize.chunks import Converter, Journey, Place, all_chunks, write
from studio.quantize.header import quantized_header
from studio.quantize.plan import TensorPlan, check_buildable, make_plan
from studio.quantize.tiers import Tier, tier_named
from studio.recipes.dropmap import DropMap
from studio.staging import require_disk, staged

KEY_PREFIX = "espalier."
_AHEAD = 4
"""Chunks waiting per thread, so that none is idle."""


@dataclass(frozen=True)
class _Output:
    """A file to be written."""

    path: Path
    plan: TensorPlan
    header: bytes

    @property
    def file_bytes(self) -> int:
        # What the plan says, and as much more as provenance has made the header longer.
        return self.plan.file_bytes - self.plan.header_bytes + len(self.header)


def quantize(
    source: Path,
    tiers: Sequence[str],
    out_dir: Path,
    *,
    drop: DropMap | None = None,
    imatrix: Path | None = None,
    name: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    provenance: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `out_dir/NAME-TIER.gguf` for every tier, of the GGUF file `source` (F32, F16 or BF16); gives the paths.

    `name` is by default that of the source. Experts named by `drop` are left out. `provenance` becomes keys under
    `espalier.`: text and numbers as they are, anything else as JSON. Progress is in bytes of the source's tensors.
    The bytes depend neither on `threads` (default: one per core) nor on which other tiers are made along.

    Raises, before anything is written: what `read_header`, `DropMap.check`, `make_plan` and `check_buildable` raise,
    `OutputExistsError`, `ResourceError` where the disk has too little space for all. Later: `InputError` naming a
    tensor with NaN or infinity, `ResourceError` where the disk fills up. No file appears before all are complete.
    """
    if imatrix is not None:
        raise UnsupportedError("Importance matrices cannot be used yet.", "Quantize without one.")
    source, out_dir = Path(source), Path(out_dir)
    header = read_header(source)
    kept = _kept_experts(header, drop)
    outputs = _planned(header, _named(tiers), _stem(out_dir, name or source.stem), kept=kept, provenance=provenance)
    _check_outputs(source, outputs, overwrite)
    require_disk(out_dir, sum(output.file_bytes for output in outputs))
    with source.open("rb", buffering=0) as weights, ExitStack() as files:
        descriptors = [files.enter_context(_opened(output, overwrite)) for output in outputs]
        journeys = list(_journeys(header, kept, list(zip(outputs, descriptors, strict=True))))
        _run(Converter(weights.fileno()), journeys, threads or os.cpu_count() or 1, progress)
    return [output.path for output in outputs]


def _kept_experts(header: GgufHeader, drop: DropMap | None) -> dict[str, tuple[int, ...]] | None:
    """The experts to keep of each tensor that has experts; None where nothing is pruned."""
    if drop is None:
        return None
    shape = shape_of_gguf(header.values)
    drop.check(shape)
    return {name: drop.kept_in_layer(layer) for name, layer in expert_layers(header, shape).items()}


def _named(names: Sequence[str]) -> list[Tier]:
    tiers = [tier_named(name) for name in names]
    if not tiers:
        raise InputError("No tier was named.", "Name at least one, for instance Q4_K_M.")
    if len(set(tiers)) < len(tiers):
        raise InputError(f"A tier is named twice: {', '.join(names)}.")
    return tiers


def _stem(out_dir: Path, name: str) -> Path:
    """What the paths of all outputs begin with."""
    if Path(name).name != name:
        raise InputError(f"{name!r} is not a file name.", "Give a name without folders.")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is not a folder.", "Name a folder to write to.")
    return out_dir / name


def _planned(
    header: GgufHeader,
    tiers: Sequence[Tier],
    stem: Path,
    *,
    kept: Mapping[str, tuple[int, ...]] | None,
    provenance: Mapping[str, Any] | None,
) -> list[_Output]:
    if int(header.values.get("split.count", 1)) > 1:
        raise UnsupportedError(
            f"{header.path} is one part of a split model.", "Merge the parts with llama-gguf-split --merge."
        )
    kept_count = None if kept is None else len(next(iter(kept.values())))
    added = {KEY_PREFIX + key: _header_value(value) for key, value in (provenance or {}).items()}
    outputs = []
    for tier in tiers:
        plan = make_plan(header, tier, kept_experts=kept_count)
        check_buildable(header, plan)
        start = quantized_header(header, plan.tensors, tier.file_type, kept_experts=kept_count, added=added)
        outputs.append(_Output(stem.with_name(f"{stem.name}-{tier.name}.gguf"), plan, start))
    return outputs


def _header_value(value: Any) -> str | int | float:
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check_outputs(source: Path, outputs: Iterable[_Output], overwrite: bool) -> None:
    for output in outputs:
        if output.path.exists():
            if output.path.samefile(source):
                raise InputError(f"{output.path} is the source itself.", "Choose another name or folder.")
            if not overwrite:
                raise OutputExistsError(output.path)


@contextmanager
def _opened(output: _Output, overwrite: bool) -> Iterator[int]:
    """A descriptor of the file under way, its header written and the rest zeros, as padding is."""
    with staged(output.path, overwrite=overwrite) as partial, partial.open("wb", buffering=0) as file:
        write(file.fileno(), output.header, 0)
        file.truncate(output.file_bytes)
        yield file.fileno()


def _journeys(
    header: GgufHeader, kept: Mapping[str, tuple[int, ...]] | None, files: Sequence[tuple[_Output, int]]
) -> Iterator[Journey]:
    """Every tensor of the source, in the order of the new files."""
    sources = {tensor.name: tensor for tensor in header.tensors}
    for together in zip(*(output.plan.tensors for output, _ in files), strict=True):
        tensor = sources[together[0].name]
        places: dict[Type, tuple[Place, ...]] = {}
        for planned, (output, descriptor) in zip(together, files, strict=True):
            place = Place(descriptor, len(output.header) + planned.offset)
            places[planned.type] = (*places.get(planned.type, ()), place)
        columns, runs = _kept_rows(tensor, None if kept is None else kept.get(tensor.name))
        yield Journey(tensor.name, tensor.type, columns, header.data_start + tensor.offset, runs, places)


def _kept_rows(tensor: GgufTensor, experts: tuple[int, ...] | None) -> tuple[int, tuple[tuple[int, int], ...]]:
    """(values in a row, runs of rows to keep) of `tensor`, the last axis of which is cut to `experts`."""
    columns = tensor.shape[0] if tensor.shape else 1
    if experts is None:
        return columns, ((0, tensor.elements // columns),)
    if len(tensor.shape) == 1:  # one value per expert: each is a row
        return 1, tuple(kept_runs(experts))
    rows = tensor.elements // columns // tensor.shape[-1]
    return columns, tuple((first * rows, count * rows) for first, count in kept_runs(experts))


def _run(converter: Converter, journeys: Sequence[Journey], threads: int, progress: Progress) -> None:
    """Convert all chunks on `threads` threads, reporting in order."""
    for kind in {kind for journey in journeys for kind in journey.places}:
        ggml.quantize_init(kind)
    total = sum(journey.source_bytes for journey in journeys)
    waiting: deque[tuple[str, Future[int]]] = deque()
    done = 0

    def finish_oldest() -> None:
        nonlocal done
        name, future = waiting.popleft()
        done += future.result()
        progress(done, total, "bytes", name)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="quantize")
    try:
        for chunk in all_chunks(journeys):
            waiting.append((chunk.journey.name, pool.submit(converter.convert, chunk)))
            if len(waiting) > _AHEAD * threads:
                finish_oldest()
        while waiting:
            finish_oldest()
    finally:
        # After a failure or a cancellation nobody wants the rest; what runs is over in milliseconds.
        pool.shutdown(cancel_futures=True)
