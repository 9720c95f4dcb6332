"""An importance matrix from what an analysis measured: energies of a transformers model, under llama.cpp's names.

A GGUF tensor gets the entry of the layer that the converter makes it from. Columns stay where they are, but for the one
weight whose columns the converter reorders.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSOR, MODEL_TENSORS, TENSOR_NAMES
from gguf.tensor_mapping import get_tensor_name_map

from studio.errors import OutputExistsError, UnsupportedError
from studio.families.base import Family
from studio.families.lookup import family_of_config, text_config
from studio.quantize.imatrix import LLAMA_CHUNK_SIZE, Entry, Floats, Imatrix
from studio.quantize.imatrix_file import write_imatrix

if TYPE_CHECKING:
    from studio.contributions.energies import Energies

_log = logging.getLogger(__name__)

_EXPERTS = re.compile(r"layers\.(\d+)\.(?:.+\.)?experts\.(gate_up_proj|up_proj|down_proj)")
_REORDERED = re.compile(r"layers\.\d+\.linear_attn\.out_proj")
_REORDERING = "qwen35moe"
_TAKEN_APART = re.compile(r"layers\.(\d+)\.linear_attn\.in_proj_qkvz")
_PER_HEAD = re.compile(r"layers\.\d+\.self_attn\.kv_b_proj")
"""Multi-head latent attention: llama.cpp cuts this weight up and multiplies it with something else."""


def imatrix_of(
    energies: Energies, config: Mapping[str, Any], dataset: str, chunk_size: int = LLAMA_CHUNK_SIZE
) -> tuple[Imatrix, tuple[str, ...]]:
    """The importance matrix of the model with that `config.json`, and the weights that have no entry in it.

    What llama-imatrix leaves out unless it is told otherwise, embeddings and output, is left out here. Raises
    `UnsupportedError` for an architecture that gguf does not know.
    """
    family = family_of_config(config)
    text = text_config(config, family)
    names = _Names(family, int(text["num_hidden_layers"]))
    entries: dict[str, Entry] = {}
    left_out = []
    for weight, energy in energies.sums.items():
        sums = energy.astype(np.float32)
        if family.gguf_architecture == _REORDERING and _REORDERED.fullmatch(weight):
            sums = _tiled(sums, text)
        named = list(names.of(weight))
        entries |= {name: Entry(sums, energies.counts[weight]) for name in named}
        left_out += [] if named else [weight]
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    return Imatrix(entries, (dataset,), most // chunk_size, chunk_size), tuple(left_out)


def imatrix_writer(
    config: Mapping[str, Any], dataset: str, out: Path, overwrite: bool = False
) -> Callable[[Energies], None]:
    """What writes the importance matrix of a finished analysis to `out`; what can be wrong before that is said now.

    Raises `OutputExistsError` and `UnsupportedError`.
    """
    if out.exists() and not overwrite:
        raise OutputExistsError(out)
    _Names(family_of_config(config), 1)

    def write(energies: Energies) -> None:
        imatrix, left_out = imatrix_of(energies, config, dataset)
        if left_out:
            _log.warning("the importance matrix has no entry for %s", ", ".join(left_out))
        write_imatrix(imatrix, out, overwrite)

    return write


class _Names:
    """From the names of weights in a transformers decoder to those of GGUF tensors."""

    def __init__(self, family: Family, layers: int) -> None:
        architectures = {name: key for key, name in MODEL_ARCH_NAMES.items()}
        if family.gguf_architecture not in architectures:
            raise UnsupportedError(f"The gguf package does not know the architecture {family.gguf_architecture!r}.")
        architecture = architectures[family.gguf_architecture]
        tensors = MODEL_TENSORS[architecture]
        self._map = get_tensor_name_map(architecture, layers)
        self._router = re.compile(rf"layers\.(\d+)\.{re.escape(family.router_module)}(?:\..+)?")
        apart = MODEL_TENSOR.FFN_GATE_EXP in tensors  # where both are possible, converters write them apart
        self._experts = {
            "gate_up_proj": (MODEL_TENSOR.FFN_GATE_EXP, MODEL_TENSOR.FFN_UP_EXP)
            if apart
            else (MODEL_TENSOR.FFN_GATE_UP_EXP,),
            "up_proj": (MODEL_TENSOR.FFN_UP_EXP,),
            "down_proj": (MODEL_TENSOR.FFN_DOWN_EXP,),
        }

    def of(self, weight: str) -> Iterator[str]:
        """The tensors that get the columns of `weight`; none where llama.cpp has no such tensor."""
        if found := _EXPERTS.fullmatch(weight):
            for tensor in self._experts[found[2]]:
                yield f"{TENSOR_NAMES[tensor].format(bid=int(found[1]))}.weight"
        elif found := self._router.fullmatch(weight):
            yield f"{TENSOR_NAMES[MODEL_TENSOR.FFN_GATE_INP].format(bid=int(found[1]))}.weight"
        elif found := _TAKEN_APART.fullmatch(weight):
            for tensor in (MODEL_TENSOR.ATTN_QKV, MODEL_TENSOR.ATTN_GATE):
                yield f"{TENSOR_NAMES[tensor].format(bid=int(found[1]))}.weight"
        elif not _PER_HEAD.fullmatch(weight):
            name = self._map.get_name(f"model.{weight}")
            if name is not None and name.startswith("blk."):
                yield f"{name}.weight"


def _tiled(sums: Floats, text: Mapping[str, Any]) -> Floats:
    """`sums` `[1, C]` of linear attention's output: heads of values in the order of the converter, tiled over keys."""
    keys, values = int(text["linear_num_key_heads"]), int(text["linear_num_value_heads"])
    heads = sums.reshape(keys, values // keys, int(text["linear_value_head_dim"]))
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(1, -1)
