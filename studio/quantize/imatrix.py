"""The importance matrix: how strongly each column of each weight was used by some text.

For every matrix of a tensor it holds the sum of the squared inputs of each column and the number of tokens they come
from; their quotient weighs the columns when a tensor is quantized. All arithmetic is llama.cpp's own, in float32 and in
its order (tools/quantize/quantize.cpp and tools/imatrix/imatrix.cpp, release of llama-cpp-python 0.3.36), so that the
same matrix gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from studio.errors import InputError, MismatchError
from studio.quantize.roles import Role, block_of, role_of

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]

LLAMA_CHUNK_SIZE = 512
"""Tokens in a chunk of llama-imatrix unless it is told otherwise; a legacy file does not say."""
SCARCE = 1 / 8
"""Of the even share of tokens: an expert that saw less is little known."""
_EXPERTS = "_exps."
"""What the names of tensors with routed experts have in them."""
_LONGEST_VALUE = 127
"""Bytes of a text that llama.cpp puts into a header by way of `llama_model_kv_override`."""


@dataclass(frozen=True, eq=False)
class Entry:
    """What is known about one tensor of M matrices with C columns.

    `sums` [M, C] are sums of squared inputs; `counts` [M] are the tokens they come from, or [1] where all matrices saw
    the same. A file that has one count only does not say how many matrices there are: M is 1 then, and C the product,
    until `Imatrix.matched` compares it with a model.
    """

    sums: Floats
    counts: Counts

    @property
    def fault(self) -> str:
        """What makes these numbers useless, empty where nothing does."""
        if not self.sums.size or len(self.counts) not in (1, len(self.sums)):
            return f"{len(self.counts)} counts do not fit {self.sums.size} sums"
        if not np.isfinite(self.sums).all():
            return "its sums hold NaN or infinity"
        if self.sums.min() < 0:
            return "its sums of squares are negative"
        return "its counts are negative" if self.counts.min() < 0 else ""


@dataclass(frozen=True, eq=False)
class Coverage:
    """How many tokens reached each expert of one layer; `tokens` [M]."""

    tokens: Counts

    @property
    def unseen(self) -> tuple[int, ...]:
        """Experts that saw no token: nothing is known about them, and all their columns count the same."""
        return tuple(np.flatnonzero(self.tokens == 0).tolist())

    def scarce(self, share: float = SCARCE) -> tuple[int, ...]:
        """Experts that saw some tokens, but fewer than `share` of what each would see if all saw the same."""
        few = (self.tokens > 0) & (self.tokens < share * self.tokens.mean())
        return tuple(np.flatnonzero(few).tolist())


@dataclass(frozen=True, eq=False)
class Imatrix:
    """An importance matrix; `entries` are by name of the tensor.

    A `legacy` one has lost the counts: its sums are means times `counts`, which are chunks instead of tokens.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...]
    """The texts it was computed on."""
    chunk_count: int
    chunk_size: int
    """Tokens; 0 where it is not known."""
    legacy: bool = False
    left_out: int = 0
    """Entries that `matched` had no use for."""

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over all that it says, whatever file it came from and whether or not it was `matched`."""
        digest = hashlib.sha256(_canonical([self.datasets, self.chunk_count, self.chunk_size, self.legacy]))
        for name, entry in sorted(self.entries.items()):
            digest.update(_canonical([name, entry.sums.size, len(entry.counts)]))
            digest.update(np.ascontiguousarray(entry.sums, dtype="<f4").data)
            digest.update(np.ascontiguousarray(entry.counts, dtype="<i8").data)
        return digest.hexdigest()

    @cached_property
    def coverage(self) -> Mapping[int, Coverage]:
        """Layer → how its experts are covered: the worst of its tensors, and no layer where only chunks are known."""
        tokens: dict[int, Counts] = {}
        for name, entry in self.entries.items():
            layer = block_of(name)
            if layer is None or _EXPERTS not in name or len(entry.counts) == 1:
                continue
            known = tokens.get(layer, entry.counts)
            if len(known) != len(entry.counts):
                raise MismatchError(f"{name} has {len(entry.counts)} experts, and other tensors there {len(known)}.")
            tokens[layer] = np.minimum(known, entry.counts)
        return {layer: Coverage(tokens[layer]) for layer in sorted(tokens)}

    def importance(self, name: str) -> Floats | None:
        """[M, C]: the weights that llama.cpp gives to the columns of tensor `name`, None where it is not listed.

        A matrix that no token reached gets ones.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        counts = entry.counts.astype(np.float32)[:, np.newaxis]
        weights = entry.sums.copy() if self.legacy else np.ones_like(entry.sums)
        return np.divide(entry.sums, counts, out=weights, where=counts > 0)

    def matched(self, shapes: Mapping[str, tuple[int, ...]]) -> Imatrix:
        """The same, with entries as the tensors of a model are: `shapes` in ne order, of all that will be quantized.

        Entries of other tensors stay as they are; one of embeddings that does not fit is left out, as llama.cpp does.
        Raises `MismatchError` for any other that does not fit, and where none belongs to the model.
        """
        shared = [name for name in self.entries if name in shapes]
        if not shared:
            raise MismatchError(
                f"None of the {len(self.entries)} entries of the importance matrix is about a tensor of this model.",
                "It is of another model: choose the one that was computed with this one.",
            )
        entries = dict(self.entries)
        for name in shared:
            fitted = _fitted(name, entries.pop(name), shapes[name])
            if fitted is not None:
                entries[name] = fitted
        return replace(self, entries=entries, left_out=self.left_out + len(self.entries) - len(entries))

    def kept(self, expert_ids: Mapping[str, Sequence[int]]) -> Imatrix:
        """The importance matrix of the pruned model; `expert_ids` says which experts of which tensors are kept.

        Tensors of one matrix, such as routers, stay as they are. A matrix whose file lacks counts has to be `matched`
        first. Raises `MismatchError` where an expert is kept that is not there.
        """
        entries = {
            name: entry if len(entry.sums) == 1 or name not in expert_ids else _sliced(name, entry, expert_ids[name])
            for name, entry in self.entries.items()
        }
        return replace(self, entries=entries)


def merge(imatrices: Sequence[Imatrix]) -> Imatrix:
    """What `llama-imatrix --in-file A --in-file B …` makes of several: sums and counts add, datasets follow each other.

    Legacy ones become tokens again, as far as they can: a chunk counts for the tokens of the first of `imatrices` that
    says how many a chunk has. So merging a single legacy one converts it. Chunks are counted anew, from the tokens.
    Raises `InputError` where there is nothing to merge, and `MismatchError` naming the tensor about which two disagree.
    """
    if not imatrices:
        raise InputError("There is no importance matrix to merge.", "Name at least one.")
    chunk_size = next((one.chunk_size for one in imatrices if one.chunk_size), LLAMA_CHUNK_SIZE)
    merged: dict[str, Entry] = {}
    for one in imatrices:
        for name, given in one.entries.items():
            entry = _in_tokens(given, chunk_size) if one.legacy else given
            merged[name] = _sum(name, merged[name], entry) if name in merged else entry
    most = max((int(entry.counts.max()) for entry in merged.values()), default=0)
    datasets = tuple(dataset for one in imatrices for dataset in one.datasets)
    return Imatrix(merged, datasets, most // chunk_size, chunk_size)


def header_values(imatrix: Imatrix, file_name: str) -> dict[str, Any]:
    """The keys that llama-quantize appends, in its order, for `imatrix` from `file_name`.

    Texts are strings, numbers uint32. llama-quantize writes whatever path it was given, cut to 127 bytes.
    """
    values: dict[str, Any] = {"quantize.imatrix.file": _cut(file_name)}
    if imatrix.datasets:
        values["quantize.imatrix.dataset"] = _cut(imatrix.datasets[0])
    values["quantize.imatrix.entries_count"] = len(imatrix.entries) + imatrix.left_out
    if imatrix.chunk_count > 0:
        values["quantize.imatrix.chunks_count"] = imatrix.chunk_count
    return values


def _fitted(name: str, entry: Entry, shape: tuple[int, ...]) -> Entry | None:
    """`entry` as the matrices of a tensor of `shape` (ne order), None for embeddings that it does not fit."""
    columns, matrices = shape[0], shape[2] if len(shape) > 2 else 1
    if entry.sums.size == columns * matrices and len(entry.counts) in (1, matrices):
        return Entry(entry.sums.reshape(matrices, columns), entry.counts)
    if role_of(name) is Role.EMBEDDINGS:
        return None
    raise MismatchError(
        f"The importance matrix has {entry.sums.size} values and {len(entry.counts)} counts for {name}, "
        f"and the model has {matrices} × {columns} there.",
        "It is of another model, or of this one before it was pruned: `imatrix slice` cuts it to size.",
    )


def _sliced(name: str, entry: Entry, experts: Sequence[int]) -> Entry:
    ids = np.asarray(experts, dtype=np.int64)
    if ids.size == 0 or ids.min() < 0 or ids.max() >= len(entry.sums):
        raise MismatchError(
            f"The importance matrix has {len(entry.sums)} experts for {name}, and expert {max(experts, default=0)} "
            "is to be kept.",
            "It is of another model, or of one that was pruned already.",
        )
    return Entry(entry.sums[ids], entry.counts if len(entry.counts) == 1 else entry.counts[ids])


def _in_tokens(entry: Entry, chunk_size: int) -> Entry:
    """A legacy entry, in chunks, as if it had been counted in tokens."""
    return Entry(entry.sums * np.float32(chunk_size), entry.counts * chunk_size)


def _sum(name: str, first: Entry, second: Entry) -> Entry:
    """Both together; a single count is that of every matrix."""
    matrices = max(len(first.sums), len(second.sums))
    fits = first.sums.size == second.sums.size and all(len(one.sums) in (1, matrices) for one in (first, second))
    if not fits:
        sizes = " and ".join(f"{one.sums.shape[0]} × {one.sums.shape[1]}" for one in (first, second))
        raise MismatchError(
            f"The importance matrices disagree about {name}: {sizes} sums.", "Merge only those of the same model."
        )
    with np.errstate(over="ignore"):
        sums = first.sums.reshape(matrices, -1) + second.sums.reshape(matrices, -1)
    total = Entry(sums, first.counts + second.counts)
    if total.fault:
        raise InputError(f"The importance matrices cannot be merged, tensor {name}: {total.fault}.")
    return total


def _cut(text: str) -> str:
    return text.encode("utf-8", "surrogateescape")[:_LONGEST_VALUE].decode("utf-8", "surrogateescape")


def _canonical(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
