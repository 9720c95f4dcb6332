"""Quantizing a GGUF model to several tiers at once, pruned on the way where a drop map is given.

The source is read once, front to back in the order of the new files. The result of each tier is byte for byte the file
that llama.cpp's `llama-quantize` writes (of the pruned model, where experts are dropped), but for two things:
provenance adds keys under `espalier.`, and a source whose alignment is not 32 keeps it, where llama.cpp writes a file
that contradicts its own header.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.experts import kept_in
from studio.checkpoints.gguf_header import GgufHeader, GgufTensor, aligned, read_header, split_path
from studio.checkpoints.prune_gguf import expert_layers, extra_blocks
from studio.checkpoints.slicing import kept_runs
from studio.errors import InputError, MismatchError, OutputExistsError
from studio.families import shape_of_gguf
from studio.progress import Progress, silent
from studio.quantize import ggml
from studio.quantize.chunks import (
    CHUNK_VALUES,
    Chunk,
    Converter,
    Digests,
    Journey,
    Place,
    all_chunks,
    write,
)
from studio.quantize.dynamic import ranking_of_imatrix
from studio.quantize.header import Part, divided, quantized_headers
from studio.quantize.imatrix import Imatrix, header_values
from studio.quantize.imatrix_file import read_imatrix
from studio.quantize.journal import Journal, is_intact
from studio.quantize.plan import check_buildable, make_plan
from studio.quantize.roles import is_quantized
from studio.quantize.tiers import Tier, tier_named
from studio.recipes.dropmap import DropMap
from studio.staging import explained_disk_errors, publish, require_disk, resumable, used_bytes
from studio.steady import steady

KEY_PREFIX = "espalier."
_AHEAD = 4
"""Chunks waiting per thread, so that none is idle."""


@dataclass(frozen=True)
class Options:
    """How the files of a job are made; the defaults are what most people want."""

    imatrix: Path | None = None
    """An importance matrix, of the whole model or of the pruned one."""
    ranking: Sequence[int] | None = None
    """Layers, the most important first, for the CD tiers; by default as the importance matrix ranks them."""
    split_bytes: int | None = None
    """The most weights in a file, where a model is to be split."""
    requantize: bool = False
    """Whether the source may be quantized already."""
    zero_nonfinite: bool = False
    """Whether NaN and infinity become zeros, instead of being refused."""
    threads: int | None = None
    """By default one per core."""
    overwrite: bool = False


@dataclass(frozen=True)
class _File:
    """A file to be written."""

    path: Path
    header: bytes
    tensors: Part
    alignment: int

    @property
    def bytes(self) -> int:
        last = self.tensors[-1]
        return len(self.header) + aligned(last.offset + last.size, self.alignment)


@dataclass(frozen=True)
class _Work:
    """All that determines the bytes of the files, and where they go."""

    header: GgufHeader
    files: tuple[_File, ...]
    kept: Mapping[str, tuple[int, ...]] | None
    """The experts to keep of each tensor that has experts; None where nothing is pruned."""
    imatrix: Imatrix | None


def quantize(
    source: Path,
    tiers: Sequence[str | Tier],
    out_dir: Path,
    *,
    drop: DropMap | None = None,
    name: str | None = None,
    options: Options | None = None,
    progress: Progress = silent,
    provenance: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write `out_dir/NAME-TIER.gguf` for every tier, of the GGUF file `source`; gives the paths.

    `source` may be any part of a split model. `name` is by default that of the source. Experts named by `drop` are
    left out. `provenance` becomes keys under `espalier.`: text and numbers as they are, anything else as JSON. Progress
    is in bytes of the source's tensors. The bytes depend neither on the number of threads nor on which other tiers are
    made along.

    Killed at any moment and called again, it goes on where it was, after reading back what stood finished. Ended in
    any other way before the end, it leaves nothing.

    Raises, before anything is written: what `read_header`, `fitting_imatrix`, `DropMap.check`,
    `make_plan` and `check_buildable` raise, `OutputExistsError`, `ResourceError` where the disk has too little space
    for all. Later: `InputError` naming a tensor with NaN or infinity, `ResourceError` where the disk fills up. No file
    appears before all are complete.
    """
    options = options or Options()
    source, out_dir = Path(source), Path(out_dir)
    name = name or _model_name(source)
    stem = _stem(out_dir, name)
    work = _prepared(source, _named(tiers), stem, drop=drop, options=options, provenance=provenance)
    _check_outputs(work, options.overwrite)
    with explained_disk_errors(out_dir / name), resumable(out_dir, name, _key(work, options)) as folder:
        require_disk(out_dir, sum(file.bytes for file in work.files) - used_bytes(folder))
        with steady(part.path for part in work.header.parts):
            _write(work, folder, options, progress)
        for file in work.files:
            publish(folder / file.path.name, file.path)
    return [file.path for file in work.files]


def _prepared(
    source: Path,
    tiers: Sequence[Tier],
    stem: Path,
    *,
    drop: DropMap | None,
    options: Options,
    provenance: Mapping[str, Any] | None,
) -> _Work:
    """Everything that can be known before a file is touched."""
    header = read_header(source)
    kept = kept_experts(header, drop)
    kept_count = None if kept is None else len(next(iter(kept.values())))
    imatrix = None if options.imatrix is None else fitting_imatrix(options.imatrix, header, kept)
    ranking = options.ranking or (ranking_of_imatrix(imatrix) if imatrix else None)
    added = header_values(imatrix, options.imatrix.name) if imatrix and options.imatrix else {}
    added |= {KEY_PREFIX + key: _header_value(value) for key, value in (provenance or {}).items()}
    known = imatrix.entries.keys() if imatrix else None
    files: list[_File] = []
    for tier in tiers:
        plan = make_plan(header, tier, imatrix=known, kept_experts=kept_count, ranking=ranking)
        check_buildable(header, plan, requantize=options.requantize)
        parts = divided(plan.tensors, options.split_bytes, header.alignment)
        headers = quantized_headers(header, parts, tier.file_type, kept_experts=kept_count, added=added)
        paths = _paths(stem.with_name(f"{stem.name}-{tier.name}"), len(parts))
        files += [_File(*file, header.alignment) for file in zip(paths, headers, parts, strict=True)]
    return _Work(header, tuple(files), kept, imatrix)


def fitting_imatrix(path: Path, header: GgufHeader, kept: Mapping[str, tuple[int, ...]] | None = None) -> Imatrix:
    """The importance matrix at `path`, fitted to the model of `header`.

    Where `kept` names the experts to keep of each tensor, it is cut to those, unless it was made for the pruned model.
    Raises what `read_imatrix` and `Imatrix.matched` raise.
    """
    imatrix = read_imatrix(path)
    shapes = {tensor.name: tensor.shape for tensor in header.tensors if is_quantized(tensor.name, header.architecture)}
    try:
        whole = imatrix.matched(shapes)
    except MismatchError:
        if kept is None:
            raise
        cut = {name: (*shapes[name][:-1], len(experts)) for name, experts in kept.items() if name in shapes}
        return imatrix.matched(shapes | cut)
    return whole if kept is None else whole.kept(kept)


def _paths(stem: Path, count: int) -> list[Path]:
    if count == 1:
        return [stem.with_name(f"{stem.name}.gguf")]
    return [split_path(stem, number, count) for number in range(count)]


def kept_experts(header: GgufHeader, drop: DropMap | None) -> dict[str, tuple[int, ...]] | None:
    """The experts to keep of each tensor that has experts; None without a map. Raises as `DropMap.check`."""
    if drop is None:
        return None
    shape = shape_of_gguf(header.values)
    drop.check(shape, extra=extra_blocks(header))
    return {name: kept_in(drop, block) for name, block in expert_layers(header, shape).items()}


def _named(tiers: Sequence[str | Tier]) -> list[Tier]:
    found = [tier if isinstance(tier, Tier) else tier_named(tier) for tier in tiers]
    names = [tier.name for tier in found]
    if not found:
        raise InputError("No tier was named.", "Name at least one, for instance Q4_K_M.")
    if len(set(names)) < len(names):
        raise InputError(f"A tier is named twice: {', '.join(names)}.")
    return found


def _model_name(source: Path) -> str:
    """What the model in `source` is called: without the number of a part."""
    return re.sub(r"-\d{5}-of-\d{5}$", "", source.stem)


def _stem(out_dir: Path, name: str) -> Path:
    """What the paths of all outputs begin with."""
    if Path(name).name != name:
        raise InputError(f"{name!r} is not a file name.", "Give a name without folders.")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is not a folder.", "Name a folder to write to.")
    return out_dir / name


def _header_value(value: Any) -> str | int | float:
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check_outputs(work: _Work, overwrite: bool) -> None:
    for file in work.files:
        if file.path.exists():
            if any(file.path.samefile(part.path) for part in work.header.parts):
                raise InputError(f"{file.path} is the source itself.", "Choose another name or folder.")
            if not overwrite:
                raise OutputExistsError(file.path)


def _key(work: _Work, options: Options) -> str:
    """Stands for all that the bytes of the files depend on, so that nothing else is ever gone on with."""
    signatures = [(str(part.path.resolve()), part.path.stat().st_mtime_ns) for part in work.header.parts]
    imatrix = work.imatrix.content_hash if work.imatrix else None
    kept = sorted(work.kept.items()) if work.kept else None
    told = [signatures, imatrix, kept, options.zero_nonfinite, str(ggml.library()), CHUNK_VALUES]
    digest = hashlib.sha256(json.dumps(told).encode())
    for file in work.files:
        digest.update(file.path.name.encode() + b"\0" + file.header)
    return digest.hexdigest()[:16]


def _write(work: _Work, folder: Path, options: Options, progress: Progress) -> None:
    """Write all files to `folder`, or what is missing of them there."""
    converter = Converter(zero_nonfinite=options.zero_nonfinite)
    with ExitStack() as opened:
        sources = [opened.enter_context(part.path.open("rb", buffering=0)).fileno() for part in work.header.parts]
        files = [(file, opened.enter_context(_laid_open(file, folder))) for file in work.files]
        journal = opened.enter_context(closing(Journal(folder / "journal.jsonl")))
        journeys = list(_journeys(work, sources, files))
        _run(converter, journeys, journal, options.threads or os.cpu_count() or 1, progress)


@contextmanager
def _laid_open(file: _File, folder: Path) -> Iterator[int]:
    """A descriptor of `file` under way in `folder`: its header stands, what is not written yet is zeros."""
    descriptor = os.open(folder / file.path.name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        write(descriptor, file.header, 0)
        os.truncate(descriptor, file.bytes)
        yield descriptor
    finally:
        os.close(descriptor)


def _journeys(work: _Work, sources: Sequence[int], files: Sequence[tuple[_File, int]]) -> Iterator[Journey]:
    """Every tensor of the source, in the order of the new files."""
    places: dict[str, dict[Type, tuple[Place, ...]]] = {}
    for file, descriptor in files:
        for planned in file.tensors:
            place = Place(descriptor, len(file.header) + planned.offset)
            found = places.setdefault(planned.name, {})
            found[planned.type] = (*found.get(planned.type, ()), place)
    tensors = {tensor.name: tensor for tensor in work.header.tensors}
    for name, wanted in places.items():
        tensor = tensors[name]
        columns, runs = _kept_rows(tensor, None if work.kept is None else work.kept.get(name))
        source = Place(sources[tensor.part], work.header.start_of(tensor))
        journey = Journey(name, tensor.type, columns, source, runs, wanted)
        yield journey if work.imatrix is None else replace(journey, weigh=partial(work.imatrix.importance, name))


def _kept_rows(tensor: GgufTensor, experts: tuple[int, ...] | None) -> tuple[int, tuple[tuple[int, int], ...]]:
    """(values in a row, runs of rows to keep) of `tensor`, the last axis of which is cut to `experts`."""
    columns = tensor.shape[0] if tensor.shape else 1
    if experts is None:
        return columns, ((0, tensor.elements // columns),)
    if len(tensor.shape) == 1:  # one value per expert: each is a row
        return 1, tuple(kept_runs(experts))
    rows = tensor.elements // columns // tensor.shape[-1]
    return columns, tuple((first * rows, count * rows) for first, count in kept_runs(experts))


def _run(converter: Converter, journeys: Sequence[Journey], journal: Journal, threads: int, progress: Progress) -> None:
    """Make all `journeys` on `threads` threads, reporting in order; those that `journal` knows are only checked."""
    for kind in {kind for journey in journeys for kind in journey.places}:
        ggml.quantize_init(kind)
    total = sum(journey.source_bytes for journey in journeys)
    done = 0

    def advance(journey: Journey, count: int, doing: str = "") -> None:
        nonlocal done
        done += count
        progress(done, total, "bytes", doing + journey.name)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="quantize")
    try:
        known = [journey for journey in journeys if journey.name in journal.found]
        intact = pool.map(lambda one: is_intact(one, journal.found[one.name], converter), known)
        finished = {journey.name for journey, whole in zip(known, intact, strict=True) if whole}
        for journey in known:
            if journey.name in finished:
                advance(journey, journey.source_bytes, "Made before: ")
        waiting: deque[tuple[Chunk, Future[Digests]]] = deque()
        digests: list[Digests] = []

        def finish_oldest() -> None:
            chunk, future = waiting.popleft()
            digests.append(future.result())
            if chunk.is_last:
                journal.add(chunk.journey, digests)
                digests.clear()
            advance(chunk.journey, chunk.source_bytes)

        for chunk in all_chunks(journey for journey in journeys if journey.name not in finished):
            waiting.append((chunk, pool.submit(converter.convert, chunk)))
            if len(waiting) > _AHEAD * threads:
                finish_oldest()
        while waiting:
            finish_oldest()
    finally:
        # After a failure or a cancellation nobody wants the rest; what runs is over in milliseconds.
        pool.shutdown(cancel_futures=True)
