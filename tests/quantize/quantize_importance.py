"""Importance matrices for the small models, the same bytes on every machine, and what llama.cpp makes of them.

Imports nothing of Espalier: the recorder of tests/oracle_recorder hands the numbers of `importance` to llama.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CHUNKS, CHUNK_SIZE = 6, 512
TEXT = "prose-and-code.txt"
UNSEEN, SCARCE = 3, 5
"""Experts that no token of layer 2 reaches, and that few do."""
MISSING = ("blk.1.ffn_down_exps.weight", "output.weight")
"""Tensors without an entry: no tier makes them so small that llama.cpp insists on one."""


def build_imatrix(path: Path, model: Path, *, seed: int = 11) -> Path:
    """Write an importance matrix for the GGUF file `model` to `path`, as llama-imatrix writes it."""
    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].pop("general.architecture", None)
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [TEXT])
    writer.add_uint32("imatrix.chunk_count", CHUNKS)
    writer.add_uint32("imatrix.chunk_size", CHUNK_SIZE)
    for name, sums, counts in sorted(_entries(model, seed), key=lambda entry: entry[0]):
        writer.add_tensor(f"{name}.in_sum2", sums if len(sums) > 1 else sums[0])
        writer.add_tensor(f"{name}.counts", counts[:, np.newaxis] if len(counts) > 1 else counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def build_legacy(path: Path, model: Path, *, seed: int = 11) -> Path:
    """The same in the older format, as `llama-imatrix --output-format dat` writes it."""
    entries = sorted(_entries(model, seed), key=lambda entry: entry[0])
    parts = [struct.pack("<i", len(entries))]
    for name, sums, counts in entries:
        chunks = -(-int(counts.max()) // CHUNK_SIZE)
        seen = np.where(counts > 0, counts, 1)[:, np.newaxis]
        values = np.where(counts[:, np.newaxis] > 0, sums, np.float32(1)) / seen * np.float32(chunks)
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", chunks, values.size)]
        parts += [values.astype("<f4").tobytes()]
    parts += [struct.pack("<ii", CHUNKS, len(TEXT)), TEXT.encode()]
    path.write_bytes(b"".join(parts))
    return path


def importance(path: Path) -> dict[str, Floats]:
    """Tensor → the weights that llama-quantize hands to llama.cpp, flat (`load_imatrix` of its quantize.cpp)."""
    if path.read_bytes()[:4] != b"GGUF":
        return dict(_legacy_importance(path.read_bytes()))
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    weights: dict[str, Floats] = {}
    for name in [name.removesuffix(".counts") for name in tensors if name.endswith(".counts")]:
        counts = tensors[f"{name}.counts"].reshape(-1)
        sums = tensors[f"{name}.in_sum2"].reshape(len(counts), -1)
        rows = [row / count if count > 0 else np.ones_like(row) for row, count in zip(sums, counts, strict=True)]
        weights[name] = np.concatenate(rows)
    return weights


def _legacy_importance(data: bytes) -> Iterator[tuple[str, Floats]]:
    position = 4
    for _ in range(*struct.unpack_from("<i", data)):
        (length,) = struct.unpack_from("<i", data, position)
        name = data[position + 4 : position + 4 + length].decode()
        position += 4 + length
        chunks, size = struct.unpack_from("<ii", data, position)
        yield name, np.frombuffer(data, "<f4", size, position + 8) / np.float32(chunks)
        position += 8 + 4 * size


def _entries(model: Path, seed: int) -> Iterator[tuple[str, Floats, Floats]]:
    """(name, sums [M, C], counts [M]) of the tensors that llama.cpp would see in use."""
    generator = np.random.PCG64(seed)
    tensors = gguf.GGUFReader(model).tensors
    tied = "output.weight" not in {tensor.name for tensor in tensors}
    for tensor in tensors:
        columns, rows, matrices = (*(int(size) for size in tensor.shape), 1, 1)[:3]
        if rows == 1 or tensor.name in MISSING:
            continue
        if tensor.name == "token_embd.weight" and not tied:
            columns -= 1  # an entry that does not fit, which llama.cpp ignores for embeddings
        raw = generator.random_raw(matrices * columns // 4 + 1).astype("<u8").view(np.uint16)[: matrices * columns]
        counts = np.full(matrices, CHUNKS * CHUNK_SIZE, dtype=np.float32)
        if matrices > 1:
            counts = (generator.random_raw(matrices) % 900 + 100).astype(np.float32)
            if tensor.name.startswith("blk.2.") and matrices > SCARCE:
                counts[UNSEEN], counts[SCARCE] = 0, 5
        squares = ((raw.astype(np.float32) + 1) / np.float32(1 << 14)) ** 2
        yield tensor.name, squares.reshape(matrices, columns) * counts[:, np.newaxis], counts
