"""The weights of single experts as float32 matrices, one at a time, from safetensors or GGUF in any type."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type

from studio.checkpoints.gguf_header import read_header as read_gguf_header
from studio.checkpoints.model_folder import open_model_folder
from studio.checkpoints.reference import Reference
from studio.checkpoints.safetensors_header import SafeTensor
from studio.errors import FormatError, MismatchError, UnsupportedError
from studio.families.lookup import family_named

Matrix = npt.NDArray[np.float32]

DOWN = "down"
# Mixtral's names, and Granite's.
_KINDS = {"w1": "gate", "w2": DOWN, "w3": "up", "input_linear": "gate_up", "output_linear": DOWN}
# Which matrix a tensor of experts is; of which layer and expert, its family says. `shared_experts` are no routed ones.
_CHECKPOINT = re.compile(
    r".*\.(?:experts\.(?:\d+\.)?(?P<kind>gate_up|gate|up|down|w1|w2|w3)(?:_proj)?(?:\.weight)?"
    r"|(?P<linear>input_linear|output_linear)\.weight)"
)
_GGUF = re.compile(r"blk\.(?P<layer>\d+)\.ffn_(?P<kind>gate_up|gate|up|down)_exps\.weight")
_CHECKPOINT_SCALE = re.compile(r".*\blayers\.(?P<layer>\d+)\.router\.per_expert_scale")
_GGUF_SCALE = re.compile(r"blk\.(?P<layer>\d+)\.ffn_down_exps\.scale")
_FLOATS = {"F32": Type.F32, "F16": Type.F16, "BF16": Type.BF16, "F64": Type.F64}


@dataclass(frozen=True)
class _Stored:
    """Where the values of one matrix lie."""

    path: Path
    start: int
    type: Type
    shape: tuple[int, ...]
    """Rows first, as in torch."""


class ExpertWeights:
    """The experts of one model. Nothing is kept in memory but where they lie.

    Raises, when it is made, `UnsupportedError` for a type that cannot be read, or where no tensor of experts has a
    known name, and `FormatError` where one lacks experts.
    """

    def __init__(self, reference: Reference) -> None:
        self.path, self.shape = reference.path, reference.shape
        self._matrices: dict[tuple[int, int], dict[str, _Stored]] = defaultdict(dict)
        self._scales: dict[int, _Stored] = {}
        self._family = family_named(reference.shape.family)
        self._transposed = self._family.transposed and reference.kind != "gguf"
        for name, stored in _gguf(reference.path) if reference.kind == "gguf" else _checkpoint(reference.path):
            self._place(name, stored)
        for layer in self.shape.layer_ids:
            for expert in range(self.shape.experts):
                if DOWN not in self._matrices.get((layer, expert), {}):
                    raise UnsupportedError(
                        f"{self.path} has no down projection of layer {layer}, expert {expert}, under a name that is "
                        "known here.",
                        "Use the original checkpoint, or its GGUF.",
                    )

    def down(self, layer: int, expert: int) -> Matrix:
        """The down projection of one expert, `[hidden size, expert size]`. Raises `FormatError` and `MismatchError`."""
        stored = self._matrices[layer, expert][DOWN]
        matrix = _read(stored).T if self._transposed else _read(stored)
        wanted = (self.shape.hidden_size, self.shape.expert_size)
        if matrix.shape != wanted:
            raise MismatchError(
                f"{self.path}: the down projection of layer {layer}, expert {expert}, is {list(matrix.shape)}, and the "
                f"model's header says {list(wanted)}."
            )
        return matrix

    def flat(self, layer: int, expert: int) -> Matrix:
        """All weights of one expert in one row."""
        matrices = self._matrices[layer, expert]
        return np.concatenate([_read(matrices[kind]).ravel() for kind in sorted(matrices)])

    def scale(self, layer: int) -> Matrix:
        """What the model multiplies the output of each expert with beside the router's weight, `[E]`; mostly ones."""
        stored = self._scales.get(layer)
        return np.ones(self.shape.experts, dtype=np.float32) if stored is None else _read(stored)

    @property
    def bytes_per_expert(self) -> int:
        """The most that an expert takes in memory once it is read."""
        return max(sum(4 * math.prod(one.shape) for one in matrices.values()) for matrices in self._matrices.values())

    def _place(self, name: str, stored: _Stored) -> None:
        if scale := _CHECKPOINT_SCALE.fullmatch(name) or _GGUF_SCALE.fullmatch(name):
            self._scales[int(scale["layer"])] = stored
            return
        if match := _GGUF.fullmatch(name):
            layer, single, kind = int(match["layer"]), None, match["kind"]
        elif (match := _CHECKPOINT.fullmatch(name)) and (place := self._family.place(name)) and place.layer is not None:
            layer, single, kind = place.layer, place.expert, match["kind"] or match["linear"]
        else:
            return
        if layer not in self.shape.layer_ids:
            return
        kind = _KINDS.get(kind, kind)
        if single is not None:
            self._matrices[layer, single][kind] = stored
            return
        if len(stored.shape) != 3 or stored.shape[0] != self.shape.experts:
            problem = f"it is {list(stored.shape)}, and has to have {self.shape.experts} experts first"
            raise FormatError(stored.path, f"tensor {name!r}", problem)
        each = _bytes(stored.type, stored.shape[1:])
        for expert in range(self.shape.experts):
            start = stored.start + expert * each
            self._matrices[layer, expert][kind] = _Stored(stored.path, start, stored.type, stored.shape[1:])


def _checkpoint(folder: Path) -> Iterator[tuple[str, _Stored]]:
    for header in open_model_folder(folder).shards.values():
        for tensor in header.tensors:
            if _CHECKPOINT.fullmatch(tensor.name) or _CHECKPOINT_SCALE.fullmatch(tensor.name):
                start = header.data_start + tensor.start
                yield tensor.name, _Stored(header.path, start, _float_type(header.path, tensor), tensor.shape)


def _float_type(path: Path, tensor: SafeTensor) -> Type:
    if tensor.dtype not in _FLOATS:
        raise UnsupportedError(
            f"{path}: the tensor {tensor.name!r} is {tensor.dtype}, from which Espalier cannot read single experts.",
            "Use a checkpoint in BF16, F16 or F32, or a GGUF.",
        )
    return _FLOATS[tensor.dtype]


def _gguf(path: Path) -> Iterator[tuple[str, _Stored]]:
    header = read_gguf_header(path)
    for tensor in header.tensors:
        if _GGUF.fullmatch(tensor.name) or _GGUF_SCALE.fullmatch(tensor.name):
            where = header.parts[tensor.part].path
            yield tensor.name, _Stored(where, header.start_of(tensor), tensor.type, tensor.shape[::-1])


def _bytes(kind: Type, shape: tuple[int, ...]) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block * block_bytes


def _read(stored: _Stored) -> Matrix:
    """The values of one matrix; `FormatError` where the file ends early, `UnsupportedError` for an unknown type."""
    from gguf.quants import dequantize

    count = _bytes(stored.type, stored.shape)
    with stored.path.open("rb") as file:
        file.seek(stored.start)
        data = file.read(count)
    if len(data) < count:
        raise FormatError(stored.path, f"byte {stored.start}", "the file ended while it was read")
    if stored.type is Type.F64:
        return np.frombuffer(data, "<f8").astype(np.float32).reshape(stored.shape)
    rows = np.frombuffer(data, np.uint8).reshape(*stored.shape[:-1], -1)
    try:
        values = dequantize(rows, stored.type)
    except NotImplementedError:
        raise UnsupportedError(f"{stored.path} has experts of type {stored.type.name}, which cannot be read.") from None
    return np.ascontiguousarray(values, dtype=np.float32).reshape(stored.shape)
